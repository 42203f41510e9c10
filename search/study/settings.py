"""What belongs to a study and never changes: its cap, epochs, data, space and objective."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import textwrap
import uuid
from collections.abc import Callable, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Protocol, get_args

from optuna.study import Study, StudyDirection

from search.data.names import SPLITS, TENSORS, ImageSize, Split, size_option
from search.exceptions import StudyDeletedError, StudyError
from search.space.file_space import FileSpace
from search.space.network_files import difference
from search.space.space import Space
from search.space.toml import toml_value
from search.study.stored import is_count
from search.training.metrics import Metric
from search_models.own import NetworkSource

if TYPE_CHECKING:  # it imports torch, which reading a study does not need
    from search.data.dataset import DatasetInfo

_DIRECTIONS = {"accuracy": StudyDirection.MAXIMIZE, "size": StudyDirection.MINIMIZE}
_N_DIFFERENCES, _LONGEST_VALUE = 4, 60  # of a space that is refused; characters
OBJECTIVES = ("accuracy", "accuracy,size")
_SETTINGS = "settings"  # attribute of a study
_IDENTITY = "identity"  # another, which stays where a study is renamed or copied
_IS_IDENTITY = re.compile("[0-9a-f]{32}")
_MARKED_FROM = "marked_from"  # another: the first trial of which a search says whose it is


@dataclass(frozen=True, slots=True)
class StudySettings:
    """What belongs to a study and never changes: runs that differ in it are other studies.

    Args:
        metric: which accuracy is meant wherever the study speaks of accuracy.
        split: how many images train, validate and test, where the data set's name does not tell.
        network: the name and the text of the user's file that builds the networks, with its
            fingerprint; None where the space says what networks are. It is shown, and never run.
    """

    budget: int
    epochs: int
    dataset: str
    data_fingerprint: str
    split_fingerprint: str
    input_shape: tuple[int, int, int]
    n_classes: int
    space_name: str
    space: dict[str, Any]
    objective: str = "accuracy"
    metric: Metric = "accuracy"
    split: tuple[int, int, int] | None = None
    network: dict[str, str] | None = None

    @classmethod
    def of(
        cls,
        *,
        budget: int,
        epochs: int,
        info: DatasetInfo,
        space: Space,
        objective: str,
        metric: Metric,
    ) -> StudySettings:
        is_known = info.name in SPLITS
        return cls(
            budget=budget,
            epochs=epochs,
            dataset=info.name,
            data_fingerprint=info.fingerprint,
            split_fingerprint=info.split_fingerprint,
            input_shape=info.input_shape,
            n_classes=info.n_classes,
            space_name=space.name,
            space=dict(space.table),
            objective=objective,
            metric=metric,
            split=None if is_known else (info.n_training, info.n_validation, info.n_test),
            network=stored_network(space.source) if isinstance(space, FileSpace) else None,
        )

    @classmethod
    def from_study(cls, study: Study) -> StudySettings:
        """What was stored when the study was made.

        Raises:
            StudyError: if the study was made by something else, or its settings were changed.
            StudyDeletedError: if it is there no more.
        """
        values = stored_settings(study)
        if values is None:
            _check_is_there(study)
            raise StudyError(
                f"A study must have been made by 'search run', but {study.study_name!r} holds no "
                "settings of it; name another with --study."
            )
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise StudyError(
                f"A study must have been made by this version or an earlier one, but "
                f"{study.study_name!r} holds settings of a later one ({', '.join(unknown)}); "
                "install that version, or name another study with --study."
            )
        wrong = [key for key, value in values.items() if not _RULES[key](value)]
        if wrong:
            raise StudyError(
                f"A study's settings must be those that 'search run' stored, but of "
                f"{study.study_name!r} were changed: {', '.join(wrong)}; restore the "
                "database from a backup, or name another study with --study."
            )
        # JSON knows no tuples.
        shapes = {key: tuple(values[key]) for key in ("input_shape", "split") if values.get(key)}
        return cls(**{**values, **shapes})

    @property
    def digest(self) -> str:
        """Tells these settings from all others."""
        values = asdict(self)
        # Studies of before these were stored have the same digest.
        for key in ("metric", "split", "network"):
            if values[key] == type(self).__dataclass_fields__[key].default:
                del values[key]
        text = json.dumps(values, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def known_split(self) -> Split | None:
        """How many images train, validate and test; None where that was not stored."""
        return SPLITS.get(self.dataset) if self.split is None else Split(*self.split)

    @property
    def is_of_tensors(self) -> bool:
        """Whether a program gave the images: commands cannot have them."""
        return self.dataset.startswith(TENSORS)

    @property
    def image_size(self) -> ImageSize:
        """The height and width of an image, in pixels."""
        return self.input_shape[1:]

    @property
    def directions(self) -> list[StudyDirection]:
        """Optuna's, one for each objective: accuracy up, size down."""
        return [_DIRECTIONS[name] for name in self.objective.split(",")]

    @property
    def network_source(self) -> NetworkSource | None:
        """The user's file that builds the networks, as the study keeps it; None without one."""
        kept = self.network
        return (
            None if kept is None else NetworkSource(kept["file"], kept["fingerprint"], kept["text"])
        )

    def search_space(self) -> Space:
        values = self.space_name, self.space, self.input_shape, self.n_classes, self.budget
        source = self.network_source
        return Space(*values) if source is None else FileSpace(*values, source=source)


