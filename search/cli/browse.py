"""`search studies`, `best`, `show`, `delete`, `backup` and `space`: what is stored."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from search.cli.completion import complete_spaces, complete_studies
from search.cli.confirm import describe_mean
from search.cli.options import (
    Artifacts,
    AsJson,
    Storage,
    StudyName,
    not_negative,
)
from search.cli.output import echo, make_console
from search.folders import DATABASE_URL
from search.wording import duration, percent, thousands

if TYPE_CHECKING:
    from collections.abc import Sequence

    from optuna.study import Study
    from optuna.trial import FrozenTrial
    from rich.console import Console
    from rich.table import Table

    from search.study.summary import TrialSummary
    from search_models.spec import ModelSpec


def studies(storage: Storage = DATABASE_URL, as_json: AsJson = False) -> None:
    """List the studies.

    Example: search studies --json
    """
    from rich.table import Table

    from search.storage.open import opened_storage
    from search.study.open import open_study, study_names
    from search.study.summary import summarize_study

    with opened_storage(storage) as opened:
        found = [open_study(opened, name) for name in study_names(opened)]
        summaries = [
            summarize_study(study.study_name, study.user_attrs, study.get_trials(deepcopy=False))
            for study in found
            if "settings" in study.user_attrs
        ]
    if as_json:
        typer.echo(json.dumps([asdict(summary) for summary in summaries], indent=2))
        return
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("study", overflow="fold")
    headings = (
        *("trained", "pruned", "failed"),
        *("best", "confirmed", "parameters", "test set seen"),
    )
    for heading in headings:
        table.add_column(heading, justify="right")
    for summary in summaries:
        table.add_row(
            summary.name,
            str(summary.trials["n_trained"]),
            str(summary.trials["n_pruned"]),
            str(summary.trials["n_failed"]),
            percent(summary.best_value),
            percent(summary.confirmed_mean),
            thousands(summary.best_parameter_count),
            str(summary.test_looks),
        )
    make_console().print(table)


def best(
    study: StudyName = None,
    front: Annotated[
        bool, typer.Option("--front", help="List the most accurate trial of each size instead.")
    ] = False,
    storage: Storage = DATABASE_URL,
    as_json: AsJson = False,
) -> None:
    """Show the best trial: value, size and hyperparameters. If a winner was confirmed, it is that.

    Example: search best --study mnist-8000x15
    """
    if front:
        _show_front(study, storage, as_json)
    else:
        _show(study, None, storage, as_json, with_tables=False)


def _show_front(study_name: str | None, storage: str, as_json: bool) -> None:
    from search.storage.open import opened_storage
    from search.study.open import select_study
    from search.study.summary import front, summarize_trial

    with opened_storage(storage) as opened:
        study = select_study(opened, study_name)
        trials = front(study.get_trials(deepcopy=False))
    if as_json:
        rows = [
            {
                "study": study.study_name,
                **asdict(summarize_trial(trial)),
                "network": _network(study, trial),
            }
            for trial in trials
        ]
        typer.echo(json.dumps(rows, indent=2))
        return
    console = make_console()
    console.print(f"Of {study.study_name}, no network is better than these and no larger:\n")
    console.print(front_table(study, trials))


def front_table(study: Study, trials: Sequence[FrozenTrial]) -> Table:
    """The Pareto front of accuracy against parameters, the trials of which are given."""
    from rich.table import Table

    from search.study.summary import summarize_trial

    table = Table(box=None, padding=(0, 3, 0, 0), header_style="bold")
    for heading in ("parameters", _metric(study), "trial"):
        table.add_column(heading, justify="right")
    table.add_column("network", overflow="fold")
    for trial in trials:
        summary = summarize_trial(trial)
        table.add_row(
            thousands(summary.parameter_count),
            percent(summary.value),
            str(summary.trial),
            _network(study, trial) or "",
        )
    return table


def _network(study: Study, trial: FrozenTrial) -> str | None:
    spec = _spec(study, trial)
    return None if spec is None else str(spec)


def show(
    number: Annotated[
        int, typer.Argument(parser=not_negative, metavar="N", help="Number of the trial.")
    ],
    study: StudyName = None,
    storage: Storage = DATABASE_URL,
    as_json: AsJson = False,
) -> None:
    """Show one trial: its layers and its epochs.

    Example: search show 17
    """
    _show(study, number, storage, as_json, with_tables=True)


def _show(
    study_name: str | None, number: int | None, storage: str, as_json: bool, *, with_tables: bool
) -> None:

    from search.storage.open import opened_storage
    from search.study.open import open_trial, select_study
    from search.study.summary import CONFIRMATION, summarize_trial

    with opened_storage(storage) as opened:
        study = select_study(opened, study_name)
        trial = open_trial(study, number)
    summary = summarize_trial(trial)
    spec = _spec(study, trial)
    confirmation = study.user_attrs.get(CONFIRMATION)
    if confirmation is not None and confirmation["trial"] != trial.number:
        confirmation = None
    if as_json:
        values = {
            "study": study.study_name,
            **asdict(summary),
            "network": spec and str(spec),
            "confirmation": confirmation,
        }
        if with_tables:
            values["layers"] = _layers(spec)
        typer.echo(json.dumps(values, indent=2))
        return
    console = make_console()
    _print_trial(console, study, summary)
    if confirmation is not None:
        mean = describe_mean(*(confirmation[key] for key in ("mean", "low", "high", "n_seeds")))
        console.print(f"confirmed  {mean}")
    if spec is not None:
        console.print(f"\nnetwork  {spec}")
        if with_tables:
            _print_layers(console, spec)
    if with_tables:
        _print_epochs(console, summary, _metric(study))


def _metric(study: Study) -> str:
    """What a study means by accuracy, in words."""
    from search.study.settings import StudySettings
    from search.training.metrics import metric_words

    return metric_words(StudySettings.from_study(study).metric)


def _spec(study: Study, trial: FrozenTrial) -> ModelSpec | None:
    """The network of a trial; None where it ended before it had one."""
    from search.exceptions import StudyError
    from search.study.open import rebuild

    try:
        return rebuild(study, trial).spec
    except StudyError:
        return None


def _layers(spec: ModelSpec | None) -> list[dict[str, Any]]:
    from search_models.size import layer_table

    return [] if spec is None else [asdict(row) for row in layer_table(spec)]


def _print_trial(console: Console, study: Study, summary: TrialSummary) -> None:
    from rich.table import Table
    from rich.text import Text

    from search.study.settings import StudySettings

    facts = [summary.state, *_reached(summary, _metric(study))]
    if summary.parameter_count is not None:
        facts.append(f"{thousands(summary.parameter_count)} parameters")
    name = f"Trial {summary.trial} of {study.study_name}"
    console.print(Text.assemble((name, "bold"), f": {', '.join(facts)}"))
    if summary.reason is not None:
        console.print(f"{summary.state.lower()} because: {summary.reason}")
    table = Table.grid(padding=(0, 2))
    drawn = dict(summary.hyperparameters)
    if StudySettings.from_study(study).search_space().scales_widths:
        widths = [drawn.pop(name) for name in list(drawn) if name.startswith("width_")]
        if widths:
            shown = " : ".join(map(str, widths))
            table.add_row("widths drawn", f"{shown}, then scaled to fit the budget")
    for name, value in drawn.items():
        table.add_row(name, f"{value:.6g}" if isinstance(value, float) else str(value))
    if summary.training_seed is not None:
        table.add_row("training seed", str(summary.training_seed))
    if summary.seconds is not None:
        table.add_row("time", f"{duration(summary.seconds)} on worker {summary.worker}")
    console.print(table)


def _reached(summary: TrialSummary, metric: str) -> list[str]:
    """How far a trial came, for its first line."""
    if summary.value is not None:
        return [f"{percent(summary.value)} validation {metric} (last epochs' mean)"]
    if not summary.epochs:
        return []
    last = summary.epochs[-1]
    return [f"{percent(last['validation_accuracy'])} validation {metric} in epoch {last['epoch']}"]


def _print_layers(console: Console, spec: ModelSpec) -> None:
    from rich.table import Table

    from search_models.size import layer_table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("layer")
    for heading in ("output", "parameters", "kernel", "stride", "jump", "receptive field"):
        table.add_column(heading, justify="right")
    rows = layer_table(spec)
    for row in rows:
        table.add_row(
            row.layer,
            " × ".join(map(str, row.output_shape)),
            f"{row.parameters:,}",
            str(row.kernel or ""),
            str(row.stride or ""),
            str(row.jump),
            str(row.receptive_field),
        )
    table.add_section()
    table.add_row("total", "", f"{sum(row.parameters for row in rows):,}", style="bold")
    console.print()
    console.print(table)


def _print_epochs(console: Console, summary: TrialSummary, metric: str) -> None:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for heading in (
        "epoch",
        "train loss",
        "train accuracy",
        "learning rate",
        "validation loss",
        f"validation {metric}",
        "seconds",
    ):
        table.add_column(heading, justify="right")
    for epoch in summary.epochs:
        table.add_row(
            str(epoch["epoch"]),
            _number(epoch["training_loss"], ".4f"),
            percent(epoch["training_accuracy"]),
            _number(epoch["learning_rate"], ".6f"),
            _number(epoch["validation_loss"], ".4f"),
            percent(epoch["validation_accuracy"]),
            _number(epoch["seconds"], ".1f"),
        )
    console.print()
    console.print(table)


def _number(value: float | None, form: str) -> str:
    """A number; what was not finite is stored as null."""
    return "not finite" if value is None else format(value, form)


def delete(
    study: Annotated[
        str, typer.Argument(help="Name of the study.", autocompletion=complete_studies)
    ],
    storage: Storage = DATABASE_URL,
    artifacts: Artifacts = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete a study with all its trials and artifacts.

    The runs that confirm or ablate it are deleted as well.

    Example: search delete mnist-8000x15
    """
    import optuna

    from search.report.artifacts import artifact_folder, delete_files
    from search.storage.open import opened_storage
    from search.study.locks import is_searched
    from search.study.open import find_repeats, open_study
    from search.study.summary import ABLATES, CONFIRMS

    with opened_storage(storage, write=True) as opened:
        chosen = open_study(opened, study)
        n_trials = len(chosen.get_trials(deepcopy=False))
        if not yes:
            ends = "; the search that runs on it ends" if is_searched(chosen) else ""
            typer.confirm(f"Delete {study} with its {n_trials} trials{ends}?", abort=True)
        for purpose in (CONFIRMS, ABLATES):
            repeats = find_repeats(opened, study, purpose)
            if repeats is not None:
                optuna.delete_study(study_name=repeats.study_name, storage=opened)
        optuna.delete_study(study_name=study, storage=opened)
        folder = artifact_folder(storage, artifacts)
        if folder is not None:  # behind the entries, none of which may lack its file
            delete_files(folder, chosen._study_id)
    echo(f"Deleted {study} ({n_trials} trials).")


