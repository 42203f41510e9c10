"""`search confirm`, and what `search run` prints of the race at its end."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING, Annotated

import typer

from search.cli.networks import study_network
from search.cli.options import (
    Artifacts,
    AsJson,
    DataDir,
    Device,
    NetworkFile,
    Storage,
    StudyName,
    Workers,
    count_option,
)
from search.cli.output import (
    EXIT_INTERRUPTED,
    HINT,
    artifact_words,
    data_words,
    echo_json,
    heard_interrupts,
    make_console,
    next_lines,
    shown_command,
    shown_waiting,
    stop_signals,
    storage_words,
)
from search.folders import DATABASE_URL
from search.wording import counted, duration, percent, seeds_words, thousands
from search.workers.setup import prepare_workers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from optuna.study import Study
    from rich.console import Console

    from search.results.confirm import RepeatEnded
    from search.results.confirmation import Confirmation
    from search.results.target import Step
    from search.tuner.options import Target


def confirm(
    study: StudyName = None,
    top: Annotated[int, count_option("How many of the best trials race.")] = 5,
    seeds: Annotated[
        int,
        count_option(
            "How many fresh seeds a trial gets at most, each validated by another part of the data."
        ),
    ] = 5,
    storage: Storage = DATABASE_URL,
    artifacts: Artifacts = None,
    data_dir: DataDir = None,
    workers: Workers = None,
    device: Device = "auto",
    network: NetworkFile = None,
    as_json: AsJson = False,
) -> None:
    """Train the best trials anew, with fresh seeds, on other images.

    It tells which is best, and how sure that is.

    Example: search confirm --top 5 --seeds 5
    """
    console = make_console(to_stderr=as_json)
    with stop_signals() as should_stop, ExitStack() as stack:
        with heard_interrupts():
            import optuna

            from search.space.network_files import load_network
            from search.storage.open import opened_storage
            from search.study.open import (
                check_study_data,
                load_study_data,
                open_trial,
                select_study,
            )
            from search.study.settings import StudySettings
            from search.study.sharing import locked_race

            optuna.logging.set_verbosity(optuna.logging.WARNING)
            waiting = shown_waiting(console, should_stop)
            opened = stack.enter_context(opened_storage(storage, write=True, waiting=waiting))
            chosen = select_study(opened, study)
            stack.enter_context(locked_race(chosen, storage))
            open_trial(chosen)  # the best, without which there is nothing to race
            source = study_network(chosen, network)
            check_study_data(chosen, data_dir)
            prepared = prepare_workers(workers, device)
            load_network(source)

            from search.report.artifact_files import artifact_folder
            from search.report.dashboard_sync import DashboardSync
            from search.results.confirm import ConfirmationRun
            from search.results.folds import Folds

            dataset = load_study_data(chosen, data_dir)
            folds = Folds.of(dataset.info, StudySettings.from_study(chosen).metric)
            confirmation_run = ConfirmationRun(chosen, top=top, folds=folds, n_seeds=seeds)
        n_racing = len(confirmation_run.race.candidates)
        console.print(
            f"Racing {counted(n_racing, 'trial')} of {chosen.study_name} over up to "
            f"{counted(seeds, 'fresh seed')} each, {_validated(folds.n_parts)}; the test set stays "
            f"closed. {counted(confirmation_run.n_kept, 'run')} kept from before.\n"
        )
        with (
            prepared.pool(dataset, with_test=False, n_jobs=n_racing * seeds) as pool,
            shown_racing(console, lambda: confirmation_run.seconds_left),
        ):
            is_done = confirmation_run.run(
                pool,
                device=prepared.device,
                listener=repeat_printer(console),
                should_stop=should_stop,
            )
        confirmation = confirmation_run.finish()
        sync = DashboardSync(opened, chosen, artifact_folder(storage, artifacts))
        sync.update(is_leaving=True)
        data = [*data_words(dataset.info.name, data_dir), *artifact_words(artifacts)]
        print_confirmation(console, chosen, confirmation, storage=storage, data=data)
        if as_json and confirmation is not None:
            echo_json(confirmation.to_attribute(), indent=2)
    if not is_done:
        console.print("Interrupted. The runs above are kept; the same command goes on.")
        raise typer.Exit(EXIT_INTERRUPTED)


def _validated(n_parts: int) -> str:
    if n_parts == 1:
        return "on the search's own split"
    return f"each validated by another of {n_parts} parts of the data"


def repeat_printer(console: Console) -> Callable[[RepeatEnded], None]:
    """Prints a line for each run of a race."""

    def show(event: RepeatEnded) -> None:
        how = event.reason if event.value is None else percent(event.value)
        part = "" if event.part is None else f", part {event.part}"
        console.print(f"trial {event.trial}{part}, seed {event.seed}: {how}", soft_wrap=True)

    return show


def shown_racing(
    console: Console, seconds_left: Callable[[], float | None]
) -> AbstractContextManager[object]:
    """In a terminal a line that moves while a race trains, whose runs may take minutes.

    Args:
        seconds_left: until its end; None where that is not known.
    """
    from rich.progress import Progress, ProgressColumn, SpinnerColumn, Task
    from rich.table import Column
    from rich.text import Text

    class Times(ProgressColumn):
        def render(self, task: Task) -> Text:
            left = seconds_left()
            about = "" if left is None else f", about {duration(left)} left"
            so_far = duration(task.elapsed or 0.0)
            return Text(f"Racing, {so_far} so far{about}  {HINT}")

    progress = Progress(
        SpinnerColumn(),
        Times(Column(no_wrap=True)),
        console=console,
        transient=True,
        redirect_stdout=False,  # where a program may read JSON
        disable=not console.is_terminal or console.quiet,
    )
    progress.add_task("")
    return progress


def print_confirmation(
    console: Console,
    study: Study,
    confirmation: Confirmation | None,
    *,
    storage: str,
    data: Sequence[str],
) -> None:
    """The race's table, its winner, and how much of the search's best value was luck.

    Args:
        storage: as `next_lines` takes it.
        data: the options that find the data set and the artifacts.
    """
    from search.study.history import network_words
    from search.study.settings import StudySettings

    if confirmation is None:
        console.print("No run came to an end, so nothing is confirmed.")
        return
    console.print()
    console.print(_table(study, confirmation))
    winner = confirmation.winner
    if not confirmation.is_conclusive:
        console.print("\nOne run of each tells too little, so nothing is confirmed.", style="bold")
        return
    console.print(
        f"\nConfirmed: trial {winner.candidate}, "
        f"{describe_mean(*_interval(confirmation), n_parts=winner.n_parts)}",
        style="bold green",
    )
    if len(confirmation.standings) == 1:
        console.print("It raced against none: only the search's best was trained again.")
    elif confirmation.luck_of_winning is not None:
        console.print(
            f"It is the highest of {len(confirmation.standings)}: up to "
            f"{100 * confirmation.luck_of_winning:.2f} points of its mean may be luck, which the "
            "interval allows for."
        )
    close = [standing.candidate for standing in confirmation.standings if not standing.is_out][1:]
    if close:
        file = network_words(study, StudySettings.from_study(study))
        n_seeds = 2 * max(len(standing.values) for standing in confirmation.standings)
        lengths = ["--top", str(len(confirmation.standings)), "--seeds", str(n_seeds)]
        words = ["confirm", "--study", study.study_name, *lengths, *file]
        console.print(
            f"{_trials(close)} ran too close to it to be told apart, which more seeds may do:\n"
            f"  {shown_command([*words, *storage_words(storage), *data])}",
            soft_wrap=True,
        )
    if confirmation.luck is not None:
        best = percent(confirmation.search_values[confirmation.search_best])
        console.print(
            f"The search's best, trial {confirmation.search_best}, had {best}: "
            f"{describe_luck(confirmation.luck)}"
        )


def _trials(numbers: list[int]) -> str:
    """Which trials, at the beginning of a sentence."""
    *others, last = map(str, numbers)
    return f"Trials {', '.join(others)} and {last}" if others else f"Trial {last}"


def _interval(confirmation: Confirmation) -> tuple[float, float | None, float | None, int]:
    winner = confirmation.winner
    return winner.mean, winner.low, winner.high, len(winner.values)


def describe_mean(
    mean: float, low: float | None, high: float | None, n_seeds: int, *, n_parts: int
) -> str:
    """A mean over fresh seeds, and the parts that validated them, with its interval."""
    return (
        f"{percent(mean)} (95 % interval {percent(low)} to {percent(high)}, "
        f"{seeds_words(n_seeds, n_parts)})"
    )


def luck_of_winning(luck: float | None) -> str:
    """What may be too much of a winner's mean, behind it; nothing where nothing tells."""
    return f", up to {100 * luck:.2f} points of it by the luck of winning" if luck else ""


