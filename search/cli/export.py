"""`search export`: a network to use elsewhere, as an ONNX file or as a plain PyTorch program."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search.cli.completion import complete_weights
from search.cli.networks import card_network
from search.cli.options import DataDir, NetworkFile
from search.cli.output import make_console
from search.exceptions import InputError
from search.extras import import_extra
from search.plain_text import shell_line
from search.published import check_file, write_file

if TYPE_CHECKING:
    from rich.console import Console
    from torch import Tensor

    from search.training.card import Card

_ENDINGS = {".onnx": "onnx", ".py": "python"}
_N_COMPARED = 1_000  # images on which the exported network must do what the original does


def export(
    what: Annotated[
        Path,
        typer.Argument(
            metavar="NETWORK",
            help="Folder that 'search retrain' wrote, or the name of a shipped network; for a "
            "program also that of a baseline.",
            autocompletion=complete_weights,
        ),
    ],
    out: Annotated[Path, typer.Option(help="The file to write.")],
    format: Annotated[
        str | None,
        typer.Option(help="onnx or python.  [default: by the ending of the file, .onnx or .py]"),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(help="Whose weights.  [default: the first that are there]"),
    ] = None,
    data_dir: DataDir = None,
    network: NetworkFile = None,
) -> None:
    """Write a trained network as an ONNX file, or as a program. The program trains it anew.

    An ONNX file has the trained weights and takes pixels as they are; it is compared with PyTorch
    before it is written. A program is plain PyTorch, network and recipe written out, and needs
    nothing of this package.

    Example: search export best-1-epoch --out digits.onnx
    """
    console = make_console()
    if format is None:
        format = _ENDINGS.get(out.suffix)
    if format is None or format not in _ENDINGS.values():
        raise InputError(
            "A format must be onnx or python, or the file end with .onnx or .py, but got "
            f"{format or out.name!r}; name one with --format."
        )
    if out.is_dir():
        raise InputError(f"--out must name a file, but {out} is a folder; add a name to it.")
    check_file(out)
    if format == "onnx":
        _export_onnx(console, what, out, seed, data_dir, network)
    else:
        _export_python(console, what, out, seed)


def _export_onnx(
    console: Console,
    what: Path,
    out: Path,
    seed: int | None,
    data_dir: Path | None,
    file: Path | None,
) -> None:
    from search.data.idx_files import default_data_dir
    from search.space.baselines import BASELINES
    from search.space.presets import weights_folder
    from search.training.card import kept_seed, read_card, weights_path

    folder = weights_folder(what)
    if str(what) in BASELINES and not folder.is_dir():
        raise InputError(
            f"An ONNX file must have weights, but {what} is a system to be trained: --out "
            f"{what}.py writes a program for that, and 'search baseline {what}' trains it."
        )
    card = read_card(folder)
    seed = kept_seed(folder, card) if seed is None else seed
    weights_path(folder, card, seed)
    card_network(card, file)
    import_extra("onnx", "onnx", "onnxruntime", rule="ONNX files need onnx and onnxruntime")
    from search.export.onnx_file import check_parity, to_onnx
    from search.training.weights import load

    network = load(folder, seed=seed, network=file)
    images, origin = _images(card, data_dir or default_data_dir())
    model = to_onnx(network, metadata=_metadata(card, seed))
    difference = check_parity(model, network, images)
    write_file(model, out)
    shape = " × ".join(map(str, card.hyperparameters.spec.input_shape))
    console.print(f"file      {out}, {len(model):,} bytes, weights of seed {seed}", soft_wrap=True)
    console.print(f"input     pixels, float32 N × {shape}, from 0 (the background) to 255")
    console.print(
        f"output    logits, float32 N × {len(card.classes)}; their softmax is probabilities"
    )
    console.print(
        f"compared  with PyTorch on {len(images):,} {origin}: logits differ by at most "
        f"{difference:.1e}"
    )


def _images(card: Card, data_dir: Path) -> tuple[Tensor, str]:
    """Images to compare on, (N, C, H, W), and what they are; no test images, which stay sealed."""
    import torch

    from search.data.idx_files import is_available
    from search.data.load import load_dataset
    from search.data.names import short_name

    name = short_name(card.dataset)
    size = card.hyperparameters.spec.input_shape[1:]
    if is_available(card.dataset, data_dir):
        development = load_dataset(card.dataset, data_dir, image_size=size).development
        if development.images.shape[1:] == card.hyperparameters.spec.input_shape:
            return development.images[-_N_COMPARED:], f"images of {name}"
    generator = torch.Generator().manual_seed(0)
    shape = (_N_COMPARED, *card.hyperparameters.spec.input_shape)
    noise = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    return noise, f"images of noise, as {name} is not at hand"


def _metadata(card: Card, seed: int) -> dict[str, str]:
    """What an ONNX file says of itself."""
    from search.data.names import short_name
    from search.training.metrics import metric_words

    spec = card.hyperparameters.spec
    shape = ", ".join(map(str, spec.input_shape))
    values = "grey values" if spec.input_shape[0] == 1 else "values of each channel"
    return {
        "input": f"pixels, float32 (N, {shape}): {values} from 0 (the background) to 255, which "
        "the graph normalises",
        "output": f"logits, float32 (N, {spec.n_classes}): their softmax gives probabilities",
        "classes": json.dumps(list(card.classes), ensure_ascii=False),
        "network": str(spec),
        "parameters": str(spec.parameter_count),
        "dataset": short_name(card.dataset),
        "study": card.study,
        "trial": str(card.trial),
        "seed": str(seed),
        f"mean_test_{metric_words(card.metric).replace(' ', '_')}_of_all_seeds": (
            f"{card.mean_accuracy:.4f}"
        ),
    }


def _export_python(console: Console, what: Path, out: Path, seed: int | None) -> None:
    from search.data.names import folder_of
    from search.export.python_program import baseline_source, card_source, to_python
    from search.space.baselines import BASELINES
    from search.space.presets import weights_folder
    from search.training.card import read_card

    if seed is not None:
        raise InputError(
            "--seed chooses trained weights, but a program has none; leave it out, and give the "
            "program a --seed when it runs."
        )
    if str(what) in BASELINES and not what.is_dir():
        source = baseline_source(BASELINES[str(what)])
    else:
        source = card_source(read_card(weights_folder(what)))
    program = to_python(source, file_name=out.name)
    write_file(program.encode(), out)
    words = ["python", str(out)]
    if source.dataset != "digits":
        words += ["--data", str(folder_of(source.dataset) or "DIR")]
    console.print(f"{out}; run it with {shell_line(words)}", soft_wrap=True)
    console.print("It tests itself after each epoch: a run is a look at the test set, uncounted.")
