"""Where a process runs: without streams, without a home, from standard input."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
from pathlib import Path

import pytest
from optuna.trial import TrialState

from search.exceptions import InputError
from search.report.artifact_files import artifact_folder
from search.workers.fork_server import start_server
from tests.conftest import Command, run_here

SMALL = ("run", "--dataset", "digits", "--budget", "3000", "--epochs", "1", "--trials", "1")

# No main guard, and what is not to be run again in each worker.
PROGRAM = """
import pathlib
from search import SearchRequest, run_search

with pathlib.Path("runs.txt").open("a") as file:
    file.write("run\\n")
request = SearchRequest(3000, 1, 2, dataset="digits", study="made", n_workers=2)
print(len(run_search(request, show=False).trials))
"""


def test_a_search_whose_streams_are_closed_is_a_search(command: Command) -> None:
    line = f"{sys.executable} -m search {' '.join(SMALL)} --workers 1 <&- >&- 2>&-"
    done = command.run_words(["sh", "-c", line])
    assert (done.code, done.out, done.err) == (0, "", "")
    (trial,) = command.study("digits-3000x1").trials  # nothing was printed into the database
    assert trial.state == TrialState.COMPLETE
    refused = command.run_words(["sh", "-c", f"{sys.executable} -m search nonsense 2>&-"])
    assert refused.code == 2


def test_a_program_on_standard_input_without_a_main_guard_searches_once(command: Command) -> None:
    (command.folder / "program.py").write_text(PROGRAM)
    done = command.run_words(["sh", "-c", f"{sys.executable} - < program.py"])
    assert (done.code, done.out) == (0, "2\n"), done.err
    assert (command.folder / "runs.txt").read_text() == "run\n"


# As a program with a window or a web service has it, or `asyncio.to_thread`.
THREADS = """
import sys, threading
from search import SearchRequest, run_search

def train(study):
    request = SearchRequest(500, 1, 1, dataset="digits", study=study, n_workers=1)
    found.append(len(run_search(request, show=False).trials))

found, program = [], sys.modules["__main__"]
threads = [threading.Thread(target=train, args=(study,)) for study in ("one", "other")]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(found, sys.modules["__main__"] is program)
"""


def test_two_threads_search_at_a_time(command: Command) -> None:
    done = command.fork("-c", THREADS)
    assert done.code == 0, done.err
    assert (done.out, done.err) == ("[1, 1] True\n", "")


def test_a_process_that_may_start_no_other_is_told_so() -> None:
    pool = multiprocessing.get_context("fork").Pool(1)
    with pool, pytest.raises(InputError, match="daemonic"):
        pool.apply(start_server)


WITHOUT_NAMES = (
    "mount --bind /dev/null /etc/passwd && mount --bind /dev/null /etc/nsswitch.conf && "
    'exec env -u HOME -u XDG_CACHE_HOME "$@"'
)


def test_a_user_without_a_home_or_a_name_searches(command: Command) -> None:
    without = ["unshare", "--mount", "sh", "-c", WITHOUT_NAMES, "sh"]
    lookup = "import os, pwd; pwd.getpwuid(os.getuid())"
    try:
        named = command.run_words([*without, sys.executable, "-c", lookup])
    except FileNotFoundError:
        pytest.skip("there is no unshare")
    if "KeyError" not in named.err:
        pytest.skip("the system's list of users cannot be hidden from a process here")
    done = command.run_words([*without, *command.words(*SMALL, "--workers", "1")])
    assert done.code == 0, done.err
    assert done.err == ""
    assert command.study("digits-3000x1").trials[0].state == TrialState.COMPLETE


@pytest.mark.parametrize("words", [(), ("studies",), ("run", "--dataset", "digits")])
def test_a_working_folder_that_is_gone_is_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert run_here(*words) == 2
    assert "The working folder must be there, but it was deleted" in capsys.readouterr().err
    with pytest.raises(InputError, match="working folder"):
        start_server()  # as a program does, without the command


def test_a_folder_whose_name_is_no_text_is_worked_in_or_named(command: Command) -> None:
    odd = Path(os.fsdecode(bytes(command.folder) + b"/\xff\n"))
    odd.mkdir()
    refused = command("studies", "--storage", f"sqlite:///{odd}/studies.db")
    assert refused.code == 2
    assert "must be UTF-8 text" in refused.err
    with contextlib.chdir(odd):
        folder = artifact_folder("sqlite:///studies.db", Path("kept"))
    assert folder is not None
    assert folder.name.startswith("studies.db-")


def test_a_library_that_cannot_be_loaded_is_named(command: Command) -> None:
    (command.folder / "torch").mkdir()
    lacking = "import ctypes\nctypes.CDLL('libtorch_that_is_not_there.so')\n"
    (command.folder / "torch" / "__init__.py").write_text(lacking)
    code = f"import sys; sys.path.insert(0, {str(command.folder)!r}); from search.cli import main; "
    done = command.run_words([sys.executable, "-c", code + "main(['doctor'])"])
    assert done.code == 1
    assert "cannot be loaded (libtorch_that_is_not_there.so: cannot open" in " ".join(
        done.err.split()
    )
    assert "Traceback" not in done.err


NO_MORE_FILES = """
import resource
from search.cli import main

resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
main(["best"])
"""


def test_a_process_that_may_open_no_more_files_says_so(finished: Command) -> None:
    done = finished.run_words([sys.executable, "-c", NO_MORE_FILES])
    assert done.code == 1
    assert "ulimit" in done.err
    assert "Traceback" not in done.err


def test_what_is_closed_to_a_user_is_named(command: Command) -> None:
    if os.geteuid() == 0:
        pytest.skip("nothing is closed to root")
    closed = command.folder / "closed"
    closed.mkdir(mode=0o000)
    done = command("studies", "--storage", f"sqlite:///{closed / 'studies.db'}")
    assert done.code in (1, 2)
    assert "Permission denied" in done.err


@pytest.mark.parametrize("words", [("queue",), ("logs", "1"), ("submit", *SMALL[1:])])
def test_what_lies_in_the_place_of_a_folder_is_named(
    words: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "studies.db-service").touch()
    assert run_here(*words, "--storage", f"sqlite:///{tmp_path / 'studies.db'}") == 1
    assert "studies.db-service/server.lock (Not a directory)" in capsys.readouterr().err


def test_a_database_of_links_that_lead_to_each_other_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "studies.db").symlink_to("studies.db")
    for words in (("queue",), ("best",), ("serve", "--port", "0")):
        assert run_here(*words, "--storage", f"sqlite:///{tmp_path / 'studies.db'}") != 0
        assert "studies.db" in capsys.readouterr().err, words


HOMELESS = """
import pwd
from search.cli import main

def nobody(number):
    raise KeyError(number)

pwd.getpwuid = nobody  # as where the user has no entry
main(WORDS)
"""


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["cache", "--clear"], "There is no cache, as this user has no home directory"),
        ([*SMALL, "--data-dir", "~/data"], "begins with a home directory that the system does not"),
        ([*SMALL, "--dataset", "mnist"], "has neither a home directory nor a data folder"),
    ],
)
def test_a_home_that_is_not_there_is_said_to_be_none(
    words: list[str], told: str, command: Command
) -> None:
    unset = ["env", "-u", "HOME", "-u", "XDG_CACHE_HOME", "-u", "SEARCH_DATA_DIR"]
    program = HOMELESS.replace("WORDS", repr(words))
    done = command.run_words([*unset, sys.executable, "-c", program])
    said = " ".join((done.out + done.err).split())
    assert told in said
    assert "/dev/null" not in said
