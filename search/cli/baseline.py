"""`search baseline`: list hand-tuned systems and shipped networks, or train one."""

from __future__ import annotations

import textwrap
from itertools import zip_longest
from typing import TYPE_CHECKING, Annotated, Any

import typer

from search.cli.completion import complete_datasets, complete_systems
from search.cli.options import AsJson, DataDir, Device, Seeds, Storage, Workers, count_option
from search.cli.output import echo_json, make_console
from search.cli.repeats import describe_spread, epoch_printer, print_repeats
from search.exceptions import InputError
from search.folders import DATABASE_URL
from search.wording import counted
from search.workers.setup import prepare_workers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from search.data.dataset import DatasetInfo
    from search.space.baselines import Baseline
    from search.space.hyperparameters import Hyperparameters
    from search.workers.repeats import Repeat

_EPOCHS = 15  # of a user's own network, where nobody says


def baseline(
    name: Annotated[
        str | None,
        typer.Argument(
            help="Or a file, as net.py. Leave it out to list all.", autocompletion=complete_systems
        ),
    ] = None,
    seeds: Seeds = 1,
    own_momentum: Annotated[
        bool,
        typer.Option("--own-momentum", help="For OneCycle: keep the momentum that is written."),
    ] = False,
    all_images: Annotated[
        bool,
        typer.Option("--all-images", help="Train on those too that its author held out."),
    ] = False,
    epochs: Annotated[
        int | None,
        count_option("Epochs.  [default: the author's]"),
    ] = None,
    dataset: Annotated[
        str,
        typer.Option(
            help="mnist, fashion-mnist, kmnist or digits.", autocompletion=complete_datasets
        ),
    ] = "mnist",
    data_dir: DataDir = None,
    workers: Workers = None,
    device: Device = "auto",
    storage: Storage = DATABASE_URL,
    as_json: AsJson = False,
) -> None:
    """List hand-tuned systems and shipped networks, or train one. Each has a recipe of its own.

    A Python file of yours whose function 'network' suggests nothing is trained as well: its network
    as the file's 'training' says, or else as a search would begin.

    Example: search baseline three-step-3 --seeds 3
    """

    from search.space.network_files import read_network
    from search.space.presets import PRESETS, preset_folder
    from search.space.systems import find_system, own_system
    from search.training.card import read_card

    console = make_console(to_stderr=as_json)
    if name is None:
        if as_json:
            raise InputError("--json must come with a baseline's name, as in v36 --json.")
        _list_baselines(console)
        return
    is_own = name.endswith(".py")
    if is_own and (own_momentum or all_images):
        raise InputError(
            "--own-momentum and --all-images must come with a hand-tuned system, but got "
            f"{name}; leave them out."
        )
    source = read_network(name) if is_own else None
    found = None if is_own else find_system(name)
    if found is not None and own_momentum:
        found = found.with_own_momentum()
    if found is not None and all_images:
        found = found.on_all_images()

    from search.data.at_hand import check_at_hand
    from search.data.names import check_dataset_name

    check_at_hand(check_dataset_name(dataset), data_dir)
    prepared = prepare_workers(workers, device)

    from search.data.idx_files import default_data_dir
    from search.data.load import load_dataset
    from search.workers.repeats import train_repeats

    data = load_dataset(
        check_dataset_name(dataset),
        data_dir or default_data_dir(),
        n_held_out=None if found is None else found.n_held_out or None,
    )
    if found is None:
        assert source is not None
        found = own_system(
            source,
            input_shape=data.info.input_shape,
            n_classes=data.info.n_classes,
            n_training=data.info.n_development,
            epochs=epochs or _EPOCHS,
        )
    _print_baseline(console, found)
    n_epochs = epochs or found.epochs
    console.print(
        f"Training on {data.info.name}, {counted(n_epochs, 'epoch')}, {counted(seeds, 'seed')}"
    )
    if source is None and (data.info.name, n_epochs) != ("mnist", found.epochs):
        console.print(
            f"Not comparable: the claims are for mnist and {counted(found.epochs, 'epoch')}."
        )
    if source is not None:
        console.print("No study counts looks at the test set by a network that was made by hand.")
    if name in PRESETS:
        from search.results.looks import add_looks_of_network

        card = read_card(preset_folder(name))
        fingerprint = data.info.fingerprint
        # Said before the looks are taken, as every epoch prints one.
        console.print(add_looks_of_network(storage, card, fingerprint, n=seeds, by="baseline"))
    console.print()
    with prepared.pool(data, with_test=True, n_jobs=seeds) as pool:
        repeats = train_repeats(
            pool,
            found.hyperparameters,
            seeds=range(1, seeds + 1),
            epochs=n_epochs,
            training="train" if found.n_held_out else "development",
            evaluation="test",
            device=prepared.device,
            listener=epoch_printer(console),
        )
    print_repeats(console, repeats, "test")
    if source is None:
        _print_claim(console, found, repeats)
    if as_json:
        echo_json(_measured(found, data.info, n_epochs, repeats), indent=2)


