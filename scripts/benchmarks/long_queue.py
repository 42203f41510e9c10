"""How long the first page of a long queue takes, over HTTP.

    python -m scripts.benchmarks.long_queue --jobs 10000

Fills a queue in a temporary folder, has `search serve` answer for it without running any search,
and asks for the first page of 100 jobs again and again: how long an answer takes, what of that is
the server's own processor time, and how busy the machine is.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from search import Client
from search.service.database import opened_database
from search.service.jobs import JobState, now
from search.service.tables import jobs

_N_ASKED = 100


def fill(url: str, n_jobs: int) -> None:
    """Queues so many jobs, a tenth of which have ended."""
    rows = [
        {
            "state": str(JobState.DONE if n % 10 == 0 else JobState.WAITING),
            "place": n,
            "options": '{"budget": 8000, "epochs": 15}',
            "study": f"study-{n}",
            "submitted": now(),
            "n_starts": 0,
            "n_deaths": 0,
        }
        for n in range(n_jobs)
    ]
    with opened_database(url, create=True) as database:
        database.write(lambda connection: connection.execute(jobs.insert(), rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000)
    n_jobs = parser.parse_args().jobs
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder) / 'studies.db'}"
        fill(url, n_jobs)
        words = ["serve", "--slots", "0", "--port", "0", "--storage", url]
        server = subprocess.Popen(
            [sys.executable, "-m", "search", *words], stdout=subprocess.PIPE, cwd=folder
        )
        try:
            assert server.stdout is not None
            for _ in range(3):
                server.stdout.readline()
            process = psutil.Process(server.pid)
            with Client(storage=url) as client:
                for states in ([JobState.WAITING], list(JobState)):
                    client.jobs(states, limit=100)  # what it imports, and how it asks, it does once
                    seconds, before = [], process.cpu_times()
                    for _ in range(_N_ASKED):
                        started = time.perf_counter()
                        assert len(client.jobs(states, limit=100)) == 100
                        seconds.append(time.perf_counter() - started)
                    after = process.cpu_times()
                    cpu = after.user + after.system - before.user - before.system
                    what = "waiting" if len(states) == 1 else "all"
                    median, worst = 1000 * statistics.median(seconds), 1000 * max(seconds)
                    print(
                        f"{n_jobs:,} jobs, {what}: median {median:.1f} ms, worst {worst:.1f} ms; "
                        f"processor {1000 * cpu / _N_ASKED:.1f} ms each, "
                        f"load {os.getloadavg()[0]:.1f}"
                    )
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()
