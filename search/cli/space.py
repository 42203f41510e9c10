"""`search space`: a built-in search space, to start a file of one's own from."""

from __future__ import annotations

from typing import Annotated

import typer

from search.cli.completion import complete_spaces
from search.cli.options import count_option
from search.study.defaults import SPACE


def space(
    name: Annotated[
        str,
        typer.Argument(help="adaptive, standard or wide.", autocompletion=complete_spaces),
    ] = SPACE,
    budget: Annotated[int, count_option("The cap that adaptive adapts to.")] = 8_000,
    epochs: Annotated[int, count_option("The epochs that it adapts to.")] = 15,
) -> None:
    """Print a built-in search space, as a TOML file to start from.

    What adaptive adapts to besides are MNIST's images; `search run` adapts it to yours.

    Example: search space > my-space.toml
    """
    from search.space.adaptive import Situation
    from search.space.toml import to_toml

    typer.echo(to_toml(name, Situation(epochs=epochs, parameter_cap=budget)), nl=False)
