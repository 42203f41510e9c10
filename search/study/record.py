"""What a search stores with each trial, on top of Optuna's own: one record, read and written here.

An attribute of a trial is named as the field of `TrialRecord` that it is; no other file knows
these names. Studies of every version are read. What is missing was not stored:

- what a trial had not come to before it ended, and `shrunk` where its network fitted as drawn;
- `study` of trials of before there was one, `owner` of them where their search died before it could
  say so, and `machine` of that in the oldest studies;
- a number of an epoch that is null was not finite, which JSON has no word for.

Epochs are stored in blocks, `epochs`, `epochs_2` and so on, of twenty each: an attribute is written
whole whenever an epoch is added to it, and one of all would be written a thousand times.

Other programs write to studies, too, and what they wrote is foreign (`is_foreign`): it is shown,
and nothing else is done with it. A record alone tells that of some; of others, as of copies from
another study, the study does, which `judge` brings in.
"""

from __future__ import annotations

import itertools
import math
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Protocol, overload

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from search.study.stored import is_count, is_measure, is_number
from search.training.epochs import EpochResult, last_epochs_mean

INTERRUPTED = "interrupted"  # the reason of a trial that failed through no fault of its own
_QUEUED = "fixed_params"  # where Optuna keeps what was queued
_NUMBER = (int, float)
_ROUNDING = 1e-9  # of a value, by which databases may differ from what they were given
_ALWAYS_STORED = ("parameter_count", "epochs")
_BLOCK = 20  # epochs in an attribute


@dataclass(frozen=True, slots=True)
class Owner:
    """The process that asked for a trial.

    Args:
        host: its name.
        machine: what tells its machine, and a container on that, from all others.
        pid: the identifier of the process there.
        started: when the process began, in seconds by a clock that nobody sets.
    """

    host: str
    machine: str | None
    pid: int
    started: float


def _stored_as(*kinds: type) -> Any:
    """A field that is stored where it is not None, as one of these kinds of JSON."""
    return field(default=None, metadata={"kinds": kinds})


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """What is stored with a trial.

    Args:
        repeats: the number of the trial that it repeats, which was interrupted or crashed.
        crashes: how many workers have died over its configuration.
        owner: the process that asked for it.
        study: the identity of the study for which it did, which stands there from the trial's
            first moment, as `owner` does.
        number: its own, by which it is told from a copy that another program made of it.
        parameter_count: trainable parameters of its network.
        redraws: how many candidates over the cap were drawn before it.
        shrunk: true where none fitted and the last one was scaled down.
        training_seed: with the hyperparameters it makes the training run again.
        from_study: study and number, as NAME/17, of the earlier trial that it is nearest to.
        worker: host and number of the worker that trained it, as HOST/0.
        seconds: for how long it trained; stored to the millisecond.
        reason: why it was pruned or failed.
        epochs: those that it trained; each is parsed when it is asked for, their number is known.
        candidate: of a run in a race over fresh seeds, the number of the trial that it repeats.
        change: of a run in an ablation, what was changed.
        recipe: of a run in an ablation, and of a network that a user's file builds, its
            hyperparameters as `Hyperparameters.to_dict` has them.
        part: of a run in either, the number of the part of the data that validated it; None of
            those of before there were parts, which is part 0.
        settings: of a run in either, the digest of its study's settings at the time.
    """

    repeats: int | None = _stored_as(int)
    crashes: int | None = _stored_as(int)
    owner: Owner | None = field(default=None, metadata={"kinds": (dict,)})
    study: str | None = _stored_as(str)
    number: int | None = _stored_as(int)
    parameter_count: int | None = _stored_as(int)
    redraws: int | None = _stored_as(int)
    shrunk: bool | None = _stored_as(bool)
    training_seed: int | None = _stored_as(int)
    from_study: str | None = _stored_as(str)
    worker: str | None = _stored_as(str)
    seconds: float | None = _stored_as(*_NUMBER)
    reason: str | None = _stored_as(str)
    epochs: Sequence[EpochResult] = field(default=(), metadata={"kinds": (list,)})
    candidate: int | None = _stored_as(int)
    change: str | None = _stored_as(str)
    recipe: Mapping[str, Any] | None = _stored_as(dict)
    part: int | None = _stored_as(int)
    settings: str | None = _stored_as(str)

    @classmethod
    def read(cls, trial: FrozenTrial) -> TrialRecord:
        """The record of a trial; an empty one where it has none, or none that a search has written.

        Raises nothing, whatever a person or another program has stored. What a search always stores
        as it trains must parse, and the values of a complete trial must be what its epochs and its
        network make them; of all else a part that does not parse is as if it were not there, since
        a person may have given an attribute of his own such a name.

        A trial that is finished, or was judged, is parsed once as long as it is in memory: what is
        written to one that is not finished puts another in its place.
        """
        known = _find_known(trial)
        if known is not None:
            return known.record
        record = cls._parse(trial)
        if trial.state.is_finished():
            _KNOWN[id(trial)] = _Known(trial, record, None)
        return record

    @classmethod
    def _parse(cls, trial: FrozenTrial) -> TrialRecord:
        found: dict[str, Any] = {
            key: value
            for key, value in trial.user_attrs.items()
            if key in _KINDS and _is_of_kind(value, _KINDS[key])
        }
        if any(key in trial.user_attrs and key not in found for key in _ALWAYS_STORED):
            return NO_RECORD
        if "epochs" in found:
            epochs = _all_blocks(found["epochs"], trial.user_attrs)
            if not all(map(_is_epoch, epochs, itertools.count(1))):
                return NO_RECORD
            found["epochs"] = _StoredEpochs(epochs)
        if "owner" in found:
            found["owner"] = read_owner(found["owner"])
        record = cls(**found) if found else NO_RECORD
        if record.number not in (None, trial.number):
            return NO_RECORD  # another program has copied it
        if trial.state == TrialState.COMPLETE and not _is_value_of(record, trial.values):
            return NO_RECORD
        return record

    def to_attributes(self) -> dict[str, Any]:
        """As the attributes of a trial have it, without what is None."""
        values = {key: getattr(self, key) for key in _KINDS}
        if self.owner is not None:
            values["owner"] = asdict(self.owner)
        if self.seconds is not None:
            values["seconds"] = round(self.seconds, 3)
        values["epochs"] = None
        for first in range(0, len(self.epochs), _BLOCK):
            values |= _block_with(self.epochs, first)
        return {key: value for key, value in values.items() if value is not None}

    def write(self, study: Study, trial_id: int) -> None:
        """Stores what is not None with a trial, beside all else that is stored with it.

        Args:
            trial_id: Optuna's identifier of it.

        Raises:
            UpdateFinishedTrialError: if the trial has ended.
            KeyError: if it was deleted.
        """
        for key, value in self.to_attributes().items():
            study._storage.set_trial_user_attr(trial_id, key, value)

    @staticmethod
    def write_last_epoch(epochs: Sequence[EpochResult], study: Study, trial_id: int) -> None:
        """Stores the last of a trial's epochs, where all before it are stored already.

        Raises:
            UpdateFinishedTrialError, KeyError: as `write` does.
        """
        last_block = (len(epochs) - 1) // _BLOCK * _BLOCK
        for key, value in _block_with(epochs, last_block).items():
            study._storage.set_trial_user_attr(trial_id, key, value)

    @property
    def accuracies(self) -> list[float]:
        """The accuracy after each epoch; no epoch is parsed for it."""
        if isinstance(self.epochs, _StoredEpochs):
            return self.epochs.accuracies()
        return [result.accuracy for result in self.epochs]

    @property
    def is_interrupted(self) -> bool:
        """Whether the trial failed through no fault of its own, and was queued again."""
        return self.reason == INTERRUPTED


