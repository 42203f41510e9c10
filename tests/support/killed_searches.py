"""Searches that are killed at their n-th write to the database, for `test_killed.py`.

    python -m tests.support.killed_searches FOLDER N_TRIALS

For each line on standard input, an n or nothing, it searches the study `killed` in FOLDER in a
process forked from this one, which has imported all that takes long, and answers with that
process's exit code. The coordinator is killed just before its n-th transaction that writes is
committed; with nothing it runs to its end. All of them fork their workers from one server.
"""

from __future__ import annotations

import os
import signal
import sys
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

from search.workers.fork_server import start_server


def die_at_write(n: int) -> None:
    import sqlalchemy

    n_writes = 0

    def note(connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.split(maxsplit=1)[0] in ("INSERT", "UPDATE", "DELETE"):
            connection.info["wrote"] = True

    def count(connection: Any) -> None:
        nonlocal n_writes
        n_writes += connection.info.pop("wrote", False)
        if n_writes == n:
            os.kill(os.getpid(), signal.SIGKILL)

    sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", note)
    sqlalchemy.event.listen(sqlalchemy.Engine, "commit", count)


def main(folder: Path, n_trials: int) -> None:
    # Imported here, because each worker imports this file anew.
    import optuna

    import search.report.figures  # noqa: F401
    from search.tuner.options import SearchRequest
    from search.tuner.plan import plan_search
    from search.tuner.request import check_request
    from search.tuner.session import begin_search

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    start_server()
    request = SearchRequest(
        budget=2000,
        epochs=2,
        n_trials=n_trials,
        dataset="digits",
        space="standard",  # of large batches, which trains fastest
        study="killed",
        storage=f"sqlite:///{folder / 'studies.db'}",
        n_workers=2,
        confirm=False,
        worker_log=folder / "log",
    )
    plan = plan_search(check_request(request))
    for _ in range(2):  # brings what is imported late, and what a process finds out once
        with begin_search(plan):
            pass
    print("ready", flush=True)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            # The server is the parent's child: whoever did not start it cannot ask whether it runs.
            forkserver._forkserver.ensure_running = lambda: None  # type: ignore[method-assign]
            forkserver.ensure_running = forkserver._forkserver.ensure_running
            if line.strip():
                die_at_write(int(line))
            with begin_search(plan) as begun:
                begun.run(lambda event: None, should_stop=lambda: False)
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
