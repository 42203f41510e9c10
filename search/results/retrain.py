"""The best trial rebuilt from the database, trained on all data, and tested on the sealed set."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from optuna.study import Study
from optuna.trial import FrozenTrial

from search.data.dataset import DatasetInfo
from search.exceptions import InputError
from search.folders import CARD_NAME, PICTURES, make_folder
from search.space.hyperparameters import Hyperparameters
from search.study.findings import add_looks, store_retraining
from search.study.history import DISTRIBUTION
from search.study.open import check_same_data, rebuild
from search.study.settings import StudySettings
from search.training.epochs import EpochResult
from search.training.weights import CARD_VERSION, save_card, weights_name
from search.workers.jobs import WorkerPool
from search.workers.repeats import Repeat, Spread, train_repeats
from search_models.size import parameter_count


def make_weights_folder(folder: Path) -> Path:
    """Makes a folder for weights, in place of those that are there; returns it.

    Raises:
        InputError: if files cannot be written there, or pictures are there that are of no weights.
    """
    make_folder(folder)
    is_of_weights = (folder / CARD_NAME).exists() or any(folder.glob(weights_name("*")))
    pictures = [name for name in PICTURES if (folder / name).exists()]
    if pictures and not is_of_weights:
        raise InputError(
            f"New weights take the place of a run's pictures, but {folder / pictures[0]} is of no "
            "run; move it, or name another folder with --out."
        )
    return folder


def retrain(
    study: Study,
    trial: FrozenTrial,
    pool: WorkerPool,
    info: DatasetInfo,
    *,
    seeds: Sequence[int],
    device: str,
    folder: Path,
    listener: Callable[[int, EpochResult], None],
) -> list[Repeat]:
    """Trains a trial's recipe on training and validation data, and tests it.

    Writes the weights of each seed and a card into `folder`, which must exist, in place of those
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
    # A card beside the weights or pictures of another run would be a lie.
    beside = [folder / name for name in (CARD_NAME, *PICTURES)]
    for stale in (*beside, *folder.glob(weights_name("*"))):
        stale.unlink(missing_ok=True)
    add_looks(study, len(seeds), by="retrain", trial=trial.number)
    repeats = train_repeats(
        pool,
        hyperparameters,
        seeds=seeds,
        epochs=settings.epochs,
        training="development",
        evaluation="test",
        device=device,
        listener=listener,
        folder=folder,
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
    save_card(card, folder)
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
        "parameter_count": parameter_count(hyperparameters.spec),
        "hyperparameters": hyperparameters.to_dict(),
        "normalization": asdict(info.normalization),
        "epochs": settings.epochs,
        "metric": settings.metric,
        "test_accuracy": asdict(Spread.of([repeat.last_three_mean for repeat in repeats])),
        "runs": [repeat.to_dict() for repeat in repeats],
    }