def backup(
    file: Annotated[Path, typer.Argument(help="The copy, a new file.")],
    storage: Storage = DATABASE_URL,
    artifacts: Artifacts = None,
) -> None:
    """Copy a SQLite database, also while a search writes to it.

    The artifacts of its studies are copied into a folder beside the copy.

    Example: search backup studies-monday.db
    """
    from search.report.artifacts import artifact_folder, copy_artifacts
    from search.storage.backup import backup as copy_database
    from search.storage.open import opened_storage

    copy_database(storage, file)
    copy = f"sqlite:///{file}"
    folder, copy_folder = artifact_folder(storage, artifacts), artifact_folder(copy)
    assert folder is not None
    assert copy_folder is not None
    with opened_storage(copy) as opened:  # not to write: that would open a log beside it
        copy_artifacts(folder, copy_folder, opened)
    also = f"; its curves and weights to {copy_folder}" if copy_folder.exists() else ""
    echo(f"Copied to {file} ({file.stat().st_size:,} bytes){also}.")


def space(
    name: Annotated[
        str, typer.Argument(help="standard or wide.", autocompletion=complete_spaces)
    ] = "standard",
) -> None:
    """Print a built-in search space, as a TOML file to start from.

    Example: search space wide > my-space.toml
    """
    from search.space.toml import to_toml

    typer.echo(to_toml(name), nl=False)
