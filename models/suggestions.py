"""What a network's function is given as its trial: it suggests, as Optuna's trials do."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, SupportsFloat, cast

from search_models.own import Value

_LONGEST_NAME = 512  # in Optuna's tables


@dataclass(frozen=True, slots=True)
class Ask:
    """What was suggested under a name: a range or choices.

    Args:
        low, high: the ends of a range; None of choices.
        step: the distance of two values of a range; None where it has all between.
        log: whether a range is drawn on a logarithmic scale.
        choices: of a categorical one.
        is_width: whether it is a proportion, which is scaled to the cap.

    Raises:
        ValueError: if a study could not keep a choice, or a range has no such ends.
    """

    kind: Literal["int", "float", "categorical"]
    low: float | None = None
    high: float | None = None
    step: float | None = None
    log: bool = False
    choices: tuple[Value, ...] = ()
    is_width: bool = False

    def __post_init__(self) -> None:
        if self.kind == "categorical":
            for choice in self.choices:
                if not _is_plain(choice):
                    raise ValueError(
                        "a choice must be None, a bool, a finite number or a text that can be "
                        f"written, as a study keeps it, but got {choice!r}; suggest a name or an "
                        "index for it"
                    )
        elif not all(_is_end(end, self.kind) for end in (self.low, self.high)):
            numbers = "whole" if self.kind == "int" else "finite"
            raise ValueError(
                f"a range must be between {numbers} numbers, but got {self.low!r} to {self.high!r}"
            )

    def __str__(self) -> str:
        if self.kind == "categorical":
            return f"one of {', '.join(map(repr, self.choices))}"
        step = "" if self.step in (None, 1) else f", step {self.step}"
        scale = ", log" if self.log else ""
        return f"{self.kind} from {self.low} to {self.high}{step}{scale}"


def _is_plain(value: object) -> bool:
    """Whether a database and JSON keep a value as it is."""
    if isinstance(value, str):
        return value.encode(errors="ignore").decode() == value
    return value is None or (isinstance(value, bool | int | float) and math.isfinite(value))


def _is_end(end: object, kind: str) -> bool:
    if not isinstance(end, SupportsFloat) or not math.isfinite(float(end)):
        return False
    return kind == "float" or float(end).is_integer()


class Suggestions:
    """A trial that may only suggest.

    Args:
        answer: the value for a name and what is suggested under it.

    Attributes:
        asks: what was suggested so far, by name.
        values: what it was answered.
        failure: why it could not be answered, where that is not the fault of who suggests.
    """

    def __init__(self, answer: Callable[[str, Ask], Value]) -> None:
        self._answer = answer
        self.asks: dict[str, Ask] = {}
        self.values: dict[str, Value] = {}
        self.failure: Exception | None = None

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        """A whole number from `low` to `high`, as Optuna's trials suggest it."""
        return cast(int, self._ask(name, Ask("int", low, high, step, log)))

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """A number from `low` to `high`, as Optuna's trials suggest it."""
        return cast(float, self._ask(name, Ask("float", low, high, step, log)))

    def suggest_categorical(self, name: str, choices: Sequence[Value]) -> Value:
        """One of the choices, as Optuna's trials suggest it."""
        return self._ask(name, Ask("categorical", choices=tuple(choices)))

    def width(self, name: str, low: int, high: int) -> int:
        """A proportion from `low` to `high`, or the width that was made of it."""
        return cast(int, self._ask(name, Ask("int", low, high, 1, True, is_width=True)))

    def _ask(self, name: str, ask: Ask) -> Value:
        if not isinstance(name, str) or not name.isprintable() or not name.strip():
            raise ValueError(f"a suggestion must have a name that can be printed, not {name!r}")
        if len(name) > _LONGEST_NAME:
            raise ValueError(
                f"a suggestion's name must have at most {_LONGEST_NAME} characters, as databases "
                f"keep no longer one, but {name[:20]!r}… has {len(name):,}"
            )
        if name in self.values:
            if self.asks[name] != ask:
                raise ValueError(
                    f"what is suggested under one name must be the same each time, but {name!r} "
                    f"was {self.asks[name]}, and now is {ask}"
                )
            return self.values[name]
        self.asks[name] = ask
        try:
            self.values[name] = self._answer(name, ask)
        except (ValueError, TypeError):  # about what was suggested: its user hears of it
            raise
        except Exception as error:
            self.failure = error
            raise
        return self.values[name]

    def __getattr__(self, name: str) -> object:
        raise AttributeError(
            f"a network's function may call suggest_int, suggest_float and suggest_categorical of "
            f"its trial, and search.width, but no {name!r}"
        )
