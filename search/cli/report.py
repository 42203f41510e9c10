"""`search report`: a study's story, for someone who was not there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search.cli.networks import study_network
from search.cli.options import DataDir, Device, NetworkFile, Storage, StudyName
from search.cli.output import make_console, shown_command, storage_words
from search.exceptions import InputError, StudyError
from search.folders import DATABASE_URL
from search.wording import percent
from search.workers.setup import prepare_workers

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.figure import Figure
    from optuna.study import Study
    from rich.console import Console

    from search.data.dataset import Dataset
    from search.report.facts import Report
    from search.report.validation import Validated
    from search.training.epochs import EpochResult
    from search.workers.setup import WorkerSetup


def report(
    study: StudyName = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the report.  [default: runs/STUDY/report]")
    ] = None,
    train: Annotated[
        bool,
        typer.Option(
            "--train",
            help="Train the best trial once more on the search's split, to show where it errs.",
        ),
    ] = False,
    storage: Storage = DATABASE_URL,
    data_dir: DataDir = None,
    device: Device = "auto",
    network: NetworkFile = None,
) -> None:
    """Write a study's story as one HTML file. Its pictures lie beside it, as PNG.

    The question, the answer, how sure that is, how the networks learnt, what mattered, and how to
    make it again. It never opens the test set. Which classes the best network confuses takes
    weights: --train trains it once more, as the search did, and keeps them in the folder, where
    later reports find them.

    Example: search report --study mnist-8000x15 --train
    """
    import optuna

    from search.folders import PAGE, REPORT_FILES, study_folder
    from search.published import OutputFolder
    from search.report.facts import read_report
    from search.report.loading import load_matplotlib
    from search.storage.open import opened_storage
    from search.study.open import select_study
    from search.study.summary import how_to_complete

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    console = make_console()
    with opened_storage(storage) as opened:
        chosen = select_study(opened, study)
        with console.status("Reading"):
            facts = read_report(chosen)
        if train and facts.weights_name is None:
            raise StudyError(
                f"A study must have a complete trial to train it again, but {facts.study!r} has "
                f"none yet; leave out --train, or {how_to_complete(chosen, facts.trials)}."
            )
        path = out or study_folder(facts.study) / "report"
        folder = OutputFolder(path, "report")
        folder.check(REPORT_FILES)
        load_matplotlib()
        validated = _validated(
            console,
            chosen,
            facts,
            folder.path,
            train=train,
            data_dir=data_dir,
            device=device,
            network=network,
        )

    from search.report.page import Errors, render_page
    from search.report.pictures import draw_pictures

    def say(text: str) -> None:
        console.print(text, style="yellow", soft_wrap=True)

    with console.status("Drawing"):
        pictures = draw_pictures(facts, say)
        errors = None if validated is None else Errors.of(validated)
        page = render_page(facts, pictures, errors)
        files = {f"{picture.name}.png": picture.png for picture in pictures}
        if validated is not None:
            files |= _draw_errors(facts, validated, say)
    files |= {name: text.encode() for name, text in facts.files_beside.items()}
    folder.replace({**files, PAGE: page.encode()})
    console.print(str(folder.path / PAGE), soft_wrap=True)
    if facts.settings.is_of_tensors:
        return  # what comes next would train, and commands have no images
    race = facts.next_steps.command("confirm")
    if race is not None:
        words = shown_command([*race.words, *storage_words(storage)])
        console.print(f"Not confirmed yet: {words}", soft_wrap=True)
    if facts.weights_name is not None and validated is None:
        options = ["--study", facts.study, *storage_words(storage), *facts.network_words]
        options += [] if out is None else ["--out", str(out)]
        words = shown_command(["report", "--train", *options])
        console.print(f"To show where it errs as well: {words}", soft_wrap=True)


def _validated(
    console: Console,
    study: Study,
    facts: Report,
    folder: Path,
    *,
    train: bool,
    data_dir: Path | None,
    device: str,
    network: Path | None,
) -> Validated | None:
    """What the best network makes of the validation images; None where no weights tell."""
    if facts.weights_name is None:
        return None
    weights = folder / facts.weights_name
    are_there = os.path.lexists(weights)  # a link that leads nowhere is a user's, too
    if not train and not are_there:
        return None
    if facts.settings.network is not None and network is None and not train:
        return None  # what they show, only the user's file can tell
    source = study_network(study, network)
    from search.space.network_files import load_network
    from search.study.open import check_study_data, load_study_data

    workers = None
    if not are_there:
        check_study_data(study, data_dir)
        assert facts.chosen is not None
        console.print(  # before PyTorch and the data are loaded, which takes a while
            f"Training trial {facts.chosen.number} of {facts.study} once more, as the search did; "
            "the test set stays closed.",
            soft_wrap=True,
        )
        workers = prepare_workers(1, device)
    load_network(source)

    from search.report.validation import validate

    try:
        dataset = load_study_data(study, data_dir)
    except InputError as error:
        if train:
            raise
        console.print(f"Where it errs is left out: {error}", style="yellow")
        return None
    if workers is not None:
        _train(console, facts, dataset, weights, workers)
    return validate(dataset, facts, weights)


def _train(
    console: Console, facts: Report, dataset: Dataset, weights: Path, workers: WorkerSetup
) -> None:
    from search.report.validation import train_again

    assert facts.chosen is not None
    epochs = facts.settings.epochs

    def show(seed: int, result: EpochResult) -> None:
        console.print(f"epoch {result.epoch} of {epochs}: {percent(result.accuracy)}")

    with workers.pool(dataset, with_test=False, n_jobs=1) as pool:
        train_again(pool, facts, weights, device=workers.device, listener=show)


def _draw_errors(
    facts: Report, validated: Validated, undrawn: Callable[[str], None]
) -> dict[str, bytes]:
    """The pictures of what is confused, and of the mistakes, by the names of their files."""
    from search.data.names import short_name
    from search.report.loading import left_out
    from search.report.weights_figures import Answers, draw_confusion, draw_mistakes, picture_png

    assert facts.chosen is not None
    classes = validated.classes
    trial = f"trial {facts.chosen.number} of {facts.study}"
    origin = f"{short_name(facts.settings.dataset)}; {trial}, trained again on the search's split"
    answers = Answers("validation", validated.seed, origin)
    examples, probabilities = validated.examples, validated.probabilities
    files = {}
    draws: dict[str, Callable[[], Figure]] = {
        "confusion.png": lambda: draw_confusion(answers, validated.counts, classes),
        "mistakes.png": lambda: draw_mistakes(answers, examples, probabilities, classes),
    }
    for name, draw in draws.items():
        try:
            files[name] = picture_png(draw())
        except Exception as error:  # whatever a drawing library meets on a machine
            undrawn(left_out(name, error))
    return files
