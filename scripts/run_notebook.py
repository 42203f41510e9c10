"""Runs a notebook from top to bottom and writes it anew, with what its cells put out.

    uv run --group dev scripts/run_notebook.py docs/python.ipynb

Its cells run in an empty folder, so that what they write is gone afterwards.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

CELL_SECONDS = 600


def run_notebook(path: Path, out: Path) -> None:
    """Runs the notebook at `path`, and writes it with its outputs to `out`.

    Raises:
        nbclient.exceptions.CellExecutionError: if a cell fails; nothing is written then.
    """
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory(prefix="notebook-") as folder:
        client = NotebookClient(
            notebook,
            timeout=CELL_SECONDS,
            kernel_name="python3",
            resources={"metadata": {"path": folder}},
            record_timing=False,  # which would differ each time
        )
        client.execute()
    nbformat.validate(notebook)
    nbformat.write(notebook, out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebook", type=Path)
    path = parser.parse_args().notebook
    run_notebook(path, path)


if __name__ == "__main__":
    main()
