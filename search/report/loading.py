"""matplotlib imported, whatever a user's settings of it are."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
import os
import sys


def left_out(what: str, error: Exception) -> str:
    """What is said of a picture that cannot be drawn, which ends nothing."""
    reason, *_ = [*str(error).splitlines(), ""]
    return f"{what} cannot be drawn here and is left out ({type(error).__name__}: {reason[:200]})."


def load_matplotlib() -> None:
    """Imports matplotlib; to be called before what draws is imported.

    A `matplotlibrc` that is no text and a name of a drawing system that there is none of in
    MPLBACKEND make its import fail. Then it is imported with the settings that come with it.
    """
    logger = logging.getLogger("matplotlib")
    level = logger.level
    logger.setLevel(logging.ERROR)  # that its cache is a temporary one, or what a setting lacks
    try:
        _import_matplotlib()
        importlib.import_module("matplotlib.font_manager")
    finally:
        logger.setLevel(level)


def _import_matplotlib() -> None:
    try:
        importlib.import_module("matplotlib")
    except ValueError:
        for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
            del sys.modules[name]  # what was imported by half
        spec = importlib.util.find_spec("matplotlib")
        assert spec is not None
        assert spec.submodule_search_locations is not None
        backend = os.environ.pop("MPLBACKEND", None)
        try:  # it looks into the working folder first
            with contextlib.chdir(os.path.join(spec.submodule_search_locations[0], "mpl-data")):  # noqa: PTH118
                importlib.import_module("matplotlib")
        finally:
            if backend is not None:
                os.environ["MPLBACKEND"] = backend