_KINDS: dict[str, tuple[type, ...]] = {
    field.name: field.metadata["kinds"] for field in fields(TrialRecord)
}
NO_RECORD = TrialRecord()
FOREIGN = TrialRecord()  # in the place of the record of a trial that was judged to be foreign


class Rules(Protocol):
    """What the searches of a study can have written."""

    def allow(self, trial: FrozenTrial, record: TrialRecord) -> bool:
        """Whether a search can have written a trial, which has this record."""


class _Known:
    """What is known of a trial that is in memory, kept as long as that is.

    By which object it is: to compare trials, or to hash one, takes longer than to parse it. And by
    Optuna's own fields: a record is asked for some thirty times a trial when a search begins.

    Args:
        rules: by which it was judged; None where it was not.
    """

    __slots__ = ("_attributes", "_n_attributes", "_state", "_trial", "_values", "record", "rules")

    def __init__(self, trial: FrozenTrial, record: TrialRecord, rules: Rules | None) -> None:
        key = id(trial)
        self.record, self.rules = record, rules
        self._trial = weakref.ref(trial, lambda _gone: _KNOWN.pop(key, None))
        self._attributes, self._n_attributes = trial._user_attrs, len(trial._user_attrs)
        self._state, self._values = trial.state, trial._values

    def is_of(self, trial: FrozenTrial) -> bool:
        """Whether that is known of the trial, as far as a quick look tells."""
        return (
            self._trial() is trial
            and self._attributes is trial._user_attrs
            and self._n_attributes == len(self._attributes)
            and self._state is trial.state
            and self._values == trial._values
        )


_KNOWN: dict[int, _Known] = {}


def _find_known(trial: FrozenTrial) -> _Known | None:
    known = _KNOWN.get(id(trial))
    return known if known is not None and known.is_of(trial) else None


def judge(trial: FrozenTrial, rules: Rules) -> None:
    """Makes a trial foreign, as long as it is in memory, where a study's rules do not allow it."""
    known = _find_known(trial)
    if known is None or known.rules is not rules:
        record = TrialRecord._parse(trial)
        is_allowed = rules.allow(trial, record)
        _KNOWN[id(trial)] = _Known(trial, record if is_allowed else FOREIGN, rules)


