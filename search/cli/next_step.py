"""`search` alone: where the study that was used last stands, and the next useful command."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import typer

from search.cli.output import echo, next_lines, shown_command
from search.cli.wrapping import width_of
from search.folders import DATABASE_URL
from search.wording import counted, percent

if TYPE_CHECKING:
    from optuna.study import Study

    from search.study.summary import StudySummary

Step = tuple[list[str], str]  # a command's words, and what it is for


def print_next_step() -> None:
    """Prints it for the storage that commands take where none is named.

    Raises:
        StorageError: if a database is there and cannot be opened.
    """
    from search.storage.open import has_studies

    storage = os.environ.get("SEARCH_STORAGE", DATABASE_URL)
    lines, steps = _of_last_study(storage) if has_studies(storage) else ([], [])
    if not steps:
        lines = ["Nothing has been searched in this folder yet."]
        steps = [(["run", "--budget", "8000", "--epochs", "15"], "search the best network")]
        steps += [(["baseline"], "hand-tuned systems and networks found before")]
    for line in lines:
        echo(line)
    commands = ((shown_command(words), what) for words, what in steps)
    for line in next_lines(commands, width_of(sys.stdout)):
        typer.echo(line)
    typer.echo(f"\nAll commands: {shown_command(['--help'])}")


def _of_last_study(storage: str) -> tuple[list[str], list[Step]]:
    import optuna

    from search.exceptions import StudyError
    from search.storage.open import opened_storage
    from search.study.open import select_study
    from search.study.summary import summarize_study

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with opened_storage(storage) as opened:
        try:
            study = select_study(opened, None)
        except StudyError:  # a database of somebody else's studies
            return [], []
        trials = study.get_trials(deepcopy=False)
        summary = summarize_study(study.study_name, study.user_attrs, trials)
        return _standing(summary), _steps(study, summary)


def _standing(summary: StudySummary) -> list[str]:
    trained = counted(summary.trials["n_trained"], "trained trial")
    if summary.best_value is None:
        return [f"Study {summary.name}: {trained}, none of them complete."]
    line = f"Study {summary.name}: {trained}; best {percent(summary.best_value)}"
    if summary.best_parameter_count is not None:
        line += f" with {summary.best_parameter_count:,} parameters"
    line += f" (trial {summary.best_trial})"
    if summary.confirmed_mean is not None:
        line += f", {percent(summary.confirmed_mean)} over fresh seeds"
    looks = summary.test_looks
    seen = [f"The test set was seen {'once' if looks == 1 else f'{looks} times'}."] if looks else []
    return [f"{line}.", *seen]


def _steps(study: Study, summary: StudySummary) -> list[Step]:
    from search.study.history import run_records, search_words
    from search.study.settings import StudySettings

    settings = StudySettings.from_study(study)
    records = run_records(study)
    n_wanted = int(records[-1]["n_trials"]) if records else 0
    n_trained = summary.trials["n_trained"]
    own = ["--study", summary.name]
    steps: list[Step] = []
    if n_trained < n_wanted or summary.best_value is None:
        go_on = search_words(summary.name, settings, n_trials=max(n_wanted, n_trained + 1))
        if go_on is not None:
            return [(go_on, "go on with the search")]
    by_accuracy = len(study.directions) == 1
    has_images = not settings.is_of_tensors
    if has_images and summary.confirmed_mean is None and by_accuracy:
        steps.append((["confirm", *own], "race the best trials over fresh seeds"))
    if has_images and not summary.test_looks:
        steps.append((["retrain", *own], "train it on all data, test it, keep its weights"))
    if not by_accuracy:
        steps.append((["best", "--front", *own], "the most accurate network of each size"))
    steps.append((["report", *own], "its story on one page"))
    steps.append((["dashboard"], "look at all trials in a browser"))
    more = search_words(summary.name, settings, n_trials=2 * n_wanted)
    return steps if more is None else [*steps, (more, "search on")]
