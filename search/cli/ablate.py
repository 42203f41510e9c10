"""`search ablate`: what each part of a recipe is good for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from search.cli.networks import study_network
from search.cli.options import (
    AsJson,
    DataDir,
    Device,
    NetworkFile,
    Seeds,
    Storage,
    StudyName,
    Workers,
    not_negative,
)
from search.cli.output import (
    EXIT_INTERRUPTED,
    echo_json,
    heard_interrupts,
    make_console,
    shown_waiting,
    stop_signals,
)
from search.folders import DATABASE_URL
from search.wording import counted, percent
from search.workers.setup import prepare_workers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import Console

    from search.cli.tables import FittedTable
    from search.data.dataset import Dataset
    from search.results.ablate import Ablation
    from search.results.ablation import Row
    from search.results.folds import Run
    from search.workers.repeats import Repeat
    from search.workers.setup import WorkerSetup


def ablate(
    study: StudyName = None,
    trial: Annotated[
        int | None,
        typer.Option(
            parser=not_negative, metavar="N", help="Number of the trial.  [default: the best]"
        ),
    ] = None,
    seeds: Seeds = 5,
    storage: Storage = DATABASE_URL,
    data_dir: DataDir = None,
    workers: Workers = None,
    device: Device = "auto",
    network: NetworkFile = None,
    as_json: AsJson = False,
) -> None:
    """Say what each part of the best trial is good for.

    It changes one thing at a time, and measures what that does to the accuracy.

    Every change is trained with the same seeds as the unchanged recipe. Each seed has another part
    of the data to be compared on, and all others to train on; the test set stays sealed. The
    interval is at 95 %, for the mean difference over seeds and parts. Of twenty changes without any
    effect, one is expected to look better or worse all the same: ten comparisons expect half a
    false alarm.

    Example: search ablate --study mnist-8000x15 --seeds 5
    """
    console = make_console(to_stderr=as_json)
    with stop_signals() as should_stop, ExitStack() as stack:
        with heard_interrupts():
            import optuna

            from search.space.network_files import load_network
            from search.storage.open import opened_storage
            from search.study.open import (
                check_study_data,
                find_repeats,
                load_study_data,
                open_trial,
                select_study,
            )
            from search.study.settings import StudySettings
            from search.study.summary import ABLATES

            optuna.logging.set_verbosity(optuna.logging.WARNING)
            waiting = shown_waiting(console, should_stop)
            opened = stack.enter_context(opened_storage(storage, write=True, waiting=waiting))
            chosen = select_study(opened, study)
            frozen = open_trial(chosen, trial)
            if find_repeats(opened, chosen, ABLATES) is None:  # else all may be kept
                check_study_data(chosen, data_dir)
            source = study_network(chosen, network)
            prepared = prepare_workers(workers, device)
            load_network(source)

            from search.results.ablate import Ablation
            from search.results.folds import Folds

            settings = StudySettings.from_study(chosen)
            folds, dataset = Folds.known(settings), None
            if folds is None:
                dataset = load_study_data(chosen, data_dir)
                folds = Folds.of(dataset.info, settings.metric)
            ablation = Ablation(chosen, frozen, folds=folds, n_seeds=seeds)
            is_whole = ablation.n_finished >= ablation.n_runs
            if dataset is None and not is_whole:
                dataset = load_study_data(chosen, data_dir)
        console.print(
            f"Trial {frozen.number} of {chosen.study_name}: {ablation.hyperparameters.spec}"
        )
        try:
            if dataset is not None and not is_whole:
                _train(console, ablation, dataset, prepared, should_stop)
            else:
                console.print("All of its runs are kept from before.\n")
                ablation.store()
        finally:  # what an interruption leaves is worth a table, too
            _print_rows(console, ablation, as_json=as_json)
    if ablation.n_finished < ablation.n_runs:
        kept = "The runs above are kept; the same command goes on."
        console.print(f"Interrupted. {kept}" if ablation.keeps_runs else "Interrupted.")
        raise typer.Exit(EXIT_INTERRUPTED)


def _train(
    console: Console,
    ablation: Ablation,
    dataset: Dataset,
    workers: WorkerSetup,
    should_stop: Callable[[], bool],
) -> None:
    info = dataset.info
    console.print(
        f"The recipe and {counted(ablation.n_changes, 'change')} of it, in "
        f"{counted(ablation.n_runs, 'training run')} of {counted(ablation.epochs, 'epoch')}: "
        f"{info.n_training:,} images of {info.name} train, {info.n_validation:,} validate"
        f"{f', each time another of {info.n_parts} parts' if info.n_parts > 1 else ''}."
    )
    if ablation.n_kept:
        console.print(f"Going on: {counted(ablation.n_kept, 'run')} kept from before.")
    if not ablation.keeps_runs:
        console.print(
            f"The name {ablation.kept_in} is taken, so no run is kept: what is interrupted starts "
            "over."
        )
    console.print()
    n_jobs = ablation.n_runs - ablation.n_kept
    with (
        workers.pool(dataset, with_test=False, n_jobs=n_jobs) as pool,
        _progress(console, ablation) as listener,
    ):
        ablation.run(pool, info, device=workers.device, listener=listener, should_stop=should_stop)


@contextmanager
def _progress(
    console: Console, ablation: Ablation
) -> Iterator[Callable[[str, Run, Repeat, bool], None]]:
    """A line for each training run that ends; in a terminal also a bar that moves each epoch."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), TextColumn("{task.percentage:.0f} %"), TimeRemainingColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(
            "epochs",
            total=ablation.n_runs * ablation.epochs,
            completed=ablation.n_kept * ablation.epochs,
        )

        def show(change: str, run: Run, repeat: Repeat, is_finished: bool) -> None:
            # A run whose loss is not finite ends before its last epoch.
            n_skipped = ablation.epochs - len(repeat.epochs) if is_finished else 0
            bar.advance(task, 1 + n_skipped)
            if is_finished:
                shown = percent(repeat.last_three_mean) if repeat.is_finite else "diverged"
                count = f"{ablation.n_finished}/{ablation.n_runs}"
                part = f", part {run.part}" if ablation.n_parts > 1 else ""
                words = f"[{count}] {change}{part}, seed {run.seed}: {shown}"
                console.print(words, soft_wrap=True)

        yield show