def is_foreign(trial: FrozenTrial, record: TrialRecord | None = None) -> bool:
    """Whether another program has written a trial, of those that `judge` has seen.

    A search has written what has a record that says how its state came about. What waits may be
    queued by anybody, and a trial that a person has failed before it began is nobody else's.

    Args:
        record: that of the trial, where it is at hand: to read one takes a while.
    """
    record = TrialRecord.read(trial) if record is None else record
    if record is FOREIGN:
        return True
    match trial.state:
        case TrialState.COMPLETE | TrialState.PRUNED:
            return record.parameter_count is None
        case TrialState.FAIL | TrialState.RUNNING:
            return record is NO_RECORD and bool(trial.params)
    return False


def queued_values(trial: FrozenTrial) -> dict[str, Any] | None:
    """The hyperparameters with which a trial was queued; None for one that was not."""
    queued = trial.system_attrs.get(_QUEUED)
    return queued if isinstance(queued, dict) else None


def is_queued_wrongly(trial: FrozenTrial) -> bool:
    """Whether another program has queued a trial with something else than values by name."""
    return _QUEUED in trial.system_attrs and queued_values(trial) is None


def _block_name(number: int) -> str:
    """Of the attribute that holds the block of this number, counted from 1."""
    return "epochs" if number == 1 else f"epochs_{number}"


def _block_with(epochs: Sequence[EpochResult], first: int) -> dict[str, Any]:
    """The block that begins with the epoch of index `first`, under the name of its attribute."""
    block = epochs[first : first + _BLOCK]
    return {_block_name(first // _BLOCK + 1): [result.to_dict() for result in block]}


def _all_blocks(first: list[Any], attributes: Mapping[str, Any]) -> list[Any]:
    """The epochs of all blocks, of which the first may hold any number.

    Versions before there were blocks stored all epochs in the first.
    """
    epochs = first
    for number in itertools.count(2):
        block = attributes.get(_block_name(number))
        if not isinstance(block, list) or len(first) != _BLOCK:
            return epochs
        epochs = epochs + block
    raise AssertionError


def is_long(attribute: str) -> bool:
    """Whether a page or a table has no room for an attribute of a trial."""
    return attribute in ("owner", "study", "recipe") or attribute.startswith("epochs")


class _StoredEpochs(Sequence[EpochResult]):
    """Epochs as they are stored, each parsed when it is asked for."""

    def __init__(self, stored: Sequence[Mapping[str, Any]]) -> None:
        self._stored = stored

    def __len__(self) -> int:
        return len(self._stored)

    def accuracies(self) -> list[float]:
        return [stored["accuracy"] for stored in self._stored]

    @overload
    def __getitem__(self, index: int) -> EpochResult: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[EpochResult]: ...
    def __getitem__(self, index: int | slice) -> EpochResult | Sequence[EpochResult]:
        if isinstance(index, slice):
            return _StoredEpochs(self._stored[index])
        return _read_epoch(self._stored[index])


_EPOCH_KEYS = tuple(field.name for field in fields(EpochResult))


def _read_epoch(stored: Mapping[str, Any]) -> EpochResult:
    values: dict[str, Any] = {
        key: math.nan if stored[key] is None else stored[key] for key in _EPOCH_KEYS
    }
    return EpochResult(**values)


def _is_epoch(stored: Any, number: int) -> bool:
    """Whether that is what a search stores of its epoch of this number, counted from 1."""
    if type(stored) is not dict or stored.get("epoch") != number:
        return False
    for key in _EPOCH_KEYS:
        value = stored.get(key, "")
        if type(value) is float or (value is None and key not in _FINITE):
            continue
        if not is_number(value):
            return False
    return bool(0 <= stored["accuracy"] <= 1 and is_measure(stored["seconds"]))


_FINITE = ("epoch", "accuracy", "seconds")


def _is_of_kind(value: Any, kinds: tuple[type, ...]) -> bool:
    """Whether a value of JSON can be what a search stores: its numbers are counts or seconds."""
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        return False
    return not isinstance(value, _NUMBER) or isinstance(value, bool) or is_measure(value)


def _is_value_of(record: TrialRecord, values: Sequence[float] | None) -> bool:
    """Whether a complete trial that a search has written with this record has these values."""
    if not values or not record.epochs or record.parameter_count is None:
        return False
    value, *sizes = values
    is_mean = math.isclose(value, last_epochs_mean(record.epochs), rel_tol=0, abs_tol=_ROUNDING)
    return is_mean and all(size == record.parameter_count for size in sizes)


def read_owner(stored: Any) -> Owner | None:
    """The process that JSON tells of; None where it tells of none."""
    match stored:
        case {"host": str(host), "pid": pid, "started": started} if is_count(pid, 1) and is_number(
            started
        ):
            machine = stored.get("machine")
            return Owner(host, machine if isinstance(machine, str) else None, pid, started)
    return None
