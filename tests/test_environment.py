"""Where a process runs: without streams, without a home, from standard input."""

from __future__ import annotations

import os
import sys

import pytest
from optuna.trial import TrialState

from tests.conftest import Command

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


def test_what_is_closed_to_a_user_is_named(command: Command) -> None:
    if os.geteuid() == 0:
        pytest.skip("nothing is closed to root")
    closed = command.folder / "closed"
    closed.mkdir(mode=0o000)
    done = command("studies", "--storage", f"sqlite:///{closed / 'studies.db'}")
    assert done.code in (1, 2)
    assert "Permission denied" in done.err
