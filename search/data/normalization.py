"""How pixels are scaled for a network."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Normalization:
    """Mean and standard deviation of each channel, for pixels scaled to 0..1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
