"""Runs of one recipe over seeds, printed: each epoch, what each run reached, and their spread."""

from __future__ import annotations

from typing import TYPE_CHECKING

from search.wording import duration, figure, percent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import Console

    from search.training.epochs import EpochResult
    from search.workers.repeats import Repeat

_EPOCH_COLUMNS = ("seed", "epoch", "train loss", "accuracy", "    rate", " test loss", "accuracy")


def epoch_printer(console: Console) -> Callable[[int, EpochResult], None]:
    """Prints a row for each epoch of each run, under a heading."""
    console.print("  ".join(_EPOCH_COLUMNS), style="bold")

    def show(seed: int, result: EpochResult) -> None:
        cells = (
            str(seed),
            str(result.epoch),
            figure(result.training_loss, 4),
            percent(result.training_accuracy),
            figure(result.learning_rate, 5),
            figure(result.loss, 4),
            percent(result.accuracy),
        )
        columns = zip(cells, _EPOCH_COLUMNS, strict=True)
        console.print("  ".join(cell.rjust(len(column)) for cell, column in columns))

    return show


def print_repeats(console: Console, repeats: Sequence[Repeat], part: str) -> None:
    from search.cli.tables import FittedTable

    table = FittedTable(gap=3)
    for heading in ("seed", f"{part}, last three epochs", "best epoch", "time"):
        table.add_column(heading, justify="right")
    for repeat in repeats:
        best = f"{percent(repeat.best.accuracy)} (epoch {repeat.best.epoch})"
        shown = percent(repeat.last_three_mean)
        table.add_row(str(repeat.seed), shown, best, duration(repeat.seconds))
    console.print()
    console.print(table)


def describe_spread(values: Sequence[float]) -> str:
    from search.results.race import share_interval
    from search.workers.repeats import Spread

    spread, interval = Spread.of(values), share_interval(values)
    if spread.std is None or interval is None:
        return f"{percent(spread.mean)} (one seed)"
    low, high = (f"{100 * bound:.2f}" for bound in interval)
    return (
        f"{percent(spread.mean)} ± {100 * spread.std:.2f} (mean and spread over {len(values)} "
        f"seeds; 95 % interval {low} to {high})"
    )
