"""How long the installed command takes to answer `--help`.

    python -m scripts.benchmarks.help_latency

Asks each command in turn, ten times over, so that a busy machine is unkind to all of them alike,
and prints the medians of the time on the wall and of the processor's, which are much the same on an
idle machine. Fails where the processor's is over the limit: other work on the machine is not ours.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from search.cli import app

LIMIT_SECONDS = 0.3


def ask(words: list[str]) -> tuple[float, float]:
    """Seconds on the wall and of the processor for one `search WORDS --help`."""
    command = Path(sys.executable).parent / "search"
    before, started = os.times(), time.perf_counter()
    subprocess.run([command, *words, "--help"], stdout=subprocess.DEVNULL, check=True)
    wall, after = time.perf_counter() - started, os.times()
    before_children = before.children_user + before.children_system
    return wall, after.children_user + after.children_system - before_children


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=10)
    names = [command.callback.__name__ for command in app.registered_commands if command.callback]
    commands = [[], *([name] for name in names)]
    ask([])  # whatever is read from the disk for the first time
    asked = [[ask(words) for words in commands] for _ in range(parser.parse_args().times)]
    too_slow = []
    for words, runs in zip(commands, zip(*asked, strict=True), strict=True):
        wall, processor = (statistics.median(each) for each in zip(*runs, strict=True))
        shown = " ".join(["search", *words, "--help"])
        print(f"{shown:26}{1000 * wall:6.0f} ms, of which the processor {1000 * processor:4.0f} ms")
        if processor > LIMIT_SECONDS:
            too_slow.append(shown)
    if too_slow:
        sys.exit(f"Over {1000 * LIMIT_SECONDS:.0f} ms: {', '.join(too_slow)}.")


if __name__ == "__main__":
    main()
