"""The outcome of a race as its study keeps it, with what follows from its runs judged anew."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna.study import Study

from search.study.findings import Findings


def confirmation_of(study: Study) -> Mapping[str, Any] | None:
    """What a study's race told, as `Confirmation.to_attribute` has it; None without one.

    The runs alone are believed: earlier versions made less of them, and another program may have
    changed what was made.
    """
    stored = Findings.read(study).confirmation
    if stored is None:
        return None
    from search.results.race import stored_race  # it imports SciPy, which takes a while

    race = stored_race(stored)
    standings = {standing.candidate: standing for standing in race.standings()}
    winner, best = standings[stored["trial"]], standings.get(stored["search_best_trial"])
    searched = {row["trial"]: row["search_value"] for row in stored["candidates"]}
    return {
        **stored,
        "mean": winner.mean,
        "low": winner.low,
        "high": winner.high,
        "n_seeds": len(winner.values),
        "n_parts": winner.n_parts,
        "search_value": searched[winner.candidate],
        "luck": None if best is None else searched[best.candidate] - best.mean,
        "luck_of_winning": race.luck_of_winning(),
    }