def describe_luck(luck: float) -> str:
    """What a search's best value was above its trial's mean over fresh seeds."""
    points = 100 * abs(luck)
    if luck > 0:
        return f"some {points:.2f} points of that were luck."
    return f"fresh seeds gave it {points:.2f} points more."


def _table(study: Study, confirmation: Confirmation) -> object:
    from search.cli.tables import FittedTable
    from search.study.summary import parameter_count_of
    from search.study.trials import trials_of

    table = FittedTable()
    for heading in ("trial", "parameters", "in the search", "fresh seeds", "95 % interval"):
        table.add_column(heading, justify="right")
    table.add_column("")
    counts = {trial.number: parameter_count_of(trial) for trial in trials_of(study)}
    others = confirmation.standings[1:]
    for index, standing in enumerate(confirmation.standings):
        is_known = standing.low is not None and standing.high is not None
        table.add_row(
            str(standing.candidate),
            thousands(counts.get(standing.candidate)),
            percent(confirmation.search_values[standing.candidate]),
            f"{percent(standing.mean)} (of {len(standing.values)})",
            f"{percent(standing.low)} – {percent(standing.high)}" if is_known else "–",
            "out" if standing.is_out else "close" if index else "first" if others else "",
        )
    return table


def print_steps(
    console: Console,
    steps: Sequence[Step],
    target: Target,
    *,
    ended: str,
    storage: str,
    data: Sequence[str],
    network: Sequence[str],
) -> None:
    """What each cap of a search for a target gave, and the smallest network that reaches it.

    Args:
        ended: why no lower cap was tried, as a sentence.
        network: the option that names the user's file of networks, where there is one.
        storage, data: as `next_lines` takes them.
    """
    from search.cli.tables import FittedTable
    from search.results.target import smallest
    from search.study.next_steps import retrain_step

    if not steps:
        console.print(f"\n{ended}")
        return
    confidence = f"{100 * target.confidence:g} %"
    table = FittedTable()
    table.add_column("study", overflow="fold")
    for heading in ("cap", "trial", "parameters", "fresh seeds", f"at least ({confidence})"):
        table.add_column(heading, justify="right")
    table.add_column("verdict")
    for step in steps:
        table.add_row(
            step.study,
            f"{step.cap:,}",
            str(step.trial),
            f"{step.parameter_count:,}",
            percent(step.mean),
            percent(step.least),
            step.verdict.value,
        )
    console.print()
    console.print(table)
    console.print(f"\n{ended}")
    found = smallest(steps)
    if found is None:
        best = max(steps, key=lambda step: step.mean)
        bound = "" if best.least is None else f", at least {percent(best.least)}"
        console.print(
            f"\nNo network under the budget reached {percent(target.accuracy)} for certain. The "
            f"best is trial {best.trial} of {best.study}: {percent(best.mean)} over fresh "
            f"seeds{bound}.",
            style="bold",
        )
        return
    console.print(
        f"\nSmallest that reaches it: {found.parameter_count:,} parameters, trial {found.trial} of "
        f"{found.study}",
        style="bold green",
    )
    following = [retrain_step(found.study, found.trial, network=network)]
    for line in next_lines(following, console.width, storage=storage, data=data):
        console.print(line, soft_wrap=True)
