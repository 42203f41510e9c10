"""How a trial begins: asked for, drawn, and made a job, or refused."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from optuna.exceptions import UpdateFinishedTrialError
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from search.storage.cached import batch_writes
from search.study.owners import owner_of_this_process
from search.study.record import TrialRecord, is_queued_wrongly, queued_values
from search.study.settings import StudySettings, identity_of
from search.study.sharing import Sharing
from search.tuner.events import Outcome, TrialEnded
from search.tuner.sampler import CappedSampler
from search.tuner.trial_writer import TrialWriter, stored_trial
from search.workers.jobs import Job
from search_models.layers import SpecError


@dataclass(frozen=True, slots=True)
class ReadyTrial:
    """A trial that a worker can be given.

    Args:
        n_redraws: how many candidates over the cap were drawn before it.
    """

    job: Job
    parameter_count: int
    n_redraws: int


class TrialStarter:
    """Begins the trials of a study.

    Args:
        study: opened with a `CappedSampler`.
        writer: ends those that are not to train.
        seed: from which, with the trial's number, each training seed follows.
        weights_path: where a trial's weights are to be written, by its number; None keeps none.
    """

    def __init__(
        self,
        study: Study,
        writer: TrialWriter,
        sharing: Sharing,
        *,
        seed: int,
        device: str,
        weights_path: Callable[[int], Path] | None,
    ) -> None:
        assert isinstance(study.sampler, CappedSampler)
        self._study = study
        self._sampler = study.sampler
        self._writer = writer
        self._sharing = sharing
        self._seed = seed
        self._device = device
        self._weights_path = weights_path
        self._settings = StudySettings.from_study(study)
        self._space = self._settings.search_space()
        # What a trial says from its first moment.
        self._mark = TrialRecord(owner=owner_of_this_process(), study=identity_of(study))
        self._found_nothing_new = False

    def refresh(self) -> None:
        """Takes note of what the study has tried."""
        self._sampler.refresh(self._study)

    @property
    def has_untried(self) -> bool:
        """Whether the space had a configuration to try when it was last refreshed."""
        return not self._found_nothing_new and self._sampler.has_untried(self._study)

    def reserve(self) -> int:
        """The identifier of a trial from the queue or a new one, with nothing drawn yet.

        What `Study.ask` does before it draws, but that a trial says whose it is before it runs:
        what runs and does not is another program's.

        Raises:
            KeyError: if the study was deleted, also where another has its identifier now.
        """
        if identity_of(self._study) != self._mark.study:
            raise KeyError("the study was deleted, and another has its identifier")
        self._study._thread_local.cached_all_trials = None
        trial_id = self._take_waiting()
        if trial_id is None:
            begun = create_trial(state=TrialState.RUNNING, user_attrs=self._mark.to_attributes())
            trial_id = self._study._storage.create_new_trial(self._study._study_id, begun)
        with suppress(UpdateFinishedTrialError):  # a person was quicker, and `prepare` will see
            self._sharing.record_start(trial_id)
        return trial_id

    def _take_waiting(self) -> int | None:
        """The identifier of the first trial of the queue, which runs then; None where it is empty.

        Nothing makes a trial run and says whose it is at once. So it is said first: where this
        process dies in between, the trial waits as before, and who takes it next says so anew.
        """
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            with suppress(UpdateFinishedTrialError), batch_writes(self._study):
                self._mark.write(self._study, trial._trial_id)
                if self._study._storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING):
                    return trial._trial_id
        return None

    def draw(self, trial: Trial) -> None:
        """Draws a whole candidate, which Optuna does when it is first asked for a part of it."""
        if self._invalid_reason(stored_trial(trial)) is None:
            _ = trial.relative_params

    def prepare(self, trial: Trial, running: Collection[int]) -> ReadyTrial | TrialEnded:
        """Makes a job of a drawn trial, or ends it where it is not to train.

        Args:
            running: numbers of the trials that train now.
        """
        stored = stored_trial(trial)
        invalid_reason = self._invalid_reason(stored)
        if invalid_reason is not None:
            return self._writer.refuse(trial, invalid_reason)
        seed = TrialRecord.read(stored).training_seed
        if seed is None:
            seed = self._training_seed(trial.number)
        with batch_writes(self._study):
            try:
                hyperparameters = self._space.suggest(trial)
                count = hyperparameters.spec.parameter_count
            except SpecError as error:
                return self._writer.refuse(trial, str(error))
            draw = self._sampler.take_draw()
            record = TrialRecord(
                parameter_count=count,
                redraws=draw.n_redraws,
                shrunk=draw.is_shrunk or None,
                number=trial.number,
                training_seed=seed,
                recipe=hyperparameters.to_dict() if self._space.is_open else None,
            )
            record.write(self._study, trial._trial_id)
        if not self._space.fits(hyperparameters.spec):
            return self._writer.refuse_too_large(trial, count)
        unknown = (queued_values(stored) or {}).keys() - stored_trial(trial).params.keys()
        if unknown:
            return self._writer.refuse(trial, f"{min(unknown)} is not suggested by this network")
        if not draw.is_new and queued_values(stored) is None:
            self._found_nothing_new = True
            return self._writer.refuse_duplicate(trial, count, Outcome.EXHAUSTED.value)
        self._sampler.refresh(self._study, besides=trial.number)
        earlier = self._sampler.seen.trained_by(trial.params)
        if earlier is not None:
            trained = "trains" if earlier in running else "trained"
            reason = f"trial {earlier} {trained} this configuration already"
            return self._writer.refuse_duplicate(trial, count, reason)
        job = Job(
            key=trial.number,
            hyperparameters=hyperparameters,
            epochs=self._settings.epochs,
            seed=seed,
            device=self._device,
            weights_path=self._weights_path and self._weights_path(trial.number),
            metric=self._settings.metric,
        )
        return ReadyTrial(job, count, draw.n_redraws)

    def _invalid_reason(self, trial: FrozenTrial) -> str | None:
        """Why what a person queued cannot be tried in this space, or None where it can."""
        if is_queued_wrongly(trial):
            return "it was queued with something else than values by name"
        return self._space.invalid_reason(queued_values(trial) or {})

    def _training_seed(self, number: int) -> int:
        return int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0])
