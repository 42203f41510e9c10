"""The real command in a real terminal: tmux, whose screen is read back."""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from search.space.systems import all_systems
from tests.conftest import DIGITS_RUN, ENDLESS, Command, n_reported, wait_until

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")

PROMPT = "what-stood-there-before"


class Terminal:
    """A shell in a terminal that no other terminal knows."""

    def __init__(self, command: Command) -> None:
        self._command = command
        self.tmux("new-session", "-d", "-x", "110", "-y", "30", "env", f"PS1={PROMPT}$ ", "sh")

    def tmux(self, *words: str) -> str:
        socket = str(self._command.folder / "tmux")
        done = subprocess.run(
            ["tmux", "-S", socket, "-f", "/dev/null", *words],
            cwd=self._command.folder,
            env={**self._command.environment, "LC_ALL": "C.UTF-8", "TERM": "xterm-256color"},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    @property
    def folder(self) -> Path:
        return self._command.folder

    def type(self, *words: str) -> None:
        self.tmux("send-keys", "-l", shlex.join(words))
        self.tmux("send-keys", "Enter")

    def press(self, key: str) -> None:
        self.tmux("send-keys", key)

    def resize(self, columns: int, lines: int) -> None:
        self.tmux("resize-window", "-x", str(columns), "-y", str(lines))

    def shown(self) -> str:
        return self.tmux("capture-pane", "-p")

    def scrolled(self) -> str:
        """All that can be scrolled back to, and what is shown."""
        return self.tmux("capture-pane", "-p", "-S", "-")


@pytest.fixture
def terminal(command: Command) -> Iterator[Terminal]:
    yield from _terminal(command)


@pytest.fixture
def finished_terminal(finished: Command) -> Iterator[Terminal]:
    yield from _terminal(finished)


def _terminal(command: Command) -> Iterator[Terminal]:
    # Under CI there is no live view; the others, which pytest's workers have, stand for a size.
    for name in ("CI", "COLUMNS", "LINES"):
        command.environment.pop(name, None)
    terminal = Terminal(command)
    yield terminal
    with contextlib.suppress(subprocess.CalledProcessError):
        terminal.tmux("kill-server")


def test_no_word_is_broken_at_the_edge_of_a_narrow_terminal(terminal: Terminal) -> None:
    (terminal.folder / "photos").mkdir()
    terminal.resize(60, 30)
    wait_until(lambda: PROMPT in terminal.shown())

    def told(*words: str) -> str:
        """What stands there after a command, if lines are broken only where a space stood."""
        n_prompts = terminal.scrolled().count(PROMPT)
        terminal.type(*Command.words(*words))
        wait_until(lambda: terminal.scrolled().count(PROMPT) > n_prompts)
        return " ".join(terminal.scrolled().split())

    text = told("run", "--budget", "8000", "--epochs", "15", "--dataset", "photos")
    assert (
        "A data set must be one of auto, folder:PATH, mnist, fashion-mnist, kmnist, digits, but "
        "got 'photos'; the folder of that name can be searched as folder:photos."
    ) in text
    text = told("baseline")
    for system in all_systems():
        assert f"{system.name} {system.hyperparameters.spec}" in text
    text = told()
    next_step = r"Next: # search the best network (uv run )?search run --budget 8000 --epochs 15 "
    assert re.search(next_step, text)


def test_the_live_view_survives_what_is_done_to_its_terminal(terminal: Terminal) -> None:
    """One search for all of it, because a search takes seconds to begin."""
    wait_until(lambda: PROMPT in terminal.shown())
    terminal.type(*Command.words(*DIGITS_RUN, *ENDLESS, "--trials", "4", "--workers", "1"))
    wait_until(lambda: "so far," in terminal.shown())

    def clock() -> str:
        found = re.search(r"(\d.*) so far,", terminal.shown())
        return found[1] if found else ""

    def moves_on(before: str) -> bool:
        return clock() not in ("", before)

    # Narrow, low, and wide again: one whole picture each time, and nothing of the one before.
    for columns, lines in ((60, 30), (60, 8), (40, 30), (110, 30)):
        terminal.resize(columns, lines)
        wait_until(partial(moves_on, clock()))
        text = terminal.scrolled()
        for part in ("long: digits", "0 of 4 trained", "so far,", "worker +trial"):
            assert len(re.findall(part, text)) == 1, text

    # Ctrl-Z gives the terminal back to the shell, and fg to the search.
    terminal.press("C-z")
    wait_until(lambda: "so far," not in terminal.scrolled())
    assert PROMPT in terminal.shown()
    terminal.type("fg")
    wait_until(lambda: "so far," in terminal.shown())

    # At the end nothing is left of it, and all that stood before is there.
    terminal.press("C-c")
    wait_until(lambda: "Interrupted." in terminal.shown())
    left = terminal.scrolled()
    assert "so far," not in left
    assert left.index(PROMPT) < left.index("goal     the highest accuracy")


def test_a_race_shows_how_long_it_still_takes(finished_terminal: Terminal) -> None:
    terminal = finished_terminal
    wait_until(lambda: PROMPT in terminal.shown())
    terminal.resize(80, 30)
    terminal.type(*Command.words("confirm", "--top", "4", "--seeds", "20", "--workers", "1"))
    shown = r"\n. Racing, .* so far, about \d.* left  Ctrl-C stops, and is safe\n"
    wait_until(lambda: re.search(shown, terminal.shown()) is not None)
    terminal.press("C-c")
    wait_until(lambda: "Interrupted." in terminal.shown())
    assert "Racing, " not in terminal.scrolled()


def test_a_search_that_is_ended_while_its_database_is_locked_gives_the_terminal_back(
    terminal: Terminal, command: Command
) -> None:
    wait_until(lambda: PROMPT in terminal.shown())
    terminal.type(*Command.words(*DIGITS_RUN, *ENDLESS, "--trials", "2", "--workers", "1"))
    wait_until(lambda: n_reported(command, "long") > 0)
    with contextlib.closing(sqlite3.connect(command.database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        terminal.press("C-c")
        wait_until(lambda: "Interrupted, while" in terminal.shown())
    left = terminal.scrolled()
    assert "so far," not in left
    assert left.index(PROMPT) < left.index("goal     the highest accuracy")
    assert terminal.tmux("display", "-p", "#{alternate_on}, #{cursor_flag}") == "0, 1\n"
