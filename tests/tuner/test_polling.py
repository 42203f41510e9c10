"""Four dashboards and eight readers poll a database while a search writes to it.

In continuous integration that is a search of 40 trials. The long one, of 5,000:

    SEARCH_TEST_TRIALS=5000 uv run --group dev pytest -n 0 tests/tuner/test_polling.py
"""

from __future__ import annotations

import os
import threading
import time
import urllib.error
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event as Stop
from pathlib import Path
from typing import Any, cast

import optuna
from optuna.trial import TrialState

from search.report.dashboard import serve
from search.storage.open import opened_storage
from search.study.history import StudyLength
from search.training.epochs import EpochResult
from search.tuner.coordinator import Coordinator
from search.tuner.events import Outcome
from search.tuner.options import SearchRequest
from search.tuner.plan import plan_search
from search.tuner.request import check_request
from search.tuner.session import begin_search
from search.workers.fork_server import worker_context
from search.workers.jobs import Event, Job, JobDone, JobEpoch
from tests.conftest import wait_until
from tests.support.servers import call

N_TRIALS = int(os.environ.get("SEARCH_TEST_TRIALS", "40"))
IS_LONG = "SEARCH_TEST_TRIALS" in os.environ
N_DASHBOARDS, N_READERS, N_EPOCHS = (4, 8, 3) if IS_LONG else (1, 3, 3)
_POLL_SECONDS = 0.5
# They read without end, and on two cores would leave the search a thirteenth part of the time.
_POLITENESS = 10


class InstantPool:
    """Workers that are done at once: what is left of a search is its writing."""

    def __init__(self) -> None:
        self._jobs: list[Job] = []

    @property
    def n_idle(self) -> int:
        return 2 - len(self._jobs)

    def submit(self, job: Job) -> int:
        self._jobs.append(job)
        return len(self._jobs) - 1

    def cancel(self, key: int) -> None:
        pass

    def events(self, timeout: float) -> Iterator[Event]:
        for worker, job in enumerate(self._jobs):
            for epoch in range(1, job.epochs + 1):
                accuracy = (job.seed % 1000 + epoch) / 2000
                yield JobEpoch(job.key, worker, EpochResult(epoch, 1.0, 0.5, 0.1, 1.0, accuracy, 0))
            yield JobDone(job.key, worker, 0.0)
        self._jobs.clear()


def serve_in_a_process(url: str, address: Connection) -> None:
    os.nice(_POLITENESS)
    serve(url, port=0, announce=address.send)


def read_in_a_process(url: str, stop: Stop, report: Connection) -> None:
    """Opens the database again and again as `search best` does, and reports what went wrong."""
    os.nice(_POLITENESS)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    n_reads, errors = 0, []
    while not stop.is_set():
        try:
            with opened_storage(url) as storage:
                (name,) = optuna.get_all_study_names(storage)
                optuna.load_study(study_name=name, storage=storage).get_trials(deepcopy=False)
            n_reads += 1
            if n_reads == 1:
                report.send("ready")
        except Exception as error:
            errors.append(repr(error))
        time.sleep(_POLL_SECONDS)
    report.send((n_reads, errors))


def test_nobody_meets_a_locked_database(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    request = SearchRequest(
        *(3000, N_EPOCHS, N_TRIALS),
        dataset="digits",
        storage=url,
        sampler="random",
        pruner="none",
        confirm=False,
    )
    context = worker_context()
    stop = context.Event()
    processes, addresses, reports = [], [], []
    answers: list[int] = []
    errors: list[str] = []
    ended = threading.Event()

    def poll(address: str) -> None:
        while not ended.is_set():
            try:
                (study,) = call(f"{address}api/studies")["study_summaries"]
                answer = call(f"{address}api/studies/{study['study_id']}?after=0")
                answers.append(len(answer["trials"]))
            except (urllib.error.URLError, ValueError, KeyError) as error:
                errors.append(repr(error))
            time.sleep(_POLL_SECONDS)

    with begin_search(plan_search(check_request(request))) as search:
        for _ in range(N_DASHBOARDS):
            ours, theirs = context.Pipe()
            processes.append(context.Process(target=serve_in_a_process, args=(url, theirs)))
            addresses.append(ours)
        for _ in range(N_READERS):
            ours, theirs = context.Pipe()
            processes.append(context.Process(target=read_in_a_process, args=(url, stop, theirs)))
            reports.append(ours)
        for process in processes:
            process.start()
        try:
            pollers = [
                threading.Thread(target=poll, args=(address.recv(),)) for address in addresses
            ]
            for poller in pollers:
                poller.start()
            assert [report.recv() for report in reports] == ["ready"] * N_READERS
            wait_until(lambda: len(answers) >= N_DASHBOARDS)
            outcome = Coordinator(
                search.study,
                cast(Any, InstantPool()),
                length=StudyLength(N_TRIALS),
                n_validation=search.n_validation,
                seed=0,
                device="cpu",
                listener=lambda event: None,
                should_stop=lambda: False,
                is_time_over=lambda: False,
                sharing=search.sharing,
            ).run()
            ended.set()
            stop.set()
            for poller in pollers:
                poller.join()
            read = [report.recv() for report in reports]
        finally:
            ended.set()
            for process in processes:
                process.kill()
                process.join()
        trials = search.study.get_trials(deepcopy=False)

    assert outcome is Outcome.REACHED
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * N_TRIALS
    assert all(len(trial.intermediate_values) == N_EPOCHS for trial in trials)
    assert errors == []
    assert [reported for _, reported in read] == [[]] * N_READERS
    assert min(n for n, _ in read) >= 2, "each reader polled while trials were written"
    assert len(answers) >= 2 * N_DASHBOARDS
    assert any(0 < n < N_TRIALS for n in answers), "dashboards looked in the middle"
    print(f"\n{sum(n for n, _ in read)} reads, {len(answers)} looks of dashboards, no error")
