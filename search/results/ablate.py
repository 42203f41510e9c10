"""A trial's recipe and each change of it trained, compared, and stored with the study.

`search.study.repeat_runs` keeps every finished run at once, in a study named after the search with
`-ablated` behind it, with the name of its change and its recipe. Recipe, part and seed tell which
run it is, so that one of another trial, or of another version's changes, is never taken for it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from optuna.study import Study
from optuna.trial import FrozenTrial

from search.data.dataset import DatasetInfo
from search.exceptions import StudyDeletedError, StudyError
from search.results.ablation import UNCHANGED, Row, make_row, variants
from search.results.folds import Folds, Run
from search.space.hyperparameters import Hyperparameters
from search.study.findings import Findings, store_ablation
from search.study.open import check_same_data, rebuild
from search.study.record import TrialRecord
from search.study.repeat_runs import RepeatStore
from search.study.settings import StudySettings
from search.study.summary import ABLATES, accuracy_of
from search.workers.jobs import WorkerPool
from search.workers.repeats import Repeat, train_runs


class Ablation:
    """The ablation of one trial: what is to be trained, and what has been trained so far.

    Runs that are kept of an earlier one are not trained again.

    Args:
        folds: the parts of the study's data.
        n_seeds: how often the unchanged recipe and every change of it are trained, each time with
            another seed and validated by another part.

    Raises:
        StudyError: if the trial cannot be rebuilt, or its network does not fit into the budget.
    """

    def __init__(self, study: Study, trial: FrozenTrial, *, folds: Folds, n_seeds: int) -> None:
        hyperparameters = rebuild(study, trial)
        settings = StudySettings.from_study(study)
        space = settings.search_space()
        if not space.fits(hyperparameters.spec):
            raise StudyError(
                f"A network must have fewer parameters than the budget of {settings.budget:,}, but "
                f"that of trial {trial.number} has {hyperparameters.spec.parameter_count:,}; take "
                "another with --trial."
            )
        self.hyperparameters = hyperparameters
        self.epochs = settings.epochs
        self.metric = settings.metric
        self._study = study
        self._number = trial.number
        self.n_parts = folds.n_parts
        # None of the search's own seeds, which are of 32 bits: those chose the trial.
        self._runs = folds.runs(n_seeds, first_seed=1)
        self._changes = [(UNCHANGED, hyperparameters), *variants(hyperparameters)]
        self._trained = [
            (name, changed) for name, changed in self._changes if space.fits(changed.spec)
        ]
        # What each run of a change came to; None where its loss was not finite.
        self._finished: dict[tuple[str, Run], float | None] = {}
        self._repeat_store = RepeatStore(study, ABLATES)
        self.keeps_runs = not self._repeat_store.is_name_taken
        if self.keeps_runs:
            self._take_kept()
        self.n_kept = len(self._finished)

    def _take_kept(self) -> None:
        kept = [(TrialRecord.read(run), accuracy_of(run)) for run in self._repeat_store.runs()]
        values = {
            (_text(record.recipe), Run(record.part or 0, record.training_seed)): accuracy
            for record, accuracy in kept
            if record.recipe is not None and record.training_seed is not None
        }
        for name, changed in self._trained:
            text = _text(changed.to_dict())
            for run in self._runs:
                if (text, run) in values:
                    self._finished[name, run] = values[text, run]

    @property
    def kept_in(self) -> str:
        """The name of the study that keeps the runs; another's where `keeps_runs` is false."""
        return self._repeat_store.name

    @property
    def n_changes(self) -> int:
        """How many changes are trained, besides the unchanged recipe."""
        return len(self._trained) - 1

    @property
    def n_runs(self) -> int:
        """How many training runs there are in all."""
        return len(self._trained) * len(self._runs)

    @property
    def n_finished(self) -> int:
        """How many of them have ended, before or now."""
        return len(self._finished)

    def run(
        self,
        pool: WorkerPool,
        info: DatasetInfo,
        *,
        device: str,
        listener: Callable[[str, Run, Repeat, bool], None],
        should_stop: Callable[[], bool],
    ) -> None:
        """Trains what is missing, and stores the rows with the study, as far as they are known.

        Every change has its turn with a part and a seed before the next ones begin, so that an
        interruption leaves the same of each.

        Args:
            should_stop: ends it where it is.
            listener: told a change, which run of it, how far that is, and whether it has ended,
                after each epoch.

        Raises:
            StudyError: if the data are not those of the study.
            TrainingError: if a training run cannot be finished.
        """
        check_same_data(self._study, info)
        missing = [
            (name, changed, run)
            for run in self._runs
            for name, changed in self._trained
            if (name, run) not in self._finished
        ]
        try:
            for index, repeat in train_runs(
                pool,
                [(changed, *run) for _, changed, run in missing],
                epochs=self.epochs,
                device=device,
                metric=self.metric,
                should_stop=should_stop,
            ):
                name, changed, run = missing[index]
                is_finished = len(repeat.epochs) == self.epochs or not repeat.is_finite
                if is_finished:
                    self._finish(name, changed, run, repeat)
                listener(name, run, repeat, is_finished)
        finally:
            self.store()

    def _finish(self, name: str, changed: Hyperparameters, run: Run, repeat: Repeat) -> None:
        if self.keeps_runs:
            self._repeat_store.add(
                TrialRecord(
                    change=name,
                    recipe=changed.to_dict(),
                    part=run.part,
                    training_seed=run.seed,
                    parameter_count=changed.spec.parameter_count,
                    seconds=repeat.seconds,
                    epochs=repeat.epochs,
                )
            )
        value = repeat.last_three_mean if repeat.is_finite else None
        self._finished[name, run] = value

    def rows(self) -> list[Row]:
        """The unchanged recipe and each change of it, from what has been trained so far."""
        (_, hyperparameters), *changes = self._changes
        reference = self._row(UNCHANGED, hyperparameters, None)
        return [reference, *(self._row(name, changed, reference) for name, changed in changes)]

    def _row(self, name: str, changed: Hyperparameters, reference: Row | None) -> Row:
        count = changed.spec.parameter_count
        if (name, changed) not in self._trained:
            return Row(name, count, [None] * len(self._runs), verdict="over budget")
        indices = [(name, run) for run in self._runs]
        return make_row(
            name,
            count,
            [self._finished.get(index) for index in indices],
            parts=[run.part for run in self._runs],
            is_diverged=any(self._finished.get(index, 0.0) is None for index in indices),
            reference=reference,
        )

    def store(self) -> None:
        """Keeps the rows with the study, but never in place of those of more runs.

        Raises:
            StudyDeletedError: if the study was deleted.
        """
        is_complete = self.n_finished == self.n_runs
        rows = {
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "seeds": [run.seed for run in self._runs],
            "parts": [run.part for run in self._runs],
            "epochs": self.epochs,
            "complete": is_complete,
            "rows": [asdict(row) for row in self.rows()],
        }
        try:
            stored = Findings.read(self._study).ablation(self._number) or {}
            # One of before there were parts was of one part alone.
            n_stored = len(stored.get("seeds", ())) if "parts" in stored else 0
            is_larger = not is_complete or n_stored > len(self._runs)
            if self.n_finished > 0 and not (stored.get("complete") and is_larger):
                store_ablation(self._study, self._number, rows)
        except KeyError as error:
            raise StudyDeletedError(
                f"The study must stay while its recipe is changed, but {self._study.study_name!r} "
                "was deleted."
            ) from error


def _text(hyperparameters: Mapping[str, Any]) -> str:
    """A recipe's values as text, the same before they were stored and after."""
    return json.dumps(hyperparameters, sort_keys=True)
