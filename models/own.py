"""A network that a user's own file builds, as a value: `OwnSpec`.

The value says which file builds it, by the fingerprint of its text, and with what. To build it
takes the file, and only one that the user has named in this process will do (`name_file`): nothing
that a study, a card or a database holds is ever run.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search_models.layers import SpecError

if TYPE_CHECKING:
    from torch import nn

    from search_models.network_file import NetworkFile
    from search_models.size import LayerRow

Value = None | bool | int | float | str
_IS_FINGERPRINT = re.compile("[0-9a-f]{64}")
_MOST_VALUES = 1000
_FILES: dict[str, NetworkFile] = {}  # by fingerprint: those that this process was told to run


class OwnNetworkError(SpecError):
    """A network that a user's file does not build, or builds otherwise than it must."""


class FileNotNamedError(SpecError):
    """A network whose file was not named to this process."""


@dataclass(frozen=True, slots=True)
class NetworkSource:
    """A file that builds networks: one that a user has named, or that of a study or a card.

    Args:
        path: as it was named, which tracebacks say; or what it is called, as far as is known.
        fingerprint: the SHA-256 of the text, in hexadecimal.
        text: empty where it is not known, as a card does not say it.
    """

    path: str
    fingerprint: str
    text: str = ""

    @classmethod
    def of_text(cls, path: str, text: str) -> NetworkSource:
        """The file with that text."""
        return cls(path, hashlib.sha256(text.encode()).hexdigest(), text)

    @property
    def name(self) -> str:
        """The file's name, without its folder."""
        return Path(self.path).name


def name_file(file: NetworkFile) -> None:
    """Lets this process build the networks of a file that its user has named."""
    _FILES[file.source.fingerprint] = file


def named_file(fingerprint: str) -> NetworkFile | None:
    """The file with this fingerprint; None where the user has named none."""
    return _FILES.get(fingerprint)


def named_sources() -> list[NetworkSource]:
    """All files that this process was told to run."""
    return [file.source for file in _FILES.values()]


@dataclass(frozen=True, slots=True)
class OwnSpec:
    """A network of a user's file.

    Args:
        file: the file's name, for people.
        fingerprint: the SHA-256 of its text, in hexadecimal.
        values: what its function was given for each name that it suggested, by name, in one order.
        parameter_count: the trainable parameters, each counted once.

    Raises:
        SpecError: for what no file can have built.
    """

    file: str = field(compare=False)
    fingerprint: str
    values: tuple[tuple[str, Value], ...]
    parameter_count: int
    input_shape: tuple[int, int, int] = (1, 28, 28)
    n_classes: int = 10

    def __post_init__(self) -> None:
        sizes = (*self.input_shape, self.n_classes, self.parameter_count)
        if len(sizes) != 5 or not all(type(size) is int and size >= 1 for size in sizes):
            raise SpecError(
                "input_shape, n_classes and parameter_count must be positive whole numbers, but "
                f"got {sizes!r}."
            )
        if not isinstance(self.file, str) or not _is_fingerprint(self.fingerprint):
            raise SpecError(
                "A network of a file must have its name and its fingerprint, but got "
                f"{self.file!r}, {self.fingerprint!r}."
            )
        object.__setattr__(self, "values", tuple(sorted(self.values)))

    def __str__(self) -> str:
        values = ", ".join(f"{name} {value_text(value)}" for name, value in self.values)
        return f"{self.file} with {values}" if values else self.file

    @property
    def source(self) -> NetworkSource:
        """The file that builds it; its text is not known here."""
        return NetworkSource(self.file, self.fingerprint)

    def build(self) -> nn.Module:
        """The module, with the weights that the file's function gives it.

        Raises:
            FileNotNamedError: if the user has not named the file in this process.
            OwnNetworkError: if the function raises, or builds another network than it did.
        """
        return self._file().build(self)

    def check_trains(self) -> None:
        """Builds it, and has it learn from a few images of noise.

        Raises:
            FileNotNamedError, OwnNetworkError: as `build` does, or if it cannot learn.
        """
        self._file().check_trains(self)

    def layer_table(self) -> tuple[LayerRow, ...]:
        """One row a module that has parameters or is a leaf; none where the file was not named.

        Raises:
            OwnNetworkError: as `build` does.
        """
        file = named_file(self.fingerprint)
        return () if file is None else file.layer_table(self)

    def traits(self) -> Mapping[str, Any]:
        """What its function was given, by name."""
        return dict(self.values)

    def to_dict(self) -> dict[str, Any]:
        """As values that JSON knows; `from_dict` gives the same network back."""
        return {
            "network": str(self),
            "file": self.file,
            "function": "network",
            "fingerprint": self.fingerprint,
            "values": dict(self.values),
            "parameter_count": self.parameter_count,
            "input_shape": list(self.input_shape),
            "n_classes": self.n_classes,
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> OwnSpec:
        """The network that `to_dict` wrote.

        Raises:
            SpecError: for what no file can have built.
            KeyError, TypeError: if something is missing or of another kind.
        """
        values = stored["values"]
        if not isinstance(values, dict) or len(values) > _MOST_VALUES:
            raise SpecError("The values of a network must be values by name.")
        for name, value in values.items():
            if not isinstance(value, Value):
                raise SpecError(f"{name} must be a number, a text or nothing, but got {value!r}.")
        return cls(
            file=stored["file"],
            fingerprint=stored["fingerprint"],
            values=tuple(values.items()),
            parameter_count=stored["parameter_count"],
            input_shape=tuple(stored["input_shape"]),
            n_classes=stored["n_classes"],
        )

    def _file(self) -> NetworkFile:
        file = named_file(self.fingerprint)
        if file is None:
            raise FileNotNamedError(
                f"A network of a file must be built by that file, but {self.file} "
                f"({self.fingerprint[:12]}) was not named; name it."
            )
        return file


def _is_fingerprint(value: object) -> bool:
    return isinstance(value, str) and _IS_FINGERPRINT.fullmatch(value) is not None


def value_text(value: Value) -> str:
    """A value as people read it."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
