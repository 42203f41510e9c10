"""Searches with the default space where nobody wrote one: caps, epochs, sizes and kinds of images.

    python -m scripts.experiments.situations --folder FOLDER --data-dir DIR --out OUT

Each is `search run` with nothing but a budget, epochs and the data, and 20 trials. Beside what the
race confirmed stands a support vector machine on the same development images' pixels, over the same
number of parts: what is to be learnt by far more numbers than the cap allows. Studies are kept in
OUT, where the same command goes on; FOLDER is what scripts.experiments.varied_images wrote.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.model_selection import cross_val_score
from sklearn.svm import SVC

from search.data.load import load_dataset
from search.storage.open import opened_storage
from search.study.findings import Findings
from search.study.open import select_study

N_TRIALS = 20
MOST_PIXELS = 3_000  # of an image, that the machine is shown


@dataclass(frozen=True)
class Situation:
    """Data, cap and epochs; `data` is a folder's name unless it is built in."""

    data: str
    cap: int
    epochs: int

    @property
    def name(self) -> str:
        return f"{self.data}-{self.cap}x{self.epochs}"


SITUATIONS = (
    Situation("digits", 500, 15),
    Situation("letters", 1_200, 15),
    Situation("digits", 200_000, 3),
    Situation("mnist", 1_200, 1),
    Situation("digits", 2_000, 100),
    Situation("side-12", 8_000, 15),
    Situation("strips", 8_000, 15),
    Situation("two", 500, 15),
    Situation("glyphs", 8_000, 15),
    Situation("coloured", 8_000, 15),
    Situation("side-128", 8_000, 15),
)


def search(situation: Situation, data: str, place: Path, data_dir: Path) -> None:
    place.mkdir(parents=True, exist_ok=True)
    words = ["run", "--budget", str(situation.cap), "--epochs", str(situation.epochs)]
    words += ["--dataset", data, "--data-dir", str(data_dir), "--trials", str(N_TRIALS)]
    with (place / "log").open("a") as log:
        subprocess.run(
            [sys.executable, "-m", "search", *words], cwd=place, check=True, stdout=log, stderr=log
        )


def machine(data: str, data_dir: Path) -> float:
    """The mean accuracy of a support vector machine over parts of the development images."""
    dataset = load_dataset(data, data_dir)
    images = dataset.development.images.numpy()
    images = images.reshape(len(images), -1)[:, :: max(1, images[0].size // MOST_PIXELS)] / 255
    n_parts = max(2, dataset.info.n_parts)
    values = cross_val_score(SVC(C=10.0), images, dataset.development.labels.numpy(), cv=n_parts)
    return float(np.mean(values))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    print("| data | cap | epochs | confirmed | its 95 % interval | pixels and an SVM | seconds |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for situation in SITUATIONS:
        is_folder = (options.folder / situation.data).is_dir()
        folder = (options.folder / situation.data).resolve()
        data = f"folder:{folder}" if is_folder else situation.data
        place = options.out / situation.name
        begun = time.monotonic()
        search(situation, data, place, options.data_dir.resolve())
        seconds = time.monotonic() - begun
        with opened_storage(f"sqlite:///{place.resolve() / 'studies.db'}") as storage:
            found = Findings.read(select_study(storage, None)).confirmation
        shown = "none" if found is None else f"{100 * found['mean']:.2f} %"
        ends = "" if found is None else f"{100 * found['low']:.2f} to {100 * found['high']:.2f}"
        reference = (
            "" if situation.data == "mnist" else f"{100 * machine(data, options.data_dir):.2f} %"
        )
        print(
            f"| {situation.data} | {situation.cap:,} | {situation.epochs} | {shown} | {ends} | "
            f"{reference} | {seconds:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
