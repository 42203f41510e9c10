"""`search compare`: studies side by side."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from search.cli.completion import complete_studies
from search.cli.options import AsJson, Storage
from search.cli.output import echo_json, make_console
from search.exceptions import InputError
from search.folders import DATABASE_URL
from search.wording import duration, percent, thousands

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from search.results.compare import Comparison, Confirmed, Difference


def compare(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="STUDY...",
            help="Names of two studies or more.",
            autocompletion=complete_studies,
        ),
    ],
    storage: Storage = DATABASE_URL,
    as_json: AsJson = False,
) -> None:
    """Put studies side by side. What each asked, what it found, how their best recipes differ.

    What may not be compared, such as accuracies on different data, is said below the table. Where
    the winners of two studies were confirmed over fresh seeds, so is their difference, with its
    95 % interval.

    Example: search compare mnist-8000x15 mnist-5000x15
    """
    if len(set(names)) < 2 or len(set(names)) < len(names):
        raise InputError(
            f"Two studies or more must be named, each once, but got {', '.join(names)}; "
            "'search studies' lists them."
        )
    from search.results.compare import compare as compare_studies
    from search.storage.open import opened_storage
    from search.study.open import open_study

    with opened_storage(storage) as opened:
        comparison = compare_studies([open_study(opened, name) for name in names])
    if as_json:
        echo_json(asdict(comparison), indent=2)
        return
    console = make_console()
    _print_table(console, comparison)
    _print_configurations(console, comparison)
    for difference in comparison.differences:
        console.print(f"\n{_described(difference)}", style="bold")
    if comparison.notes:
        console.print()
    for note in comparison.notes:
        console.print(f"- {note}", style="yellow")


def _print_table(console: Console, comparison: Comparison) -> None:
    entries = comparison.entries
    rows: list[tuple[str, Sequence[str]]] = [
        ("data", [entry.dataset for entry in entries]),
        ("cap", [thousands(entry.budget) for entry in entries]),
        ("epochs", [str(entry.epochs) for entry in entries]),
        ("space", [entry.space for entry in entries]),
        ("metric", [entry.metric for entry in entries]),
    ]
    if len({entry.objective for entry in entries}) > 1:
        rows.append(("objective", [entry.objective for entry in entries]))
    rows += [
        ("trials trained", [thousands(entry.trials["n_trained"]) for entry in entries]),
        ("of these stopped early", [thousands(entry.trials["n_pruned"]) for entry in entries]),
        ("trials failed", [thousands(entry.trials["n_failed"]) for entry in entries]),
        ("best trial", [_shown(entry.best_trial) for entry in entries]),
        ("best in the search", [percent(entry.best_value) for entry in entries]),
        ("over fresh seeds", [_mean(entry.confirmed) for entry in entries]),
        ("95 % interval", [_interval(entry.confirmed) for entry in entries]),
        ("luck of winning", [_luck(entry.confirmed) for entry in entries]),
        ("parameters", [thousands(entry.parameter_count) for entry in entries]),
        ("training until the best", [_time(entry.seconds_until_best) for entry in entries]),
        ("training in all", [_time(entry.seconds) for entry in entries]),
    ]
    _print(console, "", [entry.name for entry in entries], rows)


def _print_configurations(console: Console, comparison: Comparison) -> None:
    if not comparison.recipes:
        return
    rows = [
        (name.replace("_", " "), [_shown(value) for value in values])
        for name, values in comparison.recipes.items()
    ]
    console.print()
    _print(console, "best recipes differ in", [entry.name for entry in comparison.entries], rows)


def _print(
    console: Console, title: str, names: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]
) -> None:
    from search.cli.tables import FittedTable

    table = FittedTable(gap=3)
    table.add_column(title, no_wrap=True)
    for name in names:
        table.add_column(name, overflow="fold")
    for heading, cells in rows:
        table.add_row(heading, *cells)
    console.print(table)


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _mean(confirmed: Confirmed | None) -> str:
    return "–" if confirmed is None else f"{percent(confirmed.mean)} (of {len(confirmed.values)})"


def _interval(confirmed: Confirmed | None) -> str:
    if confirmed is None or confirmed.low is None or confirmed.high is None:
        return "–"
    return f"{percent(confirmed.low)} – {percent(confirmed.high)}"


def _luck(confirmed: Confirmed | None) -> str:
    """What may be too much of the mean; nothing of a candidate that ran alone."""
    if confirmed is None or confirmed.luck_of_winning is None or confirmed.n_raced == 1:
        return "–"
    return f"up to {100 * confirmed.luck_of_winning:.2f} points"


def _time(seconds: float | None) -> str:
    return "–" if seconds is None else duration(seconds)


def _described(difference: Difference) -> str:
    low, high = difference.interval
    points = (
        f"{100 * difference.mean:+.2f} points (95 % interval {100 * low:+.2f} to {100 * high:+.2f})"
    )
    if low > 0:
        return f"{difference.study} is better than {difference.other}: {points}"
    return f"{difference.study} and {difference.other} are too close to tell: {points}"
