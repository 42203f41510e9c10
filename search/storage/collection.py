"""When Python looks for garbage: not while much is read of which none is any yet.

A study of ten thousand trials is a million objects. To go through all of them takes a quarter of a
second, and Python does so again and again while they are made.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_collection() -> Iterator[None]:
    """Collects no garbage meanwhile."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def kept_from_collection() -> Iterator[None]:
    """Looks for no garbage meanwhile among all that there is now, which is to stay as long."""
    is_frozen_already = gc.get_freeze_count() > 0  # by the program that called
    if not is_frozen_already:
        gc.freeze()
    try:
        yield
    finally:
        if not is_frozen_already:
            gc.unfreeze()
