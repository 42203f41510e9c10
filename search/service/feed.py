"""What happens in a study, read from its database: so a search is watched wherever it runs.

The events are those that the search itself tells (`search/tuner/events.py`), made of what it has
stored. They begin with how the study stands: the trials that run, with their epochs so far.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from search.storage.cached import CachedStorage
from search.storage.retrying import RetryingStorage
from search.study.history import StudyLength, length_asked_before, run_records
from search.study.length import Stagnation
from search.study.locks import searching_process
from search.study.news import TrialNews
from search.study.open import open_study
from search.study.record import TrialRecord, is_foreign
from search.study.settings import StudySettings
from search.study.summary import Tally, accuracy_of, best_trial, parameter_count_of, tally
from search.study.trials import trials_of
from search.tuner.events import SearchEvent, TrialEnded, TrialEpoch, TrialStarted

_GONE_SECONDS = 10.0  # without anybody who searches it, after which a search is taken for over


@dataclass(frozen=True, slots=True)
class StudyStart:
    """How a study stands as somebody begins to watch it.

    Args:
        length: when its last search was to end.
        stagnation: since when nothing better came.
        before: its trials as they are, but for those that run.
    """

    study: str
    dataset: str
    metric: str
    budget: int
    epochs: int
    length: StudyLength
    stagnation: Stagnation
    n_workers: int
    pruner: str
    before: Tally
    best_value: float | None
    best_trial: int | None
    best_parameter_count: int | None

    def to_json(self) -> dict[str, Any]:
        """As values that JSON knows."""
        return {"event": "study", **asdict(self)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> StudyStart:
        """What `to_json` made."""
        fields = {key: value for key, value in values.items() if key != "event"}
        kinds = {"before": Tally, "length": StudyLength, "stagnation": Stagnation}
        return cls(**{**fields, **{key: kind(**values[key]) for key, kind in kinds.items()}})


class StudyFeed:
    """Tells what is new in a study each time that it is asked.

    Args:
        storage: that the study is in; others may use it as well.

    Raises:
        StudyError: if there is no such study, or it was made by something else.
    """

    def __init__(self, storage: RetryingStorage, name: str) -> None:
        self._study = open_study(CachedStorage(storage), name)
        self._settings = StudySettings.from_study(self._study)
        self._news = TrialNews()
        self._workers: dict[int, int] = {}  # of the trials that run, the line that each has
        self._n_epochs: dict[int, int] = {}  # that were told of each of these
        self._searched_at = time.monotonic()

    @property
    def name(self) -> str:
        return self._study.study_name

    def start(self) -> StudyStart:
        """How the study stands; what comes after that, `read` tells."""
        trials = trials_of(self._study)
        self._news.take_new(self._study)
        best = best_trial(trials)
        records = run_records(self._study)
        last = records[-1] if records else {}
        # Trials that run count their redraws once they are told.
        settled = [trial for trial in trials if trial.state != TrialState.RUNNING]
        split = self._settings.known_split
        return StudyStart(
            study=self._study.study_name,
            dataset=self._settings.dataset,
            metric=self._settings.metric,
            budget=self._settings.budget,
            epochs=self._settings.epochs,
            length=length_asked_before(self._study) or StudyLength(0),
            stagnation=Stagnation.of(settled, 1 if split is None else split.n_validation),
            n_workers=int(last.get("n_workers", 1)),
            pruner=str(last.get("pruner", "none")),
            before=replace(tally(settled), n_running=0),
            best_value=None if best is None else accuracy_of(best),
            best_trial=None if best is None else best.number,
            best_parameter_count=None if best is None else parameter_count_of(best),
        )

    def read(self) -> list[SearchEvent]:
        """What has happened since it was asked last.

        Raises:
            KeyError: if somebody has deleted the study.
        """
        news = self._news.take_new(self._study)
        running = [t for t in news.open if t.state == TrialState.RUNNING and not is_foreign(t)]
        events = [event for trial in running for event in self._running(trial)]
        ended = [event for trial in news.finished for event in self._ended(trial)]
        gone = self._workers.keys() - {trial.number for trial in running}
        events += ended
        for number in sorted(gone):  # a person has deleted it
            events.append(self._end(TrialEnded(number, None, reason="it was deleted")))
        return events

    def is_over(self) -> bool:
        """Whether nobody has searched the study for a while, as far as this machine can tell."""
        if self._workers or searching_process(self._study) is not None:
            self._searched_at = time.monotonic()
        return time.monotonic() - self._searched_at > _GONE_SECONDS

    def _running(self, trial: FrozenTrial) -> Iterator[SearchEvent]:
        record = TrialRecord.read(trial)
        if record.parameter_count is None:  # it has not begun to train
            return
        number = trial.number
        if number not in self._workers:
            worker = next(n for n in range(len(self._workers) + 1) if n not in self._lines())
            self._workers[number], self._n_epochs[number] = worker, 0
            yield TrialStarted(number, worker, record.parameter_count, record.redraws or 0)
        yield from self._epochs(number, record)

    def _epochs(self, number: int, record: TrialRecord) -> Iterator[SearchEvent]:
        for result in record.epochs[self._n_epochs[number] :]:
            yield TrialEpoch(number, self._workers[number], result)
        self._n_epochs[number] = len(record.epochs)

    def _ended(self, trial: FrozenTrial) -> Iterator[SearchEvent]:
        if is_foreign(trial):
            return
        record = TrialRecord.read(trial)
        number, count = trial.number, record.parameter_count
        if number not in self._workers and count is not None:  # it began since the last look
            self._workers[number], self._n_epochs[number] = max(self._lines(), default=-1) + 1, 0
            yield TrialStarted(number, self._workers[number], count, record.redraws or 0)
        if number in self._workers:
            yield from self._epochs(number, record)
        yield self._end(
            TrialEnded(
                number,
                None if record.is_interrupted else trial.state,
                count,
                value=accuracy_of(trial),
                n_epochs=len(record.epochs),
                reason=record.reason,
                is_requeued=record.is_interrupted,
            )
        )

    def _end(self, event: TrialEnded) -> TrialEnded:
        self._workers.pop(event.number, None)
        self._n_epochs.pop(event.number, None)
        return event

    def _lines(self) -> set[int]:
        return set(self._workers.values())