def _print_rows(console: Console, ablation: Ablation, *, as_json: bool) -> None:
    from dataclasses import asdict

    from search.results.ablation import LEAST_SEEDS

    if not ablation.n_finished:
        return
    rows = ablation.rows()
    is_complete = ablation.n_finished == ablation.n_runs
    if not is_complete:
        done = f"{ablation.n_finished} of {counted(ablation.n_runs, 'training run')}"
        console.print(f"\nEnded early: {done} had finished.", style="bold")
    if as_json:
        echo_json([asdict(row) for row in rows], indent=2)
        return
    console.print()
    console.print(_table(rows, with_seeds=not is_complete))
    n_judged = sum(row.interval is not None for row in rows)
    if n_judged:
        console.print(
            f"\nAt 95 %, {counted(n_judged, 'change')} without any effect would give "
            f"{0.05 * n_judged:.2g} false alarms on average."
        )
    elif any(row.difference is not None for row in rows):
        console.print(
            f"\nFewer than {LEAST_SEEDS} seeds tell too little of how they scatter for an interval "
            f"and a verdict; --seeds {LEAST_SEEDS} goes on from these runs."
        )


def _table(rows: Sequence[Row], *, with_seeds: bool) -> FittedTable:
    from search.cli.tables import FittedTable

    table = FittedTable()
    table.add_column("change", no_wrap=True)
    headings = ["parameters", "accuracy", "difference\nin points", "95 %\ninterval"]
    for heading in [*headings, "seeds"] if with_seeds else headings:
        table.add_column(heading, justify="right")
    table.add_column("verdict")
    for row in rows:
        n_seeds = sum(accuracy is not None for accuracy in row.accuracies)
        table.add_row(
            row.change,
            f"{row.parameter_count:,}",
            percent(row.mean),
            _points(row.difference),
            "–" if row.interval is None else ", ".join(map(_points, row.interval)),
            *([str(n_seeds)] if with_seeds else []),
            row.verdict or "–",
        )
    return table


def _points(share: float | None) -> str:
    """A difference of shares in percentage points, with its sign."""
    return "–" if share is None else f"{round(100 * share, 2) + 0.0:+.2f}"  # never -0.00