def stored_network(source: NetworkSource) -> dict[str, str]:
    """A user's file as a study keeps it."""
    return {"file": source.name, "text": source.text, "fingerprint": source.fingerprint}


def _is_network(value: Any) -> bool:
    match value:
        case None:
            return True
        case {"file": str(), "text": str(text), "fingerprint": str(fingerprint), **more}:
            digest = hashlib.sha256(text.encode(errors="replace")).hexdigest()
            return not more and digest == fingerprint
    return False


def _check_is_there(study: Study) -> None:
    """Raises StudyDeletedError where a study was deleted: then it has no attributes either."""
    try:
        study._storage.get_study_system_attrs(study._study_id)  # which no cache has
    except KeyError as error:
        raise StudyDeletedError(
            f"A study must stay while it is used, but {study.study_name!r} was deleted meanwhile; "
            "'search studies' lists those that are there."
        ) from error


def _is_positive(value: Any) -> bool:
    return is_count(value, 1)


def _are_counts(value: Any, least: int = 1) -> bool:
    is_list = isinstance(value, list | tuple) and len(value) == 3
    return is_list and all(is_count(each, least) for each in value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


# What each setting may be, as JSON has it: a person may have changed it.
_RULES: dict[str, Callable[[Any], bool]] = {
    "budget": _is_positive,
    "epochs": _is_positive,
    "dataset": _is_text,
    "data_fingerprint": _is_text,
    "split_fingerprint": _is_text,
    "input_shape": _are_counts,
    "n_classes": _is_positive,
    "space_name": _is_text,
    "space": lambda value: isinstance(value, dict),
    "objective": lambda value: value in OBJECTIVES,
    "metric": lambda value: value in get_args(Metric),
    "split": lambda value: value is None or _are_counts(value, 0),
    "network": _is_network,
}
_NEEDED = tuple(f.name for f in fields(StudySettings) if f.default is MISSING)


class HasAttributes(Protocol):
    """A study, open or as a storage lists it."""

    @property
    def user_attrs(self) -> dict[str, Any]: ...


def stored_settings(study: HasAttributes) -> dict[str, Any] | None:
    """A study's settings as they are stored, by whichever version; None where no search made it."""
    stored = study.user_attrs.get(_SETTINGS)
    return stored if isinstance(stored, dict) and set(_NEEDED) <= set(stored) else None


def store_settings(study: Study, settings: StudySettings) -> None:
    study.set_user_attr(_SETTINGS, asdict(settings))
    give_identity(study)
    mark_trials_from(study, 0)


def identity_of(study: HasAttributes) -> str | None:
    """What tells a study from all others, whatever its name; None of one that has none yet."""
    identity = study.user_attrs.get(_IDENTITY)  # it becomes part of names of files
    return identity if isinstance(identity, str) and _IS_IDENTITY.fullmatch(identity) else None


def give_identity(study: Study) -> str:
    """The identity of a study, made where it has none: earlier versions gave them none."""
    identity = identity_of(study)
    if identity is None:
        identity = uuid.uuid4().hex
        study.set_user_attr(_IDENTITY, identity)
    return identity


def marked_from(study: HasAttributes) -> int | None:
    """The number from which on a trial of a search says from its first moment whose it is.

    None where an earlier version made the study, and no search of this one has begun there yet.
    """
    number = study.user_attrs.get(_MARKED_FROM)
    return number if is_count(number) else None


def mark_trials_from(study: Study, number: int) -> None:
    """Has searches of a study say of each trial from that number on whose it is."""
    study.set_user_attr(_MARKED_FROM, number)


# A built-in space may have changed since an earlier version, and then its name is not enough.
_SPACE_HINT = " What differs in the space can stand in a file for --space."


def check_same(name: str, stored: StudySettings, wanted: StudySettings) -> None:
    """Raises StudyError where they differ, naming in what."""
    if (stored.network is None) != (wanted.network is None):  # nor are there spaces to compare
        raise _differs(name, _network_differences(stored.network_source, wanted.network_source))
    # A space is what it holds, not the file it came from; an earlier version's says less of it.
    before_space, space = dict(stored.search_space().table), dict(wanted.search_space().table)
    in_this_space = replace(stored, space_name=wanted.space_name, space=space)
    in_this_space = replace(in_this_space, network=_same_network(stored, wanted))
    if before_space == space and in_this_space == replace(wanted, space=space):
        return
    differences = _network_differences(stored.network_source, wanted.network_source)
    for key in ("budget", "epochs", "dataset", "objective", "metric"):
        before, now = getattr(stored, key), getattr(wanted, key)
        if before != now:
            differences.append(f"{key} {before} there and {now} here")
    if stored.dataset == wanted.dataset:
        if stored.image_size != wanted.image_size:
            there, here = (size_option(each.image_size) for each in (stored, wanted))
            differences.append(f"image size {there} there and {here} here")
        elif stored.data_fingerprint != wanted.data_fingerprint:
            differences.append("the images or labels of the data set")
        elif stored.split_fingerprint != wanted.split_fingerprint:
            differences.append("the split into training and validation images")
    differences += _space_differences(stored.search_space(), wanted.search_space())
    raise _differs(name, differences, hint=_SPACE_HINT if before_space != space else "")


def _differs(name: str, differences: Sequence[str], *, hint: str = "") -> StudyError:
    return StudyError(
        f"A run must agree with its study, but {name!r} differs in: {'; '.join(differences)}. "
        f"Give what the study was made with, or name another study with --study.{hint}"
    )


def _same_network(stored: StudySettings, wanted: StudySettings) -> dict[str, str] | None:
    """The file that is wanted, where the stored one has its text: it may have another name."""
    before, now = stored.network_source, wanted.network_source
    is_same = before is not None and now is not None and before.fingerprint == now.fingerprint
    return wanted.network if is_same else stored.network


def _network_differences(before: NetworkSource | None, now: NetworkSource | None) -> list[str]:
    """Whether the networks are of other files, and in which lines those differ."""
    fingerprints = [None if each is None else each.fingerprint for each in (before, now)]
    if fingerprints[0] == fingerprints[1]:
        return []
    there, here = (
        "none" if each is None else f"{each.name} ({each.fingerprint[:12]})"
        for each in (before, now)
    )
    told = "" if before is None or now is None else difference(before.text, now.text)
    return [f"--network {there} there and {here} here{told}"]


def _space_differences(before: Space, now: Space) -> list[str]:
    """In what two spaces differ, the first few of it, as a space file writes it."""
    if before.is_built_in and now.is_built_in and before.name != now.name:
        return [f"space {before.name} there and {now.name} here"]
    pairs = {
        key: (before.table.get(key), now.table.get(key))
        for key in sorted({*before.table, *now.table})
        if before.table.get(key) != now.table.get(key)
    }
    shown = [
        f"{key} of the space: {_value_text(there, here)} there and {_value_text(here, there)} here"
        for key, (there, here) in itertools.islice(pairs.items(), _N_DIFFERENCES)
    ]
    n_more = len(pairs) - len(shown)
    return [*shown, f"{n_more} more of the space"] if n_more else shown


def _value_text(value: Any, other: Any) -> str:
    """A value of a space; of two ranges, what the other has not."""
    if value is None:
        return "nothing"
    if isinstance(value, dict) and isinstance(other, dict):
        own = [f"{key} {each}" for key, each in value.items() if other.get(key) != each]
        return ", ".join(own) or "nothing"
    return textwrap.shorten(toml_value(value), _LONGEST_VALUE, placeholder=" …")
