"""The real command in processes of its own, and one real study that tests read or copy."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest
import torch
from filelock import FileLock
from optuna.storages import RDBStorage
from optuna.study import Study

from search.cli import main
from search.storage.open import opened_storage
from tests.support.prepared import HANG_SECONDS, PreparedProcess, preparation
from tests.support.servers import Postgres, shown

# Tests run side by side, and so do the processes that they start: their threads would fight.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)  # of this process, which has imported it already
# Tests download nothing, on any machine: what tries finds a proxy that is not there.
NO_PROXY = "http://127.0.0.1:9"
os.environ.update(http_proxy=NO_PROXY, https_proxy=NO_PROXY, no_proxy="127.0.0.1,localhost")
os.environ.pop("SEARCH_STORAGE", None)
# Read when Ray is imported, which tests do before the package does.
os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
# A shell has what it starts in the background ignore Ctrl-C, `nohup` a closed terminal, and so all
# that starts in turn.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
optuna.logging.set_verbosity(optuna.logging.WARNING)


def pytest_xdist_auto_num_workers() -> int:
    """Two more than there are cores: many tests wait for a process, a server or a browser."""
    return len(os.sched_getaffinity(0)) + 2 if hasattr(os, "sched_getaffinity") else 2


@dataclass(frozen=True)
class Result:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Command:
    """`search` as a user types it, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[PreparedProcess | subprocess.Popen[str]] = []
        # Commands find no data set of the machine's unless a test names it.
        self.environment = {
            key: value for key, value in os.environ.items() if not key.startswith("SEARCH_")
        }

    def __call__(self, *arguments: str) -> Result:
        """The command in this process, which has imported all that takes a new one seconds."""
        out, err = io.StringIO(), io.StringIO()
        with (
            pytest.MonkeyPatch.context() as patch,
            contextlib.chdir(self.folder),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            patch.setattr(os, "environ", self.environment)
            patch.setattr(sys, "argv", ["search", *arguments])
            patch.setattr(sys, "stdin", io.StringIO())
            code = run_here(*arguments)
        return Result(code, out.getvalue(), err.getvalue())

    def apart(self, *arguments: str, **environment: str) -> Result:
        """The command in a process of its own, with something of its environment changed."""
        return self.fork("-m", "search", *arguments, **environment)

    def start(self, *arguments: str) -> PreparedProcess:
        """The command in the background, at the head of its own process group."""
        return self._forked(("-m", "search", *arguments), {}, is_merged=True)

    def fork(self, *words: str, **environment: str) -> Result:
        """`python` with these words, in a process that has imported all already."""
        process = self._forked(words, environment, is_merged=False)
        out, err = process.communicate()
        return Result(process.wait(), out, err)

    def _forked(
        self, words: Sequence[str], environment: Mapping[str, str], *, is_merged: bool
    ) -> PreparedProcess:
        process = preparation().start(
            words,
            folder=self.folder,
            environment={**self.environment, **environment},
            is_merged=is_merged,
        )
        self.started.append(process)
        return process

    def start_words(self, words: list[str]) -> subprocess.Popen[str]:
        """Any command line in the background, as `start` does it."""
        process = subprocess.Popen(
            words,
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def run_words(self, words: list[str], **environment: str) -> Result:
        """Any command line, in the folder and environment of this command."""
        done = subprocess.run(
            words,
            cwd=self.folder,
            env={**self.environment, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=HANG_SECONDS,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    def stop(self) -> None:
        """Ends what a failed test left running."""
        for process in self.started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    @staticmethod
    def words(*arguments: str) -> list[str]:
        """The command line of a new process, which imports all that it needs."""
        return [sys.executable, "-m", "search", *arguments]

    @property
    def database(self) -> Path:
        return self.folder / "studies.db"

    def study(self, name: str) -> Study:
        """The study as anybody with plain Optuna opens it."""
        return optuna.load_study(study_name=name, storage=f"sqlite:///{self.database}")


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Command]:
    command = Command(tmp_path)
    yield command
    command.stop()


# In the space of few and large batches, which trains fastest.
DIGITS_RUN = (
    *("run", "--dataset", "digits", "--budget", "3000", "--epochs", "3", "--pruner", "none"),
    *("--space", "standard"),
)


def made_once(
    factory: pytest.TempPathFactory, name: str, make: Callable[[Path], Result]
) -> tuple[Path, Result]:
    """A folder as `make` fills it, and what was printed then.

    It is made by the first of the processes that run the tests; each has a copy of its own.
    """
    own = factory.mktemp(name)
    base = factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / f"{name}-of-all"
    printed = shared.with_suffix(".json")  # comes last: what is half made is made anew
    with FileLock(shared.with_suffix(".lock")):
        if printed.is_file():
            shutil.copytree(shared, own, dirs_exist_ok=True)
            return own, Result(**json.loads(printed.read_text()))
        done = make(own)
        assert done.code == 0, done.err
        shutil.copytree(own, shared, dirs_exist_ok=True)
        printed.write_text(json.dumps(asdict(done)))
    return own, done


@pytest.fixture(scope="session")
def finished_search(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder in which `search run` trained four networks on the digits, and what it printed."""

    def search(folder: Path) -> Result:
        return Command(folder)(*DIGITS_RUN, "--trials", "4", "--workers", "2", "--seed", "1")

    folder, done = made_once(tmp_path_factory, "finished", search)
    return folder, done.out


@pytest.fixture(scope="session")
def finished_folder(finished_search: tuple[Path, str]) -> Path:
    return finished_search[0]


@pytest.fixture(scope="session")
def finished_output(finished_search: tuple[Path, str]) -> str:
    return finished_search[1]


@pytest.fixture
def finished(finished_folder: Path, command: Command) -> Command:
    """A copy of that folder, to do with as a test likes."""
    shutil.copytree(finished_folder, command.folder, dirs_exist_ok=True)
    return command


@pytest.fixture(scope="session")
def retrained(
    finished_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Command, Result]:
    """A folder in which the best trial was retrained with two seeds, and what that printed."""

    def retrain(folder: Path) -> Result:
        shutil.copytree(finished_folder, folder, dirs_exist_ok=True)
        return Command(folder)("retrain", "--seeds", "2", "--out", "weights")

    folder, done = made_once(tmp_path_factory, "retrained", retrain)
    return Command(folder), done


@pytest.fixture
def weights(retrained: tuple[Command, Result], tmp_path: Path) -> Path:
    """A copy of the weights, to damage."""
    return Path(shutil.copytree(retrained[0].folder / "weights", tmp_path / "weights"))


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A running PostgreSQL server; who stops it starts it again."""
    # Not below pytest's own folder, which is closed to the user that a root's server runs as.
    with tempfile.TemporaryDirectory(prefix="search-postgresql-") as folder:
        server = Postgres(Path(folder))
        yield server
        server.close()


@pytest.fixture(params=["SQLite", "PostgreSQL"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database that has nothing in it yet: each test runs on both."""
    if request.param == "SQLite":
        return f"sqlite:///{tmp_path / 'own.db'}"
    server: Postgres = request.getfixturevalue("postgres")
    return shown(server.url(server.new_database()))


@pytest.fixture
def storage(database_url: str) -> Iterator[RDBStorage]:
    """An empty storage in a real database."""
    with opened_storage(database_url, create=True) as storage:
        yield storage


def run_here(*arguments: str) -> int:
    """The command in this process, for those that start no others; returns its exit code."""
    with pytest.raises(SystemExit) as left:
        main(list(arguments))
    code = left.value.code
    assert isinstance(code, int)
    return code


@contextmanager
def read_only(path: Path) -> Iterator[None]:
    """A file or folder that this process cannot write; root can write whatever is not immutable."""
    if os.geteuid() != 0:
        mode = path.stat().st_mode
        path.chmod(mode & 0o555)
        yield
        path.chmod(mode)
        return
    chattr = shutil.which("chattr")
    if chattr is None or subprocess.run([chattr, "+i", path], capture_output=True).returncode:
        pytest.skip("root can write every file here: chattr +i does not work")
    try:
        yield
    finally:
        subprocess.run([chattr, "-i", path], check=True)


def wait_until(condition: Callable[[], bool]) -> None:
    """Waits for a condition, and fails where it never holds."""
    deadline = time.monotonic() + HANG_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "the condition never held"
        time.sleep(0.05)


ENDLESS = ("--epochs", "400", "--study", "long")


def n_reported(command: Command, name: str, *, first: int = 0) -> int:
    """How many epochs the running trials of a study, from the `first` on, have reported."""
    query = """
        SELECT COUNT(*) FROM trial_intermediate_values
        JOIN trials USING (trial_id) JOIN studies USING (study_id)
        WHERE study_name = ? AND state = 'RUNNING' AND number >= ?
    """
    try:  # not by Optuna, which would create tables in a database that is being made
        with contextlib.closing(
            sqlite3.connect(f"file:{command.database}?mode=ro", uri=True)
        ) as database:
            return int(database.execute(query, (name, first)).fetchone()[0])
    except sqlite3.OperationalError:
        return 0


def start_long_run(command: Command, *, first: int = 0) -> PreparedProcess:
    """A search that is in the middle of the trials that it started with, from the `first` on."""
    process = command.start(*DIGITS_RUN, *ENDLESS, "--trials", "4", "--workers", "2")
    wait_until(lambda: n_reported(command, "long", first=first) >= 4)
    return process


def alive(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Those that still run; one that has ended and that nobody has asked about does not."""

    def is_alive(process: psutil.Process) -> bool:
        try:
            return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return False

    return [process for process in processes if is_alive(process)]


@pytest.fixture(scope="session")
def mnist_dir() -> Path:
    """The folder of the real MNIST."""
    folder = os.environ.get("SEARCH_DATA_DIR")
    if folder is None:
        pytest.skip("SEARCH_DATA_DIR names no folder with MNIST")
    return Path(folder).resolve()
