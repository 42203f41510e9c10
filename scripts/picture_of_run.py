"""The README's picture: the live view of a real search, as a terminal shows it.

    python scripts/picture_of_run.py docs/run

Searches the digits in a terminal of tmux, takes what it shows when half of the trials are trained
and both workers are in the midst of one, and writes it as light.svg and dark.svg, which fetch
nothing from a network.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from search.files import write_text

COLUMNS, LINES = 92, 18
N_TRIALS = 30
WORDS = (
    *("run", "--budget", "8000", "--epochs", "15", "--dataset", "digits"),
    *("--trials", str(N_TRIALS), "--workers", "2"),
)
FONTS = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
# Black, red, green, yellow, blue, magenta, cyan, white: what the live view uses must be readable.
LIGHT = TerminalTheme(
    (255, 255, 255),
    (27, 39, 51),
    [
        *((27, 39, 51), (194, 65, 12), (26, 112, 60), (140, 94, 0)),
        *((31, 95, 168), (162, 45, 120), (20, 110, 130), (102, 114, 127)),
    ],
)
DARK = TerminalTheme(
    (22, 27, 34),
    (225, 230, 236),
    [
        *((60, 68, 77), (240, 128, 90), (98, 200, 130), (220, 180, 90)),
        *((110, 170, 235), (235, 115, 160), (95, 200, 215), (150, 160, 170)),
    ],
)


def captured(folder: Path) -> str:
    """The terminal's contents in the midst of a search, with its colours as ANSI codes."""
    environment = {key: value for key, value in os.environ.items() if key not in ("CI", "NO_COLOR")}
    environment |= {"LC_ALL": "C.UTF-8", "TERM": "xterm-256color"}

    def tmux(*words: str) -> str:
        return subprocess.run(
            ["tmux", "-S", str(folder / "tmux"), "-f", "/dev/null", *words],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout

    size = ("-x", str(COLUMNS), "-y", str(LINES))
    tmux("new-session", "-d", *size, sys.executable, "-m", "search", *WORDS)
    try:
        while True:
            shown = tmux("capture-pane", "-p")
            n_trained = re.search(rf"(\d+) of {N_TRIALS} trained", shown)
            epochs = [int(epoch) for epoch in re.findall(r" (\d+)/15 ", shown)]
            is_half_way = n_trained is not None and 2 * int(n_trained[1]) >= N_TRIALS
            if is_half_way and len(epochs) == 2 and min(epochs) >= 5 and max(epochs) >= 8:
                return tmux("capture-pane", "-p", "-e")
            time.sleep(0.1)
    finally:
        tmux("kill-server")


def drawn(screen: str, theme: TerminalTheme, frame: str) -> str:
    """A terminal's contents as SVG."""
    console = Console(width=COLUMNS, record=True, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(screen), end="")
    svg = console.export_svg(title=f"search {' '.join(WORDS)}", theme=theme, unique_id="search-run")
    svg = svg.replace('stroke="rgba(255,255,255,0.35)"', f'stroke="{frame}"')
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)  # which are on a network
    return re.sub(r"font-family: [^;]*Fira Code[^;]*;", f"font-family: {FONTS};", svg)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    with tempfile.TemporaryDirectory() as folder:
        screen = captured(Path(folder)).rstrip("\n")
    out.mkdir(parents=True, exist_ok=True)
    for name, theme, frame in (("light", LIGHT, "#d5dbe1"), ("dark", DARK, "#3c444d")):
        write_text(drawn(screen, theme, frame), out / f"{name}.svg")


if __name__ == "__main__":
    main()
