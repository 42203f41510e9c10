"""`search space`: a built-in search space, to start a file of one's own from."""

from __future__ import annotations

from typing import Annotated

import typer

from search.cli.completion import complete_spaces


def space(
    name: Annotated[
        str, typer.Argument(help="standard or wide.", autocompletion=complete_spaces)
    ] = "standard",
) -> None:
    """Print a built-in search space, as a TOML file to start from.

    Example: search space wide > my-space.toml
    """
    from search.space.toml import to_toml

    typer.echo(to_toml(name), nl=False)