def _measured(
    found: Baseline, info: DatasetInfo, epochs: int, repeats: Sequence[Repeat]
) -> dict[str, Any]:
    """A baseline's runs as values that JSON knows, accuracies as shares from 0 to 1."""
    from dataclasses import asdict

    return {
        "name": found.name,
        "parameter_count": found.hyperparameters.spec.parameter_count,
        "hyperparameters": found.hyperparameters.to_dict(),
        "dataset": {"name": info.name, "fingerprint": info.fingerprint},
        "epochs": epochs,
        "claimed_percent": {**asdict(found.claim), "dataset": "mnist", "epochs": found.epochs},
        "runs": [repeat.to_dict() for repeat in repeats],
    }


def _list_baselines(console: Console) -> None:
    from search.cli.tables import FittedTable
    from search.space.systems import all_systems

    systems = all_systems()
    table = FittedTable()
    table.add_column("name", no_wrap=True)
    for heading in ("parameters", "receptive field", "epochs", "claimed"):
        table.add_column(heading, justify="right")
    for found in systems:
        spec, claim = found.hyperparameters.spec, found.claim
        claimed = claim.last_three_mean or claim.last_epoch
        table.add_row(
            found.name,
            f"{spec.parameter_count:,}",
            str(spec.layer_table()[-1].receptive_field),
            str(found.epochs),
            f"{claimed:.2f} %",
        )
    console.print(table)
    console.print()
    margin = max(len(found.name) for found in systems) + 2
    for found in systems:
        # A layer stands on one line, as "c3 16": between its parts is a space that does not break.
        layers = str(found.hyperparameters.spec).replace(", ", ",\n").replace(" ", "\u00a0")
        lines = textwrap.wrap(layers, console.width - margin, break_long_words=False)
        for name, line in zip_longest([found.name], lines, fillvalue=""):
            console.print(f"{name:<{margin}}{line}".replace("\u00a0", " "))
    console.print("\nTrain one: search baseline three-step-3 --seeds 3")


def _print_baseline(console: Console, found: Baseline) -> None:
    from search_models.own import OwnSpec

    hyperparameters = found.hyperparameters
    count = hyperparameters.spec.parameter_count
    console.print(found.name, style="bold", end="")
    console.print(f": {hyperparameters.spec}  ({count:,} parameters)")
    console.print(", ".join(_hyperparameter_words(hyperparameters)))
    if found.found_as:
        console.print(
            f"Found by search, as {found.found_as}: {counted(found.epochs, 'epoch')} on all "
            "training images. What is called claimed is its mean when it was found.\n"
        )
        return
    if isinstance(hyperparameters.spec, OwnSpec):
        console.print("Trained on all training images, scored on the test set after each epoch.\n")
        return
    held_out = f"all but {found.n_held_out:,}" if found.n_held_out else "all"
    console.print(
        f"Its author's recipe: {counted(found.epochs, 'epoch')} on {held_out} training images, "
        "scored on the test set after each."
    )
    for choice in found.choices:
        console.print(f"  chosen here: {choice}")
    console.print()


def _hyperparameter_words(hyperparameters: Hyperparameters) -> list[str]:
    """A recipe as people write it; what is off is left out."""
    from dataclasses import asdict

    words = [f"{hyperparameters.optimizer} with learning rate {hyperparameters.learning_rate}"]
    words.append(f"momentum {hyperparameters.momentum}")
    for name, value in (
        ("weight decay", hyperparameters.weight_decay),
        ("gradient clipping", hyperparameters.gradient_clip),
        ("label smoothing", hyperparameters.label_smoothing),
    ):
        if value:
            words.append(f"{name} {value}")
    if hyperparameters.ema_epochs:
        words.append(f"weights averaged over {hyperparameters.ema_epochs} epochs")
    if hyperparameters.final_augmentation != 1:
        words.append(
            f"augmentation shrinking to {hyperparameters.final_augmentation:.4g} of its ranges"
        )
    words.append(f"batches of {hyperparameters.batch_size}")
    for part in (hyperparameters.schedule, hyperparameters.augmentation):
        settings = ", ".join(
            key.replace("_", " ") + ("" if value is True else f" {value:.4g}")
            for key, value in asdict(part).items()
            if value  # what is off or not set stays out
        )
        words.append(f"{type(part).__name__} ({settings})" if settings else type(part).__name__)
    return words


def _print_claim(console: Console, found: Baseline, repeats: Sequence[Repeat]) -> None:
    from search.cli.tables import FittedTable

    claim = found.claim
    table = FittedTable(gap=3)
    for heading in ("test accuracy", "claimed", "measured"):
        table.add_column(heading)
    for what, claimed, measured in (
        ("last epoch", claim.last_epoch, [repeat.epochs[-1].accuracy for repeat in repeats]),
        ("best epoch", claim.best_epoch, [repeat.best.accuracy for repeat in repeats]),
        ("last three", claim.last_three_mean, [repeat.last_three_mean for repeat in repeats]),
    ):
        shown = "–" if claimed is None else f"{claimed:.2f} %"
        table.add_row(what, shown, describe_spread(measured))
    console.print()
    console.print(table)
