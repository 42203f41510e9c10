"""A search's events as JSON, one object a line, for programs: `docs/events.md` describes them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from search.cli.output import echo_json
from search.results.confirm import RepeatEnded
from search.results.confirmation import Confirmation
from search.study.summary import chosen_trial, parameter_count_of
from search.study.trials import trials_of
from search.tuner.events import Outcome
from search.tuner.session import Search

Emit = Callable[[Mapping[str, Any]], None]


def make_emit(*, as_json: bool) -> Emit:
    """What prints an event, or with `as_json` false drops it."""
    if not as_json:
        return lambda event: None

    def emit(event: Mapping[str, Any]) -> None:
        finite = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in event.items()
        }
        echo_json(finite)  # which flushes: a reader hears of it when it happens

    return emit


def search_begins(search: Search) -> dict[str, Any]:
    request = search.plan.request
    return {
        "event": "search",
        "study": search.plan.study_name,
        "dataset": search.plan.dataset.info.name,
        "metric": request.metric,
        "budget": request.budget,
        "epochs": request.epochs,
        "trials": search.plan.length.n_trials,
        "patience": search.plan.length.patience,
        "trained": search.before.n_trained,
        "workers": search.n_workers,
    }


def search_ends(search: Search, outcome: Outcome) -> dict[str, Any]:
    study = search.study
    best = chosen_trial(study, trials_of(study))
    return {
        "event": "search_end",
        "outcome": outcome.name.lower(),
        "trial": None if best is None else best.number,
        "value": None if best is None else best.values[0],
        "parameter_count": None if best is None else parameter_count_of(best),
    }


def run_of_race(event: RepeatEnded) -> dict[str, Any]:
    return {
        "event": "confirmation_run",
        "trial": event.trial,
        "part": event.part,
        "seed": event.seed,
        "value": event.value,
        "reason": event.reason,
    }


def race_ends(confirmation: Confirmation) -> dict[str, Any]:
    winner = confirmation.winner
    return {
        "event": "confirmation_end",
        "trial": winner.candidate,
        "mean": winner.mean,
        "low": winner.low,
        "high": winner.high,
        "luck_of_winning": confirmation.luck_of_winning,
        "seeds": len(winner.values),
        "parts": winner.n_parts,
        "conclusive": confirmation.is_conclusive,
    }
