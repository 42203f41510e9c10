"""The best trial rebuilt from the database, trained on all data, and tested on the sealed set."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from optuna.study import Study
from optuna.trial import FrozenTrial

from search.data.dataset import DatasetInfo
from search.folders import CARD_NAME, PICTURES, training_folder
from search.published import OutputFolder
from search.space.hyperparameters import Hyperparameters
from search.study.findings import add_looks, store_retraining
from search.study.history import DISTRIBUTION
from search.study.open import check_same_data, rebuild
from search.study.settings import StudySettings
from search.training.card import CARD_VERSION, card_text, weights_name
from search.training.epochs import EpochResult
from search.workers.jobs import WorkerPool
from search.workers.repeats import Repeat, Spread, train_repeats


class WeightsFolder:
    """A folder for the weights of a retraining and their card, made where it is missing.

    They take the place of those, and of the pictures, of an earlier one; of nothing else.

    Raises:
        InputError: if files cannot be written there, or one of a user's is in the way.
    """

    def __init__(self, path: Path, seeds: Sequence[int]) -> None:
        self.path = path
        self._weights = OutputFolder(path, "weights")
        self._pictures = OutputFolder(path, "pictures")
        self._weights.check((CARD_NAME, *map(weights_name, seeds)))
        self._pictures.check(PICTURES)

    def replace(self, trained: Path, card: Mapping[str, Any]) -> None:
        """Moves weights here from the folder where they were trained, and writes their card.

        Raises:
            OSError: if they cannot be written.
        """
        files: dict[str, bytes | Path] = {path.name: path for path in sorted(trained.iterdir())}
        # Beside the pictures of another run, a card would be a lie.
        self._pictures.replace({})
        self._weights.replace({**files, CARD_NAME: card_text(card).encode()})


def retrain(
    study: Study,
    trial: FrozenTrial,
    pool: WorkerPool,
    info: DatasetInfo,
    *,
    seeds: Sequence[int],
    device: str,
    folder: WeightsFolder,
    listener: Callable[[int, EpochResult], None],
) -> list[Repeat]:
    """Trains a trial's recipe on training and validation data, and tests it.

    Writes the weights of each seed and a card into `folder` once all are trained, in place of those
    that an earlier run left there, and stores the result with the study. Each seed is one look at
    the test set, counted before it is taken; it is scored after every epoch, and nothing is
    chosen by that.

    Raises:
        StudyError: if the trial cannot be rebuilt, or the data are not those of the study.
        TrainingError: if a training run cannot be finished.
    """
    check_same_data(study, info)
    hyperparameters = rebuild(study, trial)
    settings = StudySettings.from_study(study)
    add_looks(study, len(seeds), by="retrain", trial=trial.number)
    with training_folder(folder.path) as trained:
        repeats = train_repeats(
            pool,
            hyperparameters,
            seeds=seeds,
            epochs=settings.epochs,
            training="development",
            evaluation="test",
            device=device,
            listener=listener,
            folder=trained,
            metric=settings.metric,
        )
        card = _card(
            study,
            trial,
            info,
            hyperparameters=hyperparameters,
            settings=settings,
            repeats=repeats,
        )
        folder.replace(trained, card)
    summary = {key: card[key] for key in ("created", "trial", "test_accuracy", "runs")}
    store_retraining(study, summary)
    return repeats


def _card(
    study: Study,
    trial: FrozenTrial,
    info: DatasetInfo,
    *,
    hyperparameters: Hyperparameters,
    settings: StudySettings,
    repeats: Sequence[Repeat],
) -> dict[str, Any]:
    return {
        "card_version": CARD_VERSION,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "package": f"{DISTRIBUTION} {importlib.metadata.version(DISTRIBUTION)}",
        "study": study.study_name,
        "trial": trial.number,
        "dataset": {
            "name": info.name,
            "fingerprint": info.fingerprint,
            "classes": list(info.classes),
            "trained_on": "training and validation images",
            "n_training": info.n_development,
            "n_test": info.n_test,
        },
        "parameter_count": hyperparameters.spec.parameter_count,
        "hyperparameters": hyperparameters.to_dict(),
        "normalization": asdict(info.normalization),
        "epochs": settings.epochs,
        "metric": settings.metric,
        "test_accuracy": asdict(Spread.of([repeat.last_three_mean for repeat in repeats])),
        "runs": [repeat.to_dict() for repeat in repeats],
    }
