"""Text from outside, in a terminal, a shell, JSON and Markdown."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable

import pytest
from rich.table import Table
from rich.text import Text

from search.cli.output import echo, echo_json, make_console, print_error
from search.plain_text import markdown, printable, printable_json, shell_line

# An escape sequence, a title, eight-bit escapes, a turn of direction, half a character, a new line.
STRANGE = ["\x1b[31mred", "\x1b]0;title\a", "\x9b2J", "\u202eabc", "\udcff", "a\nb", "\r\x00\x7f"]
PLAIN = ["猫", "Ω", "naïve", "🐱", "a b"]


@pytest.mark.parametrize("name", STRANGE)
def test_nothing_acts_on_a_terminal(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    table = Table(name)
    table.add_row(name, Text(name))
    prints: tuple[Callable[[], None], ...] = (
        lambda: echo(name),
        lambda: print_error(name),
        lambda: echo_json([name], ensure_ascii=False),
        lambda: make_console().print(name),
        lambda: make_console().print(Text(name)),
        lambda: make_console().print(table),
    )
    for print_it in prints:
        print_it()
        shown = "".join(capsys.readouterr()).replace("\n", "")
        assert shown
        assert shown == printable(shown)


@pytest.mark.parametrize("name", PLAIN)
def test_what_can_be_shown_stays_as_it_is(name: str) -> None:
    assert printable(name) == name
    assert printable_json(f'"{name}"') == f'"{name}"'
    assert markdown(name) == f"`{name}`"


def test_styles_of_ours_reach_the_terminal_and_columns_stay_straight(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("TERM", "xterm")
    console = make_console()
    table = Table(box=None, show_header=False)
    table.add_row("\x1b[2J", "|")
    table.add_row("123456789", "|")
    console.print(table)
    first, second = screen.getvalue().splitlines()
    assert first.index("|") == second.index("|")
    console.print("\x1b[2J", style="bold")
    assert "\x1b[1m\\x1b[2J\x1b[0m" in screen.getvalue()


@pytest.mark.parametrize("name", [*STRANGE, *PLAIN])
def test_json_says_what_it_said(name: str) -> None:
    text = printable_json(json.dumps(name, ensure_ascii=False))
    assert printable(text) == text
    assert json.loads(text) == name


def test_a_command_is_one_line_that_a_shell_reads_as_it_was() -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash")
    names = [name for name in (*STRANGE, *PLAIN, "it's", "\\'\x1b") if "\0" not in name]
    words = ["printf", "%s\\0", *names]
    line = shell_line(words)
    assert printable(line) == line
    done = subprocess.run([bash, "-c", line], capture_output=True, check=True)
    read = done.stdout.decode("utf-8", "surrogateescape").split("\0")[:-1]
    assert read == names


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("**a** <b> [c](d)", "`**a** <b> [c](d)`"),
        ("`", "`` ` ``"),
        ("a``b", "```a``b```"),
        ("a|b", "`a\\|b`"),
        ("a\\|b", "`a\\\\\\|b`"),
        ("a\n# b", "`a\\n# b`"),
    ],
)
def test_a_name_is_no_markdown(name: str, written: str) -> None:
    assert markdown(name) == written
