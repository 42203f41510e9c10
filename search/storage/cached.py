"""An Optuna storage that reads each trial once, and knows what this process itself has written.

Optuna's own cache reads every trial that runs, whole, whenever somebody asks for the trials: with
100 workers that was nearly all that a search cost beside its training (`docs/scaling.md`). A search
asks often, and most of what runs it has written itself. So here a refresh brings the states of the
trials that are not finished, and whole only those trials whose state has changed. What a search
writes about one trial at one time goes there in one transaction.
"""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Container, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from optuna.distributions import BaseDistribution, check_distribution_compatibility
from optuna.storages._cached_storage import _CachedStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from search.storage.retrying import RetryingStorage
from search.storage.rows import TrialWrites

_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
# What runs elsewhere is read again so often, for the pruner: it compares trials on their way.
_REFRESH_SECONDS = 2.0


@dataclass(slots=True)
class _Known:
    """What is known of a study's trials.

    Args:
        trials: by number.
        indices: of each trial in that list, by its identifier.
        finished: in the order in which they were seen to be.
        open: identifiers of those that wait or run.
        refreshed_at: when a trial that runs elsewhere was read last, by its identifier.
        last_id: the highest identifier that a refresh has brought. A trial made here may have a
            higher one, and between them be some that were made elsewhere.
    """

    trials: list[FrozenTrial] = field(default_factory=list)
    indices: dict[int, int] = field(default_factory=dict)
    finished: list[FrozenTrial] = field(default_factory=list)
    open: set[int] = field(default_factory=set)
    refreshed_at: dict[int, float] = field(default_factory=dict)
    last_id: int = -1

    def find(self, trial_id: int) -> FrozenTrial | None:
        index = self.indices.get(trial_id)
        return None if index is None else self.trials[index]

    def put(self, trial: FrozenTrial) -> None:
        index = self.indices.get(trial._trial_id)
        if index is not None:
            self.trials[index] = trial
        elif not self.trials or self.trials[-1].number < trial.number:
            self.indices[trial._trial_id] = len(self.trials)
            self.trials.append(trial)
        else:
            self._order([*self.trials, trial])
        if not trial.state.is_finished():
            self.open.add(trial._trial_id)
            return
        self.open.discard(trial._trial_id)
        self.refreshed_at.pop(trial._trial_id, None)
        self.finished.append(trial)

    def drop(self, trial_ids: set[int]) -> None:
        """Forgets open trials, which somebody has deleted."""
        self.open -= trial_ids
        self.refreshed_at = {
            key: at for key, at in self.refreshed_at.items() if key not in trial_ids
        }
        self._order([trial for trial in self.trials if trial._trial_id not in trial_ids])

    def _order(self, trials: list[FrozenTrial]) -> None:
        self.trials = sorted(trials, key=lambda trial: trial.number)
        self.indices = {trial._trial_id: index for index, trial in enumerate(self.trials)}
        # SQLite gives the identifier of a deleted trial, where it was the highest, to the next one.
        self.last_id = min(self.last_id, max(self.indices, default=-1))


