"""What a search tells other programs of its trials: one interface, and TensorBoard behind it."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from optuna.study import Study
from optuna.trial import FrozenTrial

from search.exceptions import InputError
from search.extras import import_extra
from search.folders import check_folder_can_be_made, file_name, make_folder
from search.study.settings import StudySettings
from search.study.summary import accuracy_of, parameter_count_of
from search.training.epochs import EpochResult
from search.training.metrics import Metric
from search.tuner.events import SearchEvent, TrialEnded, TrialEpoch
from search.wording import install_words

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_FORMS = "tensorboard:FOLDER"


class Tracker(Protocol):
    """Keeps records of trials outside the study. Its errors end the search: nothing is lost."""

    def log_epoch(self, trial: FrozenTrial, result: EpochResult) -> None:
        """A trial has trained an epoch."""

    def log_end(self, trial: FrozenTrial) -> None:
        """A trial is over: COMPLETE, PRUNED or FAIL, with all that the study knows of it."""

    def close(self) -> None:
        """No more trials follow. One that has not ended was interrupted, and starts again."""


@contextmanager
def tracking(log: str | None, study: Study) -> Iterator[Callable[[SearchEvent], None]]:
    """What tells a tracker of a search's events, while the context lasts.

    Args:
        log: what keeps the records, and where, as `tensorboard:FOLDER`; None keeps none.

    Raises:
        InputError: if there is no such tracker, or it is not installed.
    """
    if log is None:
        yield lambda event: None
        return
    tracker = _open_tracker(log, study)

    def tell(event: SearchEvent) -> None:
        if not isinstance(event, TrialEpoch | TrialEnded):
            return
        trial = study.get_trials(deepcopy=False)[event.number]
        if isinstance(event, TrialEpoch):
            tracker.log_epoch(trial, event.result)
        else:
            tracker.log_end(trial)

    try:
        yield tell
    finally:
        tracker.close()


def check_log(log: str) -> tuple[str, Path]:
    """The kind of a tracker, and where it keeps its records; looked up without PyTorch.

    Raises:
        InputError: if there is no such tracker, it is not installed, or its folder cannot be made.
    """
    kind, colon, folder = log.partition(":")
    if kind != "tensorboard" or not colon or not folder:
        raise InputError(f"A log must be {_FORMS}, but got {log!r}.")
    if importlib.util.find_spec("tensorboard") is None:
        raise InputError(
            f"--log {kind} needs a package that is not installed; install it with: "
            f"{install_words(kind)}."
        )
    check_folder_can_be_made(Path(folder), option="--log")
    return kind, Path(folder)


def make_log_folder(log: str) -> None:
    """Makes the folder where a tracker keeps its records; to be called once PyTorch is loaded.

    Raises:
        InputError: if it cannot be written, or the tracker's installation is broken.
    """
    kind, folder = check_log(log)
    rule = f"--log {kind} needs a package"
    import_extra(kind, "torch.utils.tensorboard", rule=rule, package=kind)
    make_folder(folder, option="--log")


def _open_tracker(log: str, study: Study) -> Tracker:
    _, folder = check_log(log)
    metric = StudySettings.from_study(study).metric
    return TensorBoard(folder / file_name(study.study_name), metric)


class TensorBoard:
    """One run a trial in `folder`: a curve for each thing that an epoch gives, hyperparameters.

    A trial's value, the mean of its last epochs, is what its hyperparameters are compared by.

    Args:
        metric: by which validation images judge a network; the training accuracy is a plain one.
    """

    def __init__(self, folder: Path, metric: Metric) -> None:
        self._folder = folder
        self._metric = metric
        self._writers: dict[int, SummaryWriter] = {}

    def log_epoch(self, trial: FrozenTrial, result: EpochResult) -> None:
        writer = self._open_writer(trial.number)
        for tag, value in (
            (f"{self._metric}/validation", result.accuracy),
            ("accuracy/training", result.training_accuracy),
            ("loss/validation", result.loss),
            ("loss/training", result.training_loss),
            ("learning_rate", result.learning_rate),
        ):
            writer.add_scalar(tag, value, result.epoch)
        writer.flush()

    def log_end(self, trial: FrozenTrial) -> None:
        from torch.utils.tensorboard.summary import hparams

        if trial.number not in self._writers:
            return  # it never trained
        writer = self._writers.pop(trial.number)
        accuracy = accuracy_of(trial)
        value = math.nan if accuracy is None else accuracy
        writer.add_scalar("value", value)
        count = parameter_count_of(trial) or 0
        searched = {**trial.params, "parameter_count": count, "state": trial.state.name}
        # Not by `writer.add_hparams`, which would make a second run of each trial.
        file = cast(Any, writer)._get_file_writer()
        for summary in cast(Any, hparams)(searched, {"value": value}):
            file.add_summary(summary)
        writer.close()

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def _open_writer(self, number: int) -> SummaryWriter:
        """The writer of a trial's run, which is begun where there is none."""
        from torch.utils.tensorboard import SummaryWriter

        if number not in self._writers:
            self._writers[number] = SummaryWriter(str(self._folder / f"trial-{number:04}"))
        return self._writers[number]
