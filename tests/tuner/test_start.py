"""What the start of a search costs in a study that has many trials: each is gone through once."""

from __future__ import annotations

import cProfile
import gc
import pstats
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from optuna.trial import TrialState

from search.report.importance import LEAST_TRIALS
from search.storage.rows import _local
from search.study.history import StudyLength
from search.study.record import _KNOWN, TrialRecord, _is_epoch
from search.tuner.coordinator import Coordinator
from search.tuner.events import Outcome, SearchEvent, TrialStarted
from search.tuner.options import SearchRequest
from search.tuner.plan import plan_search
from search.tuner.request import check_request
from search.tuner.session import begin_search
from search.workers.jobs import Event, Job
from tests.support.made_studies import MadeTrial, add_as_ours

# Too few to tell what mattered, which would take a second.
N_TRIALS, N_EPOCHS = LEAST_TRIALS - 1, 6


class OneWorker:
    """Takes one job, and tells nothing of it."""

    n_idle = 1

    def submit(self, job: Job) -> int:
        self.n_idle = 0
        return 0

    def events(self, timeout: float) -> Iterator[Event]:
        return iter(())

    def cancel(self, key: int) -> None:
        self.n_idle = 1

    def kill_overdue(self, limit_seconds: float) -> None:
        pass


@pytest.mark.parametrize("objective", ["accuracy", "accuracy,size"])
def test_a_start_reads_each_trial_once(tmp_path: Path, objective: str) -> None:
    plan = plan_search(
        check_request(
            SearchRequest(
                *(3000, N_EPOCHS, 2 * N_TRIALS),
                dataset="digits",
                space="standard",
                storage=f"sqlite:///{tmp_path / 'studies.db'}",
                objective=objective,
                confirm=False,
            )
        )
    )
    size = {"budget_share": 0.5} if "size" in objective else {}
    with begin_search(plan) as search:
        for number in range(N_TRIALS):
            n_epochs = N_EPOCHS if number % 2 else 2
            trial = MadeTrial(
                [0.5 + 0.01 * epoch + 0.0001 * number for epoch in range(n_epochs)],
                TrialState.COMPLETE if number % 2 else TrialState.PRUNED,
                {"learning_rate": 0.02 + 0.001 * number, **size},
            )
            n_objectives = len(search.study.directions)
            add_as_ours(search.study, [trial.frozen(plan.space, 3000, n_objectives)])
    n_epochs = sum(N_EPOCHS if number % 2 else 2 for number in range(N_TRIALS))
    told: list[SearchEvent] = []
    profile, pool = cProfile.Profile(), OneWorker()

    n_before = len(_KNOWN)
    with profile, noted_collections() as n_parsed, begin_search(plan) as search:
        n_parsed_by_then = n_parsed[:]
        assert gc.get_freeze_count() > 0
        outcome = Coordinator(
            search.study,
            pool,
            length=StudyLength(2 * N_TRIALS),
            n_validation=search.n_validation,
            seed=0,
            device="cpu",
            listener=told.append,
            should_stop=lambda: pool.n_idle == 0,
            is_time_over=lambda: False,
            sharing=search.sharing,
            known=search.ended_before,
        ).run()

    assert outcome is Outcome.INTERRUPTED
    assert [type(event) for event in told] == [TrialStarted]
    # The few more are of the trial that was started, and waits again in the end.
    assert 2 * N_TRIALS <= _n_calls(profile, _local) < 2 * N_TRIALS + 20  # two times of each
    assert N_TRIALS <= _n_calls(profile, TrialRecord._parse) < N_TRIALS + 20
    assert _n_calls(profile, _is_epoch) == n_epochs
    # Nor does Python look for garbage among them while they are read, or as long as they stay.
    assert not [n for n in n_parsed_by_then if n_before < n < n_before + N_TRIALS]
    assert gc.get_freeze_count() == 0


@contextmanager
def noted_collections() -> Iterator[list[int]]:
    """At each collection of garbage, which are many here, how many records were parsed by then."""
    noted: list[int] = []

    def note(phase: str, info: dict[str, int]) -> None:
        noted.append(len(_KNOWN))

    usual = gc.get_threshold()
    gc.set_threshold(20, 10**6, 10**6)  # of the youngest alone, which are few
    gc.callbacks.append(note)
    try:
        yield noted
    finally:
        gc.callbacks.remove(note)
        gc.set_threshold(*usual)


def _n_calls(profile: cProfile.Profile, function: object) -> int:
    code = function.__code__  # type: ignore[attr-defined]
    where = (code.co_filename, code.co_firstlineno, code.co_name)
    found = pstats.Stats(profile).stats.get(where)  # type: ignore[attr-defined]
    return 0 if found is None else int(found[1])
