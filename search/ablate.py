"""A trial's recipe and each change of it trained, compared, and stored with the study."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime

from optuna.study import Study
from optuna.trial import FrozenTrial

from models.size import parameter_count
from search.ablation import UNCHANGED, Row, make_row, variants
from search.data import DatasetInfo
from search.exceptions import StudyError
from search.hyperparameters import Hyperparameters
from search.repeats import Repeat, train_recipes
from search.study import StudySettings, check_same_data, rebuild
from search.workers import WorkerPool


class Ablation:
    """The ablation of one trial: what is to be trained, and what has been trained so far.

    Args:
        seeds: with each of which the unchanged recipe and every change of it are trained.

    Raises:
        StudyError: if the trial cannot be rebuilt, or its network does not fit into the budget.
    """

    def __init__(self, study: Study, trial: FrozenTrial, *, seeds: Sequence[int]) -> None:
        recipe = rebuild(study, trial)
        settings = StudySettings.from_study(study)
        count = parameter_count(recipe.spec)
        if count >= settings.budget:
            raise StudyError(
                f"A network must have fewer parameters than the budget of {settings.budget:,}, but "
                f"that of trial {trial.number} has {count:,}; take another with --trial."
            )
        self.recipe = recipe
        self.epochs = settings.epochs
        self._study = study
        self._key = f"ablation_{trial.number}"
        self._seeds = list(seeds)
        self._changes = [(UNCHANGED, recipe), *variants(recipe)]
        self._trained = [
            (name, changed)
            for name, changed in self._changes
            if parameter_count(changed.spec) < settings.budget
        ]
        self._finished: dict[tuple[str, int], Repeat] = {}

    @property
    def n_changes(self) -> int:
        """How many changes are trained, besides the unchanged recipe."""
        return len(self._trained) - 1

    @property
    def n_runs(self) -> int:
        """How many training runs there are in all."""
        return len(self._trained) * len(self._seeds)

    @property
    def n_finished(self) -> int:
        """How many of them have ended."""
        return len(self._finished)

    def run(
        self,
        pool: WorkerPool,
        info: DatasetInfo,
        *,
        device: str,
        listener: Callable[[str, Repeat, bool], None],
    ) -> None:
        """Trains all, and stores the rows with the study, as far as they are known when it ends.

        Args:
            listener: told a change, its run so far, and whether that has ended, after each epoch.

        Raises:
            StudyError: if the data are not those of the study.
            TrainingError: if a training run cannot be finished.
        """
        check_same_data(self._study, info)
        try:
            for place, repeat in train_recipes(
                pool,
                [changed for _, changed in self._trained],
                seeds=self._seeds,
                epochs=self.epochs,
                device=device,
            ):
                name, _ = self._trained[place]
                is_finished = len(repeat.epochs) == self.epochs or not repeat.is_finite
                if is_finished:
                    self._finished[name, repeat.seed] = repeat
                listener(name, repeat, is_finished)
        finally:
            self._store()

    def rows(self) -> list[Row]:
        """The unchanged recipe and each change of it, from what has been trained so far."""
        (_, recipe), *changes = self._changes
        reference = self._row(UNCHANGED, recipe, None)
        return [reference, *(self._row(name, changed, reference) for name, changed in changes)]

    def _row(self, name: str, changed: Hyperparameters, reference: Row | None) -> Row:
        count = parameter_count(changed.spec)
        if (name, changed) not in self._trained:
            return Row(name, count, [None] * len(self._seeds), verdict="over budget")
        runs = [self._finished.get((name, seed)) for seed in self._seeds]
        return make_row(
            name,
            count,
            [run.last_three_mean if run and run.is_finite else None for run in runs],
            is_diverged=any(run is not None and not run.is_finite for run in runs),
            reference=reference,
        )

    def _store(self) -> None:
        """Keeps the rows; those of an interrupted run never in place of a whole one's."""
        is_complete = self.n_finished == self.n_runs
        stored = self._study.user_attrs.get(self._key, {})
        if self.n_finished == 0 or (stored.get("complete") and not is_complete):
            return
        self._study.set_user_attr(
            self._key,
            {
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
                "seeds": self._seeds,
                "epochs": self.epochs,
                "complete": is_complete,
                "rows": [asdict(row) for row in self.rows()],
            },
        )
