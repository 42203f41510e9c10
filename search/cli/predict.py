"""`search predict`: a trained network asked about pictures."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search.cli.completion import complete_weights
from search.cli.networks import card_network
from search.cli.options import AsJson, NetworkFile
from search.cli.output import echo_json, make_console, print_error
from search.exceptions import InputError
from search.plain_text import printable
from search.published import check_file, write_file
from search.wording import percent

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from search.results.predict import Prediction


_SCALE = 8  # of images as `--show` draws them; the gap between two is a pixel of theirs


def predict(
    what: Annotated[
        Path,
        typer.Argument(
            metavar="NETWORK",
            help="Folder that 'search retrain' wrote, or the name of a shipped network.",
            autocompletion=complete_weights,
        ),
    ],
    images: Annotated[
        list[Path],
        typer.Argument(
            metavar="IMAGE", help="PNG or JPEG files of one digit each, or images of yours."
        ),
    ],
    seed: Annotated[
        int | None,
        typer.Option(help="Whose weights.  [default: the first that are there]"),
    ] = None,
    show: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", help="Write what the network saw, image beside image."),
    ] = None,
    network: NetworkFile = None,
    as_json: AsJson = False,
) -> None:
    """Say what pictures show: digits, or classes of yours.

    Digits may be like MNIST's, photographs, or scans.

    A digit of 28×28 pixels, white on black, is taken as it is. In any other picture, the digit is
    found on its paper, scaled and centred as MNIST's are. For a network that learnt from a folder
    of images, pictures are scaled as those were.

    Example: search predict best-8k photo.jpg scan.png
    """
    from search.results.readers import image_reader, several_seer
    from search.space.presets import weights_folder
    from search.training.card import kept_seed, read_card, weights_path

    folder = weights_folder(what)
    card = read_card(folder)
    seed = kept_seed(folder, card) if seed is None else seed
    weights_path(folder, card, seed)
    card_network(card, network)
    if show is not None:
        check_file(show, option="--show")
    if card.dataset == "digits":
        make_console(to_stderr=True).print(
            "This network learnt scikit-learn's digits, which look otherwise than photographs made "
            "like MNIST's; one that learnt MNIST reads them better, as best-8k.",
            style="yellow",
        )
    pixels, refused = _read(images, image_reader(card))
    is_several = several_seer(card)
    several = {path for path in pixels if is_several(path)}
    if pixels:
        import numpy as np
        import torch  # once there is something to ask, as it takes seconds

        from search.results.predict import predict as ask
        from search.training.weights import load

        classifier = load(folder, seed=seed, network=network)
        stacked = np.stack(list(pixels.values()))
        if show is not None:
            _write_strip(stacked, show)
        answers = dict(zip(pixels, ask(classifier, torch.from_numpy(stacked)), strict=True))
        print_answers = _print_json if as_json else _print_table
        print_answers(answers, list(card.classes), several)
    for error in refused:
        print_error(error)
    if refused:
        raise typer.Exit(refused[0].exit_code)


def _read(
    paths: list[Path], read: Callable[[Path], NDArray[np.uint8]]
) -> tuple[dict[Path, NDArray[np.uint8]], list[InputError]]:
    """What pictures show, as images, and what is wrong with the others: one must not cost all."""
    images: dict[Path, NDArray[np.uint8]] = {}
    refused = []
    for path in paths:
        try:
            images[path] = read(path)
        except InputError as error:
            refused.append(error)
    return images, refused


def _write_strip(pixels: NDArray[np.uint8], path: Path) -> None:
    """Writes images, bytes (N, C, H, W), side by side, large enough to see their pixels."""
    import io

    from PIL import Image

    n, _, height, width = pixels.shape
    across, down = _SCALE * width, _SCALE * height
    strip = Image.new("RGB", (n * (across + _SCALE) - _SCALE, down), "grey")
    for number, image in enumerate(pixels.transpose(0, 2, 3, 1)):
        picture = Image.fromarray(image if image.shape[-1] == 3 else image[..., 0])
        large = picture.resize((across, down), Image.Resampling.NEAREST)
        strip.paste(large, (number * (across + _SCALE), 0))
    png = io.BytesIO()
    strip.save(png, "PNG")
    write_file(png.getvalue(), path, option="--show")


def _values(
    path: Path, prediction: Prediction, classes: list[str], *, is_several: bool
) -> dict[str, object]:
    """A prediction as values that JSON knows, probabilities as shares from 0 to 1."""
    return {
        "image": str(path),
        "class": classes[prediction.label],
        "probability": prediction.probability,
        "is_sure": prediction.is_sure and not is_several,
        "shows_several": is_several,
        "runner_up": classes[prediction.runner_up],
        "probabilities": dict(zip(classes, prediction.probabilities, strict=True)),
    }


def _print_json(
    answers: dict[Path, Prediction], classes: list[str], several: Collection[Path]
) -> None:
    for path, prediction in answers.items():
        values = _values(path, prediction, classes, is_several=path in several)
        echo_json(values, ensure_ascii=False)


def _print_table(
    answers: dict[Path, Prediction], classes: list[str], several: Collection[Path]
) -> None:
    from search.cli.tables import FittedTable

    table = FittedTable()
    table.add_column("image", overflow="fold")
    for heading in ("class", "probability", "runner-up", "probability"):
        table.add_column(heading, justify="right")
    table.add_column()
    for path, prediction in answers.items():
        row = []
        for label in (prediction.label, prediction.runner_up):
            row += [printable(classes[label]), percent(prediction.probabilities[label])]
        note = "" if prediction.is_sure else "not sure"
        # The probability is that of one digit, which is not what the picture shows.
        table.add_row(str(path), *row, "several digits?" if path in several else note)
    make_console().print(table)
