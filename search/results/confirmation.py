"""What a race of a search's best trials told."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from search.results.race import Standing


@dataclass(frozen=True, slots=True)
class Confirmation:
    """What the race told.

    Args:
        standings: the winner first.
        search_values: what each candidate reached in the search, by its number.
        search_best: the search's own best trial.
        n_racing: how many candidates are still in the race, run or not.
        luck_of_winning: what may be too much of the winner's mean; None where nothing tells.
        n_images: that of `SeedRace`.
    """

    standings: tuple[Standing, ...]
    search_values: dict[int, float]
    search_best: int
    n_racing: int
    luck_of_winning: float | None
    n_images: int | None

    @property
    def winner(self) -> Standing:
        return self.standings[0]

    @property
    def is_conclusive(self) -> bool:
        """Whether the winner was run twice or more, since once tells nothing, and the others once.

        One that was out after a run is in again where later runs scatter more, and time is over.
        """
        n_run = sum(not standing.is_out for standing in self.standings)
        return n_run == self.n_racing and len(self.winner.values) > 1

    @property
    def luck(self) -> float | None:
        """By how much the search's best value was above its trial's mean over fresh seeds.

        A share from 0 to 1, as accuracies are. None where that trial was not run again.
        """
        for standing in self.standings:
            if standing.candidate == self.search_best:
                return self.search_values[self.search_best] - standing.mean
        return None

    def to_attribute(self) -> dict[str, object]:
        """As it is kept with the study."""
        winner = self.winner
        return {
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "trial": winner.candidate,
            "mean": winner.mean,
            "low": winner.low,
            "high": winner.high,
            "n_seeds": len(winner.values),
            "n_parts": winner.n_parts,
            "n_images": self.n_images,
            "search_value": self.search_values[winner.candidate],
            "search_best_trial": self.search_best,
            "luck": self.luck,
            "luck_of_winning": self.luck_of_winning,
            "candidates": [
                {
                    "trial": standing.candidate,
                    "search_value": self.search_values[standing.candidate],
                    "values": standing.values,
                    "parts": [run.part for run in standing.runs],
                    "seeds": [run.seed for run in standing.runs],
                    "is_out": standing.is_out,
                }
                for standing in self.standings
            ],
        }
