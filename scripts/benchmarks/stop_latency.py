"""How long a search takes to end once it is asked to.

    python -m scripts.benchmarks.stop_latency --times 20

Starts a search of the digits with two workers, sends it SIGINT, SIGTERM or SIGHUP while both train,
and measures until it has ended; then the same with a worker that is stopped first, as one that
hangs. Prints median and maximum for each, and fails where one took longer than the documented
limit.
"""

from __future__ import annotations

import argparse
import itertools
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

LIMIT_SECONDS = 5.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def stop_search(how: signal.Signals, *, with_hanging_worker: bool) -> float:
    """Seconds from the signal to the end of a search that trains on both its workers."""
    command = [str(Path(sys.executable).parent / "search"), "run", "--dataset", "digits"]
    command += ["--budget", "3000", "--epochs", "10000", "--workers", "2", "--json", "--quiet"]
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process,
    ):
        assert process.stdout is not None
        training = set()
        for line in process.stdout:
            event = json.loads(line)
            if event["event"] == "epoch":
                training.add(event["worker"])
            if len(training) == 2:
                break
        if with_hanging_worker:
            children = psutil.Process(process.pid).children()
            worker = next(worker for server in children for worker in server.children())
            worker.suspend()
        asked = time.perf_counter()
        process.send_signal(how)
        process.stdout.read()
        process.wait()
        return time.perf_counter() - asked


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=20)
    times = parser.parse_args().times
    slowest = 0.0
    for hangs, how in itertools.product((False, True), _SIGNALS):
        seconds = [stop_search(how, with_hanging_worker=hangs) for _ in range(times)]
        slowest = max(slowest, *seconds)
        shown = f"{how.name}{', one worker hangs' if hangs else ''}"
        print(f"{shown:28} median {statistics.median(seconds):.2f} s, most {max(seconds):.2f} s")
    if slowest > LIMIT_SECONDS:
        sys.exit(f"Over {LIMIT_SECONDS:.0f} s.")


if __name__ == "__main__":
    main()
