"""`search` alone: where the study that was used last stands, and what to do next."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import typer

from search.cli.confirm import luck_of_winning
from search.cli.output import echo, next_lines, shown_command
from search.cli.wrapping import width_of
from search.folders import DATABASE_URL
from search.wording import counted, percent, seen_words

if TYPE_CHECKING:
    from search.study.next_steps import NextStep
    from search.study.summary import StudySummary


def print_overview() -> None:
    """Prints it for the storage that commands take where none is named.

    Raises:
        StorageError: if a database is there and cannot be opened.
    """
    from search.storage.checks import has_studies
    from search.study.next_steps import first_steps

    storage = os.environ.get("SEARCH_STORAGE") or DATABASE_URL  # empty is none, as to options
    lines, steps = _of_last_study(storage) if has_studies(storage) else ([], [])
    if not steps:
        lines = ["Nothing has been searched in this folder yet."]
        steps = first_steps()
    for line in lines:
        echo(line)
    for line in next_lines(steps, width_of(sys.stdout), storage=storage):
        typer.echo(line)
    typer.echo(f"\nAll commands: {shown_command(['--help'])}")


def _of_last_study(storage: str) -> tuple[list[str], list[NextStep]]:
    import optuna

    from search.exceptions import StudyError
    from search.results.confirmed import confirmation_of
    from search.storage.open import opened_storage
    from search.study.next_steps import NextStep, next_steps
    from search.study.open import select_study
    from search.study.summary import how_to_complete, is_all_diverged, summarize_study
    from search.study.trials import trials_of

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with opened_storage(storage) as opened:
        try:
            study = select_study(opened, None)
        except StudyError:  # a database of somebody else's studies
            return [], []
        trials = trials_of(study)
        summary = summarize_study(study, trials, confirmation_of(study))
        steps = next_steps(study, trials)
        standing = _standing(summary)
        if is_all_diverged(trials):
            standing.append(f"What helps: {how_to_complete(study, trials)}.")
        if steps.searched_by is not None:
            running = f"It is being searched now, by {steps.searched_by}."
            watched = [NextStep(("dashboard",), "look at all trials in a browser")]
            return [*standing, running], watched
        if steps.go_on is not None:
            return standing, [steps.go_on]
        # The line above has told of the best trial.
        shown = [step for step in steps.with_result if step.command != "show"]
        return standing, [*shown, *filter(None, [steps.search_on])]


def _standing(summary: StudySummary) -> list[str]:
    trained = counted(summary.trials["n_trained"], "trained trial")
    if summary.best_value is None:
        return [f"Study {summary.name}: {trained}, none of them complete."]
    line = f"Study {summary.name}: {trained}; best {percent(summary.best_value)}"
    if summary.best_parameter_count is not None:
        line += f" with {summary.best_parameter_count:,} parameters"
    line += f" (trial {summary.best_trial})"
    if summary.confirmed_mean is not None:
        luck = luck_of_winning(summary.confirmed_luck)
        line += f", {percent(summary.confirmed_mean)} over fresh seeds{luck}"
    n_looks = summary.test_looks
    seen = [f"The test set was seen {seen_words(n_looks)}."] if n_looks else []
    return [f"{line}.", *seen]
