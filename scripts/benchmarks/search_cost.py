"""What coordinator and database cost a trial: measured, as a table, and as a picture."""

from __future__ import annotations

import json
import statistics
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from scripts.benchmarks.finished_trials import backend
from scripts.benchmarks.playback import TRIAL_SECONDS, Playback, read_curves
from scripts.benchmarks.played_search import THIS_SCRIPT, coordinate, database, make, make_request
from search.storage.cached import CachedStorage
from search.tuner.events import SearchEvent, TrialEnded
from search.tuner.plan import plan_search
from search.tuner.request import check_request
from search.tuner.sampler import SAMPLERS, CappedSampler
from search.tuner.session import begin_search

_DATABASES = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}


class TimedSampler(CappedSampler):
    """Notes how long each draw took, redraws included."""

    seconds: list[float]

    def sample_relative(self, *arguments: Any) -> dict[str, Any]:
        started = time.perf_counter()
        drawn = super().sample_relative(*arguments)
        self.seconds.append(time.perf_counter() - started)
        return drawn


class TimedDatabase:
    """A storage that adds up the time spent in it."""

    def __init__(self, storage: Any) -> None:
        self._storage = storage
        self.seconds = 0.0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._storage, name)
        if not callable(found):
            return found

        def timed(*arguments: Any, **options: Any) -> Any:
            started = time.perf_counter()
            try:
                return found(*arguments, **options)
            finally:
                self.seconds += time.perf_counter() - started

        return timed


@dataclass(frozen=True)
class Row:
    """What one size costs; seconds, the first two a trial.

    Args:
        trial: coordinator and storage.
        storage: of that, the storage.
        ask: a draw, redraws included, as a median.
        report: storing an epoch, as a median.
        start: until a search of the study that is there has read it, once PyTorch is imported.
        memory: of the process, in bytes.
    """

    n_trials: int
    n_workers: int
    trial: float
    storage: float
    ask: float
    report: float
    start: float
    memory: int


def measure(url: str, n_trials: int, n_workers: int, n_measured: int) -> Row:
    """Runs trials one after another on a study that is there, as many at a time as workers."""
    curves = read_curves()
    # More than are measured, so that at the end all workers have a trial as well.
    request = make_request(url, 10 * (n_trials + n_workers + n_measured))
    started = time.perf_counter()
    with begin_search(plan_search(check_request(request))) as search:
        start = time.perf_counter() - started
        playback = Playback(n_workers, curves)
        kind = SAMPLERS["tpe"]
        sampler = TimedSampler(
            kind.make(0),
            search.plan.space,
            max_redraws=kind.max_redraws,
            forgets=kind.forgets,
        )
        sampler.seconds = []
        search.study.sampler = sampler
        cached = search.study._storage
        assert isinstance(cached, CachedStorage)
        storage: Any = TimedDatabase(cached._database)
        cached._database = cached._backend = storage
        marks: list[tuple[float, float]] = []
        n_ended = 0

        def listen(event: SearchEvent) -> None:
            nonlocal n_ended
            if len(playback.start_seconds) < n_workers:
                return
            if not marks:  # from when all workers have a trial
                marks.append((time.perf_counter(), storage.seconds))
            n_ended += isinstance(event, TrialEnded)
            if n_ended == n_measured and len(marks) == 1:
                marks.append((time.perf_counter(), storage.seconds))

        coordinate(search, playback, listen, lambda: len(marks) == 2)
        memory = psutil.Process().memory_info().rss
        # What ran went back in the queue, where the next row would begin with it.
        with backend(search.study).engine.begin() as connection:
            connection.exec_driver_sql("UPDATE trials SET state = 'FAIL' WHERE state = 'WAITING'")
    (begin, stored_before), (end, stored_after) = marks
    return Row(
        n_trials,
        n_workers,
        trial=(end - begin) / n_measured,
        storage=(stored_after - stored_before) / n_measured,
        ask=statistics.median(sampler.seconds[-n_measured:]),
        report=statistics.median(playback.report_seconds),
        start=start,
        memory=memory,
    )


def print_table(
    kind: str,
    n_trials_each: Sequence[int],
    n_workers_each: Sequence[int],
    n_measured: int,
    rows_path: Path | None,
) -> None:
    """A row for each number of trials and workers, as it is measured."""
    print("| trials | workers | trial | of that storage | ask | report | start | memory |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for n_trials in n_trials_each:
        with database(kind) as url:
            make(url, n_trials)
            for n_workers in n_workers_each:  # on one study, which has some more trials each time
                # In a process of its own: memory that an earlier row took is not this one's.
                words = [*THIS_SCRIPT, "row", url, f"{n_trials}", f"{n_workers}"]
                done = subprocess.run(
                    [*words, f"{n_measured}"], check=True, capture_output=True, text=True
                )
                row = Row(**json.loads(done.stdout.splitlines()[-1]))
                if rows_path is not None:
                    with rows_path.open("a") as file:
                        file.write(json.dumps({"database": kind, **asdict(row)}) + "\n")
                figures = (row.trial, row.storage, row.ask, row.report)
                milliseconds = " | ".join(f"{1000 * seconds:.1f} ms" for seconds in figures)
                print(
                    f"| {row.n_trials:,} | {row.n_workers:,} | {milliseconds} | "
                    f"{row.start:.1f} s | {row.memory / 2**20:,.0f} MiB |",
                    flush=True,
                )


def draw(rows_path: Path, path: Path) -> None:
    """What a trial costs by workers, a line for each number of trials and database."""
    from matplotlib.figure import Figure

    rows = [json.loads(line) for line in rows_path.read_text().splitlines()]
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.add_subplot()
    sizes = sorted({row["n_trials"] for row in rows})
    for database_name, style in (("sqlite", "o-"), ("postgresql", "s--")):
        for size in sizes:
            own = [r for r in rows if (r["database"], r["n_trials"]) == (database_name, size)]
            if own:
                axes.plot(
                    [row["n_workers"] for row in own],
                    [1000 * row["trial"] for row in own],
                    style,
                    color=f"C{sizes.index(size)}",
                    label=f"{size:,} trials, {_DATABASES[database_name]}",
                )
    axes.axhline(10 * TRIAL_SECONDS, color="grey", linewidth=1)
    axes.text(10, 10 * TRIAL_SECONDS, "1 % of a trial of 30 s", color="grey", va="bottom")
    axes.set(xscale="log", yscale="log", xlabel="trials that run at a time (workers)")
    axes.set(ylabel="coordinator and database, ms a trial")
    axes.set_xticks([10, 100, 1000], ["10", "100", "1,000"])
    axes.set_yticks([30, 50, 100, 200, 500, 1000], ["30", "50", "100", "200", "500", "1,000"])
    axes.minorticks_off()
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=150)