class CachedStorage(_CachedStorage):
    """Optuna's storage of a database, with what this process knows of it in memory.

    Trials that others finish, delete or make are seen at the next refresh; of those that run
    elsewhere, what is written of them while they run is seen within two seconds.
    """

    def __init__(self, backend: RetryingStorage) -> None:
        super().__init__(backend)
        self._database = backend
        self._known: dict[int, _Known] = {}
        self._own: set[int] = set()  # trials that run here: what is known of them is the truth
        self._gathered: dict[int, TrialWrites] | None = None
        self._lock = threading.RLock()  # type: ignore[assignment]

    def __getstate__(self) -> dict[Any, Any]:
        return {**super().__getstate__(), "_own": set(), "_gathered": None}

    def __setstate__(self, state: dict[Any, Any]) -> None:
        super().__setstate__(state)
        self._lock = threading.RLock()  # type: ignore[assignment]

    # --- Reading ---

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        with self._lock:
            known = self._refresh(study_id)
            if states is None:
                trials = known.trials.copy()
            else:
                is_of_open = not any(state in states for state in _FINISHED)
                trials = self._open_trials(known) if is_of_open else known.trials
                trials = [trial for trial in trials if trial.state in states]
        return copy.deepcopy(trials) if deepcopy else trials

    def finished_and_open(self, study_id: int) -> tuple[Sequence[FrozenTrial], list[FrozenTrial]]:
        """The finished trials, in the order in which they were seen to be, and all others."""
        with self._lock:
            known = self._refresh(study_id)
            return known.finished, self._open_trials(known)

    def get_trial(self, trial_id: int) -> FrozenTrial:
        with self._lock:
            if trial_id in self._own and self._database.trial_state(trial_id) == TrialState.RUNNING:
                return _copied(self._find_own(trial_id))
        return super().get_trial(trial_id)

    def get_trial_system_attrs(self, trial_id: int) -> dict[str, Any]:
        with self._lock:
            if trial_id in self._own:
                return dict(self._find_own(trial_id).system_attrs)
        return super().get_trial_system_attrs(trial_id)

    def _refresh(self, study_id: int) -> _Known:
        """Brings what is known of a study up to date."""
        known = self._known.setdefault(study_id, _Known())
        states = self._database.open_trial_states(study_id, known.open, known.last_id)
        deleted = known.open - states.keys()
        if deleted:
            known.drop(deleted)
            self._own -= deleted
        now = time.monotonic()
        due = [
            trial_id
            for trial_id, state in states.items()
            if self._is_due(known, trial_id, state, now)
        ]
        if due:
            self._put(study_id, self._database.read_trials(study_id, due))
            known.refreshed_at.update(dict.fromkeys(known.open.intersection(due), now))
        known.last_id = max([known.last_id, *states])
        return known

    def _is_due(self, known: _Known, trial_id: int, state: TrialState, now: float) -> bool:
        """Whether a trial is to be read: it is new, its state changed, or it runs elsewhere."""
        trial = known.find(trial_id)
        if trial is None or trial.state != state:
            return True
        if state != TrialState.RUNNING or trial_id in self._own:
            return False
        # Its hyperparameters come all at once, and decide what else may be trained.
        return not trial.params or now - known.refreshed_at.get(trial_id, 0.0) > _REFRESH_SECONDS

    def _put(self, study_id: int, trials: Sequence[FrozenTrial]) -> None:
        """Takes note of trials as they are now; whoever calls it holds the lock."""
        known = self._known.setdefault(study_id, _Known())
        for trial in trials:
            known.put(trial)
            if trial.state != TrialState.RUNNING:
                self._own.discard(trial._trial_id)
        self._add_trials_to_cache(study_id, list(trials))

    def _add_trials_to_cache(self, study_id: int, trials: list[FrozenTrial]) -> None:
        if study_id not in self._studies:
            self.get_study_directions(study_id)  # which makes the entry
        super()._add_trials_to_cache(study_id, trials)

    @staticmethod
    def _open_trials(known: _Known) -> list[FrozenTrial]:
        indices = sorted(known.indices[trial_id] for trial_id in known.open)
        return [known.trials[index] for index in indices]

    def _find_own(self, trial_id: int) -> FrozenTrial:
        study_id, _ = self._trial_id_to_study_id_and_number[trial_id]
        trial = self._known[study_id].find(trial_id)
        if trial is None:
            raise KeyError(f"trial {trial_id} was deleted")
        return trial

    # --- Writing ---

    @contextmanager
    def batch_writes(self) -> Iterator[None]:
        """Writes what is set of trials inside at the end, or before a trial's state changes.

        In one transaction for each trial. An error inside leaves none of it written. What is raised
        at the end is what the first of the writes would have raised.
        """
        assert self._gathered is None
        self._gathered = {}
        try:
            yield
            self._flush()
        except BaseException:
            for trial_id in self._gathered:  # what is known of them is not what is written
                self._disown(trial_id)
            raise
        finally:
            self._gathered = None

    def _flush(self) -> None:
        while self._gathered:
            trial_id = next(iter(self._gathered))
            self._database.write_trial(trial_id, self._gathered[trial_id])
            del self._gathered[trial_id]

    def delete_study(self, study_id: int) -> None:
        super().delete_study(study_id)
        self._known.pop(study_id, None)

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        with self._lock:
            trial = self._database._create_new_trial(study_id, template_trial)
            self._put(study_id, [trial])
            # Not those of trials that another program has made, which may be of any kind.
            for name, distribution in trial.distributions.items():
                self._studies[study_id].param_distribution.setdefault(name, distribution)
            if trial.state == TrialState.RUNNING:
                self._own.add(trial._trial_id)
            return trial._trial_id

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        with self._lock:
            self._flush()
            is_set = self._database.set_trial_state_values(trial_id, state, values)
            self._own.discard(trial_id)
            if is_set and state == TrialState.RUNNING and self._is_known(trial_id):
                study_id, _ = self._trial_id_to_study_id_and_number[trial_id]
                trials = self._database.read_trials(study_id, [trial_id])
                self._put(study_id, trials)
                # Unless somebody has ended it since.
                self._own.update(t._trial_id for t in trials if t.state == TrialState.RUNNING)
            return is_set

    def set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
    ) -> None:
        with self._lock:
            study_id, _ = self._trial_id_to_study_id_and_number[trial_id]
            known = self._studies[study_id].param_distribution
            try:
                check_distribution_compatibility(known.get(param_name, distribution), distribution)
            except ValueError:  # that it has ended is the better reason
                self.check_trial_is_updatable(trial_id, self._database.trial_state(trial_id))
                raise
            value = distribution.to_external_repr(param_value_internal)
            self._write(trial_id, TrialWrites(params={param_name: (distribution, value)}))
            known.setdefault(param_name, distribution)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._write(trial_id, TrialWrites(user_attrs={key: value}))

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._write(trial_id, TrialWrites(system_attrs={key: value}))

    def set_trial_intermediate_value(
        self, trial_id: int, step: int, intermediate_value: float
    ) -> None:
        self._write(trial_id, TrialWrites(intermediate_values={step: intermediate_value}))

    def _write(self, trial_id: int, writes: TrialWrites) -> None:
        with self._lock:
            if self._gathered is None:
                self._database.write_trial(trial_id, writes)
            else:
                self._gathered.setdefault(trial_id, TrialWrites()).add(writes)
            if trial_id in self._own:
                self._note(trial_id, writes)

    def _note(self, trial_id: int, writes: TrialWrites) -> None:
        """Puts a copy in the place of a trial, which others may be reading."""
        trial = _copied(self._find_own(trial_id))
        for name, (distribution, value) in writes.params.items():
            trial.distributions[name] = distribution
            trial.params[name] = value
        trial.user_attrs.update(writes.user_attrs)
        trial.system_attrs.update(writes.system_attrs)
        trial.intermediate_values.update(writes.intermediate_values)
        study_id, _ = self._trial_id_to_study_id_and_number[trial_id]
        self._put(study_id, [trial])

    def _is_known(self, trial_id: int) -> bool:
        return trial_id in self._trial_id_to_study_id_and_number

    def _disown(self, trial_id: int) -> None:
        """What is known of a trial is no longer the truth: it is read at the next refresh."""
        self._own.discard(trial_id)
        if self._is_known(trial_id):
            study_id, _ = self._trial_id_to_study_id_and_number[trial_id]
            self._known[study_id].refreshed_at.pop(trial_id, None)


def check_database(study: Study) -> None:
    """Raises DatabaseError where the file of a study's database is gone; reads nothing of it."""
    storage = study._storage
    database = storage._database if isinstance(storage, CachedStorage) else storage
    if isinstance(database, RetryingStorage):
        database.check()


def batch_writes(study: Study) -> AbstractContextManager[None]:
    """Writes what is set of each trial inside in one transaction, where the storage can."""
    storage = study._storage
    return storage.batch_writes() if isinstance(storage, CachedStorage) else nullcontext()


def _copied(trial: FrozenTrial) -> FrozenTrial:
    """A copy to write to; what is in its dictionaries is nobody's to change."""
    twin = copy.copy(trial)
    twin._params, twin._distributions = dict(trial._params), dict(trial._distributions)
    twin._user_attrs, twin._system_attrs = dict(trial._user_attrs), dict(trial._system_attrs)
    twin.intermediate_values = dict(trial.intermediate_values)
    return twin
