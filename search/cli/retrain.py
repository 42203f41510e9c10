"""`search retrain`: train the best trial on all data, and open the test set."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search.cli.networks import study_network
from search.cli.options import (
    DataDir,
    Device,
    NetworkFile,
    Seeds,
    Storage,
    StudyName,
    Workers,
    not_negative,
)
from search.cli.output import data_words, heard_interrupts, make_console, next_lines, shown_waiting
from search.cli.repeats import describe_spread, epoch_printer, print_repeats
from search.folders import DATABASE_URL
from search.wording import counted
from search.workers.setup import prepare_workers

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial
    from rich.console import Console


def retrain(
    study: StudyName = None,
    trial: Annotated[
        int | None,
        typer.Option(
            parser=not_negative, metavar="N", help="Number of the trial.  [default: the best]"
        ),
    ] = None,
    seeds: Seeds = 3,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the weights.  [default: runs/STUDY/trial-N]")
    ] = None,
    storage: Storage = DATABASE_URL,
    data_dir: DataDir = None,
    workers: Workers = None,
    device: Device = "auto",
    network: NetworkFile = None,
) -> None:
    """Train the best trial on all data, and test it.

    It learns from training and validation images; the sealed test set is opened to test it.

    Example: search retrain --study mnist-8000x15 --seeds 5
    """
    console = make_console()
    with ExitStack() as stack:
        with heard_interrupts():
            from optuna.trial import TrialState

            from search.data.names import short_name
            from search.folders import check_folder_can_be_made, default_folder
            from search.space.network_files import load_network
            from search.storage.open import opened_storage
            from search.study.history import network_words, remembered_data_dir
            from search.study.next_steps import steps_with_weights
            from search.study.open import (
                check_study_data,
                load_study_data,
                open_trial,
                rebuild,
                select_study,
            )
            from search.study.settings import StudySettings
            from search.training.metrics import metric_words

            waiting = shown_waiting(console)
            opened = stack.enter_context(opened_storage(storage, write=True, waiting=waiting))
            chosen = select_study(opened, study)
            frozen = open_trial(chosen, trial)
            settings = StudySettings.from_study(chosen)
            hyperparameters = rebuild(chosen, frozen)
            folder = out or default_folder(chosen.study_name, frozen.number)
            check_folder_can_be_made(folder, option="--out")
            source = study_network(chosen, network)
            check_study_data(chosen, data_dir)
            prepared = prepare_workers(workers, device)
            load_network(source)

            from search.results.looks import looks_words
            from search.results.retrain import WeightsFolder
            from search.results.retrain import retrain as retrain_trial

            numbers = range(1, seeds + 1)
            weights = WeightsFolder(folder, numbers)
            dataset = load_study_data(chosen, data_dir)
        _print_replaced(console, folder, chosen.study_name, frozen.number)
        console.print(f"Trial {frozen.number} of {chosen.study_name}: {hyperparameters.spec}")
        if frozen.state != TrialState.COMPLETE:
            console.print(_why_unfinished(frozen), style="yellow")
        data_name = short_name(dataset.info.name)
        console.print(
            f"Training on {dataset.info.n_development:,} images of {data_name}, testing on "
            f"{dataset.info.n_test:,}; {counted(settings.epochs, 'epoch')}, "
            f"{counted(seeds, 'seed')}\n"
        )
        with prepared.pool(dataset, with_test=True, n_jobs=seeds) as pool:
            repeats = retrain_trial(
                chosen,
                frozen,
                pool,
                dataset.info,
                seeds=numbers,
                device=prepared.device,
                folder=weights,
                listener=epoch_printer(console),
            )
        print_repeats(console, repeats, "test")
        shown = describe_spread([repeat.last_three_mean for repeat in repeats])
        metric = metric_words(settings.metric)
        console.print(f"\nTest {metric}, last three epochs: {shown}", style="bold")
        console.print(looks_words(chosen))
    console.print(f"Weights and card: {folder}")
    named = "" if network is None else f', network="{network}"'
    console.print(f'In Python: network = search.load("{folder}"{named})')
    data = data_words(settings.dataset, data_dir or remembered_data_dir(chosen))
    option = network_words(chosen, settings) if network is None else ["--network", str(network)]
    steps = steps_with_weights(folder, chosen.study_name, settings.dataset, network=option)
    for line in next_lines(steps, console.width, storage=storage, data=data):
        console.print(line, soft_wrap=True)


def _why_unfinished(trial: FrozenTrial) -> str:
    """What is said of a trial that the search did not train to its end."""
    from search.study.record import TrialRecord

    record = TrialRecord.read(trial)
    why = "" if record.reason is None else f" ({record.reason})"
    return (
        f"The search did not train it to its end: it is {trial.state.name} after "
        f"{counted(len(record.epochs), 'epoch')}{why}. Here it trains all of them."
    )


def _print_replaced(console: Console, folder: Path, study: str, number: int) -> None:
    """Says whose weights are in a folder, where they are another trial's."""
    from search.exceptions import CardError
    from search.training.card import read_card

    with suppress(CardError):
        before = read_card(folder)
        if (before.study, before.trial) != (study, number):
            console.print(
                f"Replaces the weights of trial {before.trial} of {before.study} in {folder}.",
                style="yellow",
            )
