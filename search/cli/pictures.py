"""`search pictures`: what a retrained network learnt, and where it still errs, to look at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search.cli.completion import complete_weights
from search.cli.networks import card_network
from search.cli.options import DataDir, NetworkFile, Storage
from search.cli.output import make_console, print_error
from search.folders import DATABASE_URL

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def pictures(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="NETWORK",
            help="Folder that 'search retrain' wrote, or the name of a shipped network.",
            autocompletion=complete_weights,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the pictures.  [default: that of the weights; runs/NAME]"),
    ] = None,
    data_dir: DataDir = None,
    storage: Storage = DATABASE_URL,
    network: NetworkFile = None,
) -> None:
    """Draw how a retrained network learnt, and where it errs.

    That is what it confuses, and which test images it gets wrong. It is a look at the test set,
    counted with the study that found the network, where the storage has that.

    Example: search pictures runs/mnist-8000x15/trial-17
    """
    from search.data.at_hand import check_at_hand
    from search.exceptions import SearchError
    from search.folders import PICTURES, check_folder_can_be_made
    from search.published import OutputFolder
    from search.space.presets import weights_folder
    from search.training.card import kept_seed, read_card, weights_path

    console = make_console()
    weights = weights_folder(folder)
    default = folder if weights == folder else Path("runs") / folder
    path = out or default
    folder = weights
    card = read_card(folder)
    check_folder_can_be_made(path, option="--out")
    seed = kept_seed(folder, card)
    weights_path(folder, card, seed)
    card_network(card, network)
    check_at_hand(card.dataset, data_dir)

    from search.report.loading import left_out, load_matplotlib

    load_matplotlib()
    from search.data.load import load_dataset
    from search.report.weights_figures import (
        Answers,
        confusion_matrix,
        draw_confusion,
        draw_curves,
        draw_mistakes,
        picture_png,
        probabilities_of,
    )
    from search.results.looks import add_looks_of_network
    from search.training.weights import load

    classifier = load(folder, seed=seed, network=network)
    size = card.hyperparameters.spec.input_shape[1:]
    dataset = load_dataset(card.dataset, data_dir, image_size=size)
    card.check_data(dataset.info)
    target = OutputFolder(path, "pictures")
    target.check(PICTURES)
    # Said before the look is taken, as whoever stops the command then has seen none unknowingly.
    console.print(add_looks_of_network(storage, card, card.fingerprint, n=1, by="pictures"))
    classes = list(card.classes)
    probabilities = probabilities_of(classifier, dataset.test)
    counts = confusion_matrix(probabilities, dataset.test.labels)
    answers = Answers.of(card, seed)
    curves, confusion, mistakes = PICTURES
    drawn, refused = {}, []
    draws: dict[str, Callable[[], Figure]] = {
        confusion: lambda: draw_confusion(answers, counts, classes),
        mistakes: lambda: draw_mistakes(answers, dataset.test, probabilities, classes),
        curves: lambda: draw_curves(card),  # an old card has nothing to draw it from
    }
    for name, draw in draws.items():
        try:
            drawn[name] = picture_png(draw())
        except SearchError as error:
            refused.append(str(error))
        except Exception as error:  # whatever a drawing library meets on a machine
            refused.append(left_out(name, error))
    target.replace(drawn)
    for name in drawn:
        console.print(str(target.path / name), soft_wrap=True)
    for text in refused:
        print_error(text)
    if refused:
        raise typer.Exit(1)
