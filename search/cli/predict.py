"""`search predict`: a trained network asked about pictures of digits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search.cli.completion import complete_weights
from search.cli.options import AsJson
from search.cli.output import make_console, percent

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from search.predict import Prediction


def predict(
    what: Annotated[
        Path,
        typer.Argument(
            help="Folder that 'search retrain' wrote, or the name of a shipped network.",
            autocompletion=complete_weights,
        ),
    ],
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE...", help="PNG or JPEG files of one digit each.")
    ],
    seed: Annotated[
        int | None,
        typer.Option(help="Whose weights.  [default: the first that are there]"),
    ] = None,
    show: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", help="Write what the network saw, image beside image."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say which digits pictures show: images like MNIST's, photographs or scans.

    An image of 28×28 pixels, white on black, is taken as it is. In any other, the digit is found on
    its paper, scaled and centred as MNIST's are.

    Example: search predict best-1-epoch photo.jpg scan.png
    """
    import numpy as np
    import torch

    from search.data import check_dataset_name, class_names
    from search.folders import weights_folder
    from search.predict import check_takes_pictures
    from search.predict import predict as ask
    from search.predict_image import read_digit
    from search.weights import load, read_card

    folder = weights_folder(what)
    classes = class_names(check_dataset_name(read_card(folder).dataset))
    network = load(folder, seed=seed)
    check_takes_pictures(network)
    digits = [read_digit(path) for path in images]
    if show is not None:
        _write_strip(digits, show)
    predictions = ask(network, torch.from_numpy(np.stack(digits)[:, np.newaxis]))
    if as_json:
        for path, prediction in zip(images, predictions, strict=True):
            typer.echo(json.dumps(_values(path, prediction, classes), ensure_ascii=False))
    else:
        _print_table(images, predictions, classes)


def _write_strip(digits: list[NDArray[np.uint8]], path: Path) -> None:
    import io

    import numpy
    from PIL import Image

    from search.files import write_bytes
    from search.folders import make_folder

    strip = Image.fromarray(numpy.hstack(digits))
    large = strip.resize((8 * strip.width, 8 * strip.height), Image.Resampling.NEAREST)
    png = io.BytesIO()
    large.save(png, "PNG")
    make_folder(path.parent)
    write_bytes(png.getvalue(), path)


def _values(path: Path, prediction: Prediction, classes: list[str]) -> dict[str, object]:
    """A prediction as values that JSON knows, probabilities as shares from 0 to 1."""
    return {
        "image": str(path),
        "class": classes[prediction.label],
        "probability": prediction.probability,
        "runner_up": classes[prediction.runner_up],
        "probabilities": dict(zip(classes, prediction.probabilities, strict=True)),
    }


def _print_table(images: list[Path], predictions: list[Prediction], classes: list[str]) -> None:
    from rich.table import Table

    table = Table(box=None, padding=(0, 3, 0, 0), header_style="bold")
    table.add_column("image", overflow="fold")
    for heading in ("class", "probability", "runner-up", "probability"):
        table.add_column(heading, justify="right")
    for path, prediction in zip(images, predictions, strict=True):
        row = []
        for label in (prediction.label, prediction.runner_up):
            row += [classes[label], percent(prediction.probabilities[label])]
        table.add_row(str(path), *row)
    make_console().print(table)
