"""A study that starts from the best trials of an earlier one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeGuard

from optuna.study import Study

from search.exceptions import StudyError
from search.space.space import Space
from search.space.transfer import transfer_values
from search.storage.open import opened_storage
from search.storage.studies import study_names
from search.study.open import open_study
from search.study.record import TrialRecord
from search.study.settings import StudySettings
from search.study.summary import best_trial, by_accuracy
from search.study.trials import trials_of

if TYPE_CHECKING:  # it imports torch
    from search.data.dataset import DatasetInfo

# What a recipe says of its images, and not of networks: whether a mirrored one is still one.
_OF_IMAGES = ("flip",)
_N_BEST = 5
_TO_QUEUE = "warm_start"  # attribute of a study: what is to be queued; None once all of it is


@dataclass(frozen=True, slots=True)
class WarmStart:
    """What a study is to try first.

    Args:
        study: the name of the earlier study.
        configurations: values in the space of the new one, by the number of the earlier trial,
            best first.
        left_out: the hyperparameters that were not taken over, as the images are others.
    """

    study: str
    configurations: dict[int, dict[str, Any]]
    left_out: tuple[str, ...] = ()

    def queue(self, study: Study) -> None:
        """Puts the configurations in the queue of a study, each marked with where it is from.

        The study keeps all of them first: where a search dies before the last one is queued,
        `queue_rest` queues what is missing, even if the earlier study is gone by then.
        """
        whole = {str(number): values for number, values in self.configurations.items()}
        study.set_user_attr(_TO_QUEUE, {"study": self.study, "configurations": whole})
        queue_rest(study)


def queue_rest(study: Study) -> WarmStart | None:
    """Queues what a search that died left to be queued; returns that, or None where nothing was.

    Only for who holds the lock of the study, as `Sharing` sees to.
    """
    stored = study.user_attrs.get(_TO_QUEUE)
    if not _is_to_queue(stored):
        return None
    queued = {TrialRecord.read(trial).from_study for trial in trials_of(study)}
    rest: dict[int, dict[str, Any]] = {}
    for number, values in stored["configurations"].items():
        origin = f"{stored['study']}/{number}"
        if origin not in queued:
            record = TrialRecord(from_study=origin)
            study.enqueue_trial(values, user_attrs=record.to_attributes())
            rest[int(number)] = values
    study.set_user_attr(_TO_QUEUE, None)
    return WarmStart(stored["study"], rest) if rest else None


def _is_to_queue(stored: Any) -> TypeGuard[dict[str, Any]]:
    """Whether that is what `WarmStart.queue` keeps; another program may have its own there."""
    match stored:
        case {"study": str(), "configurations": dict(configurations)}:
            return all(
                number.isdecimal() and isinstance(values, dict)
                for number, values in configurations.items()
            )
    return False


@contextmanager
def opened_source(url: str, name: str, study_name: str) -> Iterator[Study | None]:
    """The study from which a new one is to start; None where that one has trials, and goes on.

    Args:
        name: of the earlier study.
        study_name: of the new one.

    Raises:
        StorageError: if the storage cannot be opened.
        StudyError: if there is no such study, it is the new one itself, has no complete trial, or
            was not made by `search run`.
    """
    if name == study_name:
        raise StudyError(
            f"A study must start from another one, but --from-study names {name!r} itself; leave "
            "it out to go on with that study, or name a new one with --study."
        )
    with opened_storage(url) as storage:
        is_known = study_name in study_names(storage)
        if is_known and open_study(storage, study_name).get_trials(deepcopy=False):
            yield None
            return
        earlier = open_study(storage, name)
        StudySettings.from_study(earlier)
        if best_trial(trials_of(earlier)) is None:
            raise StudyError(
                f"A study to start from must have a complete trial, but {name!r} has none yet; go "
                "on with that one first, or name another with --from-study."
            )
        yield earlier


def warm_start(earlier: Study, space: Space, info: DatasetInfo) -> WarmStart:
    """The best complete trials of a study that another space can express, five at most.

    The studies may differ in budget, epochs, data set and space; `transfer_values` says what
    becomes of values that the new space does not have. Of other images, how they are mirrored is
    not taken over.

    Args:
        info: of the images of the new study.

    Raises:
        StudyError: if the study was not made by `search run`.
    """
    settings = StudySettings.from_study(earlier)
    # A folder may have been moved, or have got more images.
    is_same = info.name == settings.dataset or info.fingerprint == settings.data_fingerprint
    left_out = () if is_same else tuple(name for name in _OF_IMAGES if name in space.distributions)
    transfer = partial(transfer_values, left_out=left_out, largest_batch=info.n_training)
    found: dict[int, dict[str, Any]] = {}
    known: set[object] = set()
    theirs = settings.search_space()
    for trial in by_accuracy(trials_of(earlier)):
        if not theirs.distributions.keys() <= trial.params.keys():
            continue  # it was added by hand
        values = transfer(trial.params, theirs, space)
        if values is None:
            continue
        is_whole = space.distributions.keys() <= values.keys()
        configuration = (space.hyperparameters_or_none(values) if is_whole else None) or str(values)
        if configuration not in known:
            found[trial.number] = values
            known.add(configuration)
        if len(found) == _N_BEST:
            break
    return WarmStart(earlier.study_name, found, left_out)
