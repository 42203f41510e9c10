"""`search best` and `search show`: one trial, or the most accurate one of each size."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from search.cli.confirm import describe_mean, luck_of_winning
from search.cli.networks import study_network
from search.cli.options import AsJson, NetworkFile, Storage, StudyName, not_negative
from search.cli.output import echo_json, make_console, same_command
from search.folders import DATABASE_URL
from search.wording import duration, figure, percent, thousands

if TYPE_CHECKING:
    from collections.abc import Sequence

    from optuna.study import Study
    from optuna.trial import FrozenTrial
    from rich.console import Console

    from search.cli.tables import FittedTable
    from search.study.summary import TrialSummary
    from search_models.network import Network


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
    from search.study.open import open_trial, select_study
    from search.study.summary import front, summarize_trial
    from search.study.trials import trials_of

    with opened_storage(storage) as opened:
        study = select_study(opened, study_name)
        trials = front(trials_of(study))
        if not trials:  # says so
            open_trial(study)
    if as_json:
        rows = [
            {
                "study": study.study_name,
                **asdict(summarize_trial(trial)),
                "network": _network(study, trial),
            }
            for trial in trials
        ]
        echo_json(rows, indent=2)
        return
    console = make_console()
    console.print(f"Of {study.study_name}, no network is better than these and no larger:\n")
    console.print(front_table(study, trials))


def front_table(study: Study, trials: Sequence[FrozenTrial]) -> FittedTable:
    """The Pareto front of accuracy against parameters, the trials of which are given."""
    from search.cli.tables import FittedTable
    from search.study.summary import summarize_trial

    table = FittedTable(gap=3)
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
    network: NetworkFile = None,
    as_json: AsJson = False,
) -> None:
    """Show one trial: its layers and its epochs.

    Example: search show 17
    """
    _show(study, number, storage, as_json, with_tables=True, network=network)


def _show(
    study_name: str | None,
    number: int | None,
    storage: str,
    as_json: bool,
    *,
    with_tables: bool,
    network: Path | None = None,
) -> None:

    from search.results.confirmed import confirmation_of
    from search.space.network_files import load_network
    from search.storage.open import opened_storage
    from search.study.open import open_trial, select_study
    from search.study.summary import summarize_trial

    with opened_storage(storage) as opened:
        study = select_study(opened, study_name)
        trial = open_trial(study, number)
        confirmation = confirmation_of(study)
    if network is not None:  # without it, a file's networks are shown but for their layers
        load_network(study_network(study, network))
    if confirmation is not None and confirmation["trial"] != trial.number:
        confirmation = None
    summary = summarize_trial(trial)
    spec = _spec(study, trial)
    if as_json:
        values = {
            "study": study.study_name,
            **asdict(summary),
            "network": spec and str(spec),
            "confirmation": confirmation,
        }
        if with_tables:
            values["layers"] = _layers(spec)
        echo_json(values, indent=2)
        return
    console = make_console()
    _print_trial(console, study, summary)
    if confirmation is not None:
        told = (confirmation[key] for key in ("mean", "low", "high", "n_seeds"))
        mean = describe_mean(*told, n_parts=confirmation["n_parts"])
        console.print(f"confirmed  {mean}{luck_of_winning(confirmation['luck_of_winning'])}")
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


def _spec(study: Study, trial: FrozenTrial) -> Network | None:
    """The network of a trial; None where it ended before it had one."""
    from search.exceptions import StudyError
    from search.study.open import rebuild

    try:
        return rebuild(study, trial).spec
    except StudyError:
        return None


def _layers(spec: Network | None) -> list[dict[str, Any]]:
    return [] if spec is None else [asdict(row) for row in spec.layer_table()]


def _print_trial(console: Console, study: Study, summary: TrialSummary) -> None:
    from rich.table import Table
    from rich.text import Text

    from search.study.settings import StudySettings

    state = "foreign, written by another program" if summary.is_foreign else summary.state
    facts = [state, *_reached(summary, _metric(study))]
    if summary.parameter_count is not None:
        facts.append(f"{thousands(summary.parameter_count)} parameters")
    name = f"Trial {summary.trial} of {study.study_name}"
    console.print(Text.assemble((name, "bold"), f": {', '.join(facts)}"))
    if summary.reason is not None:
        console.print(f"{summary.state.lower()} because: {summary.reason}")
    table = Table.grid(padding=(0, 2))
    drawn = dict(summary.hyperparameters)
    space = StudySettings.from_study(study).search_space()
    if space.scales_widths:
        widths = [drawn.pop(name) for name in space.searched_widths() if name in drawn]
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


def _print_layers(console: Console, spec: Network) -> None:
    from search.cli.tables import FittedTable
    from search.exceptions import CardError
    from search_models.layers import SpecError

    try:
        rows = spec.layer_table()
    except SpecError as error:
        raise CardError(str(error)) from error
    if not rows:
        with_file = same_command("--network", "FILE.py")
        console.print(f"Its layers are shown by the file that builds it: {with_file}")
        return
    table = FittedTable()
    table.add_column("layer")
    for heading in ("output", "parameters", "kernel", "stride", "jump", "receptive field"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            row.layer,
            " × ".join(map(str, row.output_shape)),
            f"{row.parameters:,}",
            str(row.kernel or ""),
            str(row.stride or ""),
            str(row.jump or ""),
            str(row.receptive_field or ""),
        )
    table.add_section()
    table.add_row("total", "", f"{sum(row.parameters for row in rows):,}", style="bold")
    console.print()
    console.print(table)


def _print_epochs(console: Console, summary: TrialSummary, metric: str) -> None:
    from search.cli.tables import FittedTable

    if not summary.epochs:
        return
    table = FittedTable()
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
            figure(epoch["training_loss"], 4),
            percent(epoch["training_accuracy"]),
            figure(epoch["learning_rate"], 6),
            figure(epoch["validation_loss"], 4),
            percent(epoch["validation_accuracy"]),
            _seconds(epoch["seconds"]),
        )
    console.print()
    console.print(table)


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"
