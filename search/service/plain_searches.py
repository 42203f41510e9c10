"""Searches that no job runs: those of `search run` in a terminal."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

from optuna.storages import BaseStorage

from search.storage.studies import study_names
from search.study.locks import searching_process
from search.study.open import open_study
from search.study.owners import is_alive, is_here
from search.study.record import Owner


def stop_search(storage: BaseStorage, name: str) -> Owner | None:
    """Has the search of a study stop, as Ctrl-C does; returns its process.

    None where nobody searches it, or on another machine.
    """
    if name not in study_names(storage):
        return None
    owner = searching_process(open_study(storage, name))
    if owner is None or not is_here(owner) or not is_alive(owner):
        return None
    with suppress(ProcessLookupError):
        os.kill(owner.pid, signal.SIGINT)
        return owner
    return None
