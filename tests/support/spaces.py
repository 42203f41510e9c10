"""Spaces under a cap."""

from __future__ import annotations

from dataclasses import replace

from search.space.space import Space


def under(cap: int, space: Space) -> Space:
    """The space under a cap; its widths stay as they are drawn, unless it scales them already."""
    if space.scales_widths:
        return replace(space, parameter_cap=cap)
    return replace(space, parameter_cap=cap, table={**space.table, "budget_share": 0})
