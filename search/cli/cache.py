"""`search cache`: what is kept of images between commands, seen and cleared."""

from __future__ import annotations

from typing import Annotated

import typer

from search.cli.options import AsJson
from search.cli.output import echo, echo_json
from search.wording import counted


def cache(
    clear: Annotated[
        bool, typer.Option("--clear", help="Delete all of it that no process uses.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show the cache, which only you can read, or clear it.

    It has the scaled images of folders, the data sets that worker processes map, and networks of
    your own as PyTorch compiles them. A file that was not used for 30 days is deleted by the next
    command that writes there, and so are the oldest beyond 4 GB. What is missing is made anew.

    Example: search cache --clear
    """
    from search.data.cache import COMPILED, FOLDERS, MAPPED, cache_folder, cached_files
    from search.data.cache import clear as clear_cache
    from search.folders import has_user_cache

    n_deleted = clear_cache() if clear else 0
    files = cached_files()
    if as_json:
        echo_json(
            {
                "folder": str(cache_folder(FOLDERS).parent) if has_user_cache() else None,
                "deleted": n_deleted,
                "files": [
                    {"path": str(file.path), "bytes": file.n_bytes, "used": file.used}
                    for file in files
                ],
            }
        )
        return
    if not has_user_cache():
        echo("There is no cache, as this user has no home directory; XDG_CACHE_HOME gives it one.")
        return
    if clear:
        echo(f"Deleted {counted(n_deleted, 'file')}.")
    echo(f"{cache_folder(FOLDERS).parent}: {_size(sum(file.n_bytes for file in files))}")
    for kind, words in (
        (FOLDERS, "scaled images of folders"),
        (MAPPED, "data sets that worker processes map"),
        (COMPILED, "networks of your own, as PyTorch compiles them"),
    ):
        of_kind = [file for file in files if cache_folder(kind) in file.path.parents]
        n_bytes = sum(file.n_bytes for file in of_kind)
        echo(f"  {kind}: {counted(len(of_kind), 'file')}, {_size(n_bytes)}; {words}")


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:,.1f} MB"
