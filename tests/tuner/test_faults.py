"""What goes wrong on real machines, made to happen: real workers killed, hung, out of memory."""

from __future__ import annotations

import resource
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from queue import Queue
from typing import Any

import optuna
import psutil
import pytest
from optuna.trial import FrozenTrial, TrialState

from search.data.mapped import DatasetFiles, dataset_files
from search.exceptions import SpaceError, StudyDeletedError, TrainingError
from search.report.dashboard import serve
from search.storage.open import opened_storage
from search.study.open import open_study
from search.study.summary import is_trained
from search.tuner.coordinator import Coordinator
from search.tuner.events import SearchEvent, TrialEnded, TrialEpoch, TrialStarted
from search.tuner.options import SearchRequest
from search.tuner.plan import SearchPlan, plan_search
from search.tuner.request import check_request
from search.tuner.session import begin_search
from search.workers.local_pool import LocalWorkerPool
from tests.support.prepared import HANG_SECONDS
from tests.support.servers import call, trials_at

NAME = "faulty"
LONG = 40  # epochs: enough for something to happen to a trial while it trains


def workers() -> list[psutil.Process]:
    """The training processes of this process's pool: forked by the server that it started."""
    own = psutil.Process()
    return [child for child in own.children(recursive=True) if child.ppid() != own.pid]


def is_stopped(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    except psutil.NoSuchProcess:
        return False


class WatchingPool(LocalWorkerPool):
    """Takes down the limits that it is told, and waits for none of them beside a stopped worker."""

    def __init__(self, n_workers: int, files: DatasetFiles) -> None:
        super().__init__(n_workers, files)
        self.limits: list[float] = []

    def kill_overdue(self, limit_seconds: float) -> None:
        self.limits.append(limit_seconds)
        is_hanging = any(map(is_stopped, self.pids))
        super().kill_overdue(0.0 if is_hanging else limit_seconds)


class Here:
    """A search in this process, on the digits with one worker, whose events a test answers."""

    def __init__(self, folder: Path) -> None:
        self.url = f"sqlite:///{folder / 'studies.db'}"
        self.events: list[SearchEvent] = []

    def search(
        self,
        answer: Callable[[SearchEvent], None] = lambda event: None,
        *,
        queue: list[dict[str, Any]] | None = None,
        **options: Any,
    ) -> list[FrozenTrial]:
        """Searches to the end; returns the trials."""

        def listener(event: SearchEvent) -> None:
            self.events.append(event)
            answer(event)

        with begin_search(self.plan(**options)) as search:
            for values in queue or []:
                search.study.enqueue_trial(values)
            search.run(listener, should_stop=lambda: False)
        return self.trials()

    def watch(
        self,
        answer: Callable[[SearchEvent], None] = lambda event: None,
        *,
        should_stop: Callable[[list[float]], bool] = lambda limits: False,
        is_time_over: Callable[[], bool] = lambda: False,
        **options: Any,
    ) -> list[float]:
        """Searches until one of these ends it; returns the limits that a trial's time had."""

        def listener(event: SearchEvent) -> None:
            self.events.append(event)
            answer(event)

        plan = self.plan(**options)
        with (
            begin_search(plan) as search,
            dataset_files(plan.dataset, with_test=False) as files,
            WatchingPool(1, files) as pool,
        ):
            Coordinator(
                search.study,
                pool,
                length=plan.length,
                n_validation=search.n_validation,
                seed=0,
                device="cpu",
                listener=listener,
                should_stop=lambda: should_stop(pool.limits),
                is_time_over=is_time_over,
                trial_timeout_seconds=plan.request.trial_timeout_seconds,
                sharing=search.sharing,
            ).run()
        return pool.limits

    def plan(self, **options: Any) -> SearchPlan:
        wanted = {"budget": 3000, "epochs": 3, "n_trials": 2, "pruner": "none", "n_workers": 1}
        wanted |= {"dataset": "digits", "study": NAME, "storage": self.url, "confirm": False}
        wanted |= {"space": "standard"}  # of large batches, which trains fastest
        return plan_search(check_request(SearchRequest(**{**wanted, **options})))

    def trials(self) -> list[FrozenTrial]:
        with opened_storage(self.url) as storage:
            return open_study(storage, NAME).trials

    def ended(self, number: int) -> TrialEnded:
        """How a trial ended, as a person was told."""
        (end,) = (e for e in self.events if isinstance(e, TrialEnded) and e.number == number)
        return end


@pytest.fixture
def here(tmp_path: Path) -> Here:
    return Here(tmp_path)


def at_first_epoch_of(
    *numbers: int, do: Callable[[psutil.Process], object]
) -> Callable[[SearchEvent], None]:
    """Does something to the worker of each of these trials once it has trained an epoch."""

    def answer(event: SearchEvent) -> None:
        if isinstance(event, TrialEpoch) and event.number in numbers and event.result.epoch == 1:
            (worker,) = workers()
            do(worker)

    return answer


@pytest.mark.parametrize(
    ("do", "reason"),
    [
        (psutil.Process.kill, "SIGKILL, perhaps for lack of memory"),
        (lambda worker: worker.send_signal(signal.SIGSEGV), "SIGSEGV"),
    ],
    ids=["killed", "native crash"],
)
def test_a_worker_that_dies_costs_its_trial_which_is_queued_again_once(
    here: Here, do: Callable[[psutil.Process], object], reason: str
) -> None:
    failed, repeated = here.search(at_first_epoch_of(0, do=do), epochs=LONG, n_trials=1)
    assert failed.state == TrialState.FAIL
    assert reason in failed.user_attrs["reason"]
    assert here.ended(0).reason == failed.user_attrs["reason"]
    assert here.ended(0).is_requeued
    assert repeated.state == TrialState.COMPLETE
    assert repeated.params == failed.params
    assert (repeated.user_attrs["repeats"], repeated.user_attrs["crashes"]) == (0, 1)
    assert repeated.user_attrs["training_seed"] == failed.user_attrs["training_seed"]
    assert not workers()


def test_a_worker_that_runs_out_of_memory_costs_its_trial_which_is_queued_again_once(
    here: Here,
) -> None:
    def answer(event: SearchEvent) -> None:
        if isinstance(event, TrialEnded) and event.number == 0:
            (worker,) = workers()
            worker.rlimit(resource.RLIMIT_AS, (1, resource.RLIM_INFINITY))

    first, failed, repeated = here.search(answer)
    assert (first.state, repeated.state) == (TrialState.COMPLETE, TrialState.COMPLETE)
    assert failed.state == TrialState.FAIL
    assert "its worker process ran out of memory" in failed.user_attrs["reason"]
    assert here.ended(1).is_requeued
    assert (repeated.params, repeated.user_attrs["crashes"]) == (failed.params, 1)


def test_a_configuration_that_kills_two_workers_is_not_tried_a_third_time(here: Here) -> None:
    kill = at_first_epoch_of(0, 1, do=psutil.Process.kill)
    trials = here.search(kill, epochs=LONG, n_trials=1)
    assert [trial.state for trial in trials] == [TrialState.FAIL] * 2 + [TrialState.COMPLETE]
    assert [trial.params == trials[0].params for trial in trials] == [True, True, False]
    assert (here.ended(0).is_requeued, here.ended(1).is_requeued) == (True, False)


def hang(worker: psutil.Process) -> None:
    worker.suspend()


def hang_without_server(worker: psutil.Process) -> None:
    server = worker.parent()
    assert server is not None
    worker.suspend()
    server.kill()


@pytest.mark.parametrize("do", [hang, hang_without_server])
def test_a_worker_that_hangs_is_ended_as_a_dead_one(
    here: Here, do: Callable[[psutil.Process], None]
) -> None:
    answer = at_first_epoch_of(0, do=do)
    limits = here.watch(answer, epochs=LONG, n_trials=1, trial_timeout_seconds=600.0)
    assert set(limits) == {600.0}
    hung, repeated = here.trials()
    assert hung.state == TrialState.FAIL
    assert "s, the time limit of a trial" in hung.user_attrs["reason"]
    assert repeated.state == TrialState.COMPLETE
    assert repeated.params == hung.params
    assert repeated.user_attrs["crashes"] == 1
    assert not workers()


def test_a_worker_that_dies_before_it_has_its_trial_costs_nothing(here: Here) -> None:
    def answer(event: SearchEvent) -> None:
        if isinstance(event, TrialEnded) and event.number == 0:
            (worker,) = workers()
            worker.kill()  # which the search hears of once it has given it the next trial
            psutil.wait_procs([worker])

    assert [trial.state for trial in here.search(answer)] == [TrialState.COMPLETE] * 2


def test_a_fault_of_the_machine_is_not_blamed_on_the_trial(here: Here, tmp_path: Path) -> None:
    log = tmp_path / "log"

    def answer(event: SearchEvent) -> None:
        if isinstance(event, TrialEnded) and event.number == 0:
            shutil.rmtree(log)  # where the worker writes

    with pytest.raises(TrainingError, match="The machine must let trials train"):
        here.search(answer, worker_log=log)
    trials = here.search(worker_log=log)
    complete, fail = TrialState.COMPLETE, TrialState.FAIL
    assert [trial.state for trial in trials] == [complete, fail, complete]
    assert trials[1].user_attrs["reason"] == "interrupted"
    assert trials[2].params == trials[1].params


@pytest.mark.parametrize("epochs", [1, 100_000])
def test_a_trial_may_take_ten_times_what_the_slowest_would_and_a_minute_at_least(
    here: Here, epochs: int
) -> None:
    limits = here.watch(epochs=epochs, should_stop=lambda limits: len(limits) > 2)
    seconds = [event.result.seconds for event in here.events if isinstance(event, TrialEpoch)]
    least, most = (max(60, 10 * epochs * bound(seconds)) for bound in (min, max))
    assert limits
    assert all(least <= limit <= most for limit in limits)


def test_time_that_is_over_puts_back_what_runs(here: Here) -> None:
    here.watch(
        epochs=100_000,
        is_time_over=lambda: any(isinstance(event, TrialEpoch) for event in here.events),
    )
    stopped, queued = here.trials()
    assert (stopped.state, queued.state) == (TrialState.FAIL, TrialState.WAITING)
    assert queued.user_attrs["repeats"] == stopped.number


@pytest.fixture
def dashboard(here: Here) -> str:
    """The address of optuna-dashboard on the search's database, once that exists."""
    addresses: Queue[str] = Queue()
    with opened_storage(here.url, create=True):
        pass
    options = {"port": 0, "announce": addresses.put}
    threading.Thread(target=serve, args=(here.url,), kwargs=options, daemon=True).start()
    return addresses.get(timeout=HANG_SECONDS)


def test_trials_that_a_person_fails_in_the_dashboard_are_left_so_and_the_search_goes_on(
    here: Here, dashboard: str
) -> None:
    def answer(event: SearchEvent) -> None:
        if isinstance(event, TrialEpoch) and event.number == 0 and event.result.epoch == 1:
            running, waiting, *_ = trials_at(dashboard)
            assert (running["state"], waiting["state"]) == ("Running", "Waiting")
            for trial in (running, waiting):
                call(f"{dashboard}api/trials/{trial['trial_id']}/tell", {"state": "Fail"})

    trials = here.search(answer, queue=[{"momentum": 0.9}, {"momentum": 0.91}], epochs=LONG)
    states = [trial.state for trial in trials]
    assert states == [TrialState.FAIL] * 2 + [TrialState.COMPLETE] * 2
    assert here.ended(0).reason == "ended or deleted by somebody else"
    assert "reason" not in trials[0].user_attrs
    assert not [e for e in here.events if isinstance(e, TrialStarted) and e.number == 1]
    assert not [trial for trial in trials if "repeats" in trial.user_attrs]


def test_a_study_that_is_deleted_in_the_dashboard_ends_the_search(
    here: Here, dashboard: str
) -> None:
    def answer(event: SearchEvent) -> None:
        if isinstance(event, TrialEpoch):
            (study,) = call(f"{dashboard}api/studies")["study_summaries"]
            call(f"{dashboard}api/studies/{study['study_id']}", {}, method="DELETE")

    with pytest.raises(StudyDeletedError, match="'faulty' was deleted"):
        here.search(answer)
    assert not workers()


def test_a_search_does_not_go_on_in_a_study_made_in_the_place_of_its_own(here: Here) -> None:
    def make_anew(event: SearchEvent) -> None:
        if isinstance(event, TrialEpoch):
            optuna.delete_study(study_name=NAME, storage=here.url)
            optuna.create_study(study_name=NAME, storage=here.url, direction="maximize")

    with pytest.raises(StudyDeletedError, match="'faulty' was deleted"):
        here.search(make_anew)
    assert not here.trials()


def test_a_study_that_is_deleted_while_nothing_trains_ends_the_search_as_well(here: Here) -> None:
    def confirm_what_is_deleted() -> None:
        with begin_search(here.plan(confirm=True)) as search:
            optuna.delete_study(study_name=NAME, storage=here.url)
            with search.hold_race(lambda: False):
                pass

    with pytest.raises(StudyDeletedError, match="'faulty' was deleted"):
        confirm_what_is_deleted()


def test_batches_larger_than_the_data_fail_their_trials_alone(here: Here, tmp_path: Path) -> None:
    """As they may be drawn in a study that an earlier version began."""
    space = tmp_path / "space.toml"
    space.write_text("batch_size = [64, 128]\n")
    with begin_search(here.plan(space=str(space))) as search:
        settings = search.study.user_attrs["settings"]
        settings["space"]["batch_size"] = [64, 5000]
        search.study.set_user_attr("settings", settings)
    space.write_text("batch_size = [64, 5000]\n")
    trials = here.search(n_trials=4, space=str(space), sampler="random")
    failed = [trial for trial in trials if trial.state == TrialState.FAIL]
    trained = [trial for trial in trials if is_trained(trial)]
    assert (len(trained), len(trained) + len(failed)) == (4, len(trials))
    assert failed
    for trial in failed:
        assert trial.params["batch_size"] == 5000
        assert "A batch must not be larger than the training set" in trial.user_attrs["reason"]
    assert not [trial for trial in trials if "repeats" in trial.user_attrs]


def test_networks_that_cannot_be_built_fail_their_trials_and_ten_in_a_row_end_the_search(
    here: Here, tmp_path: Path
) -> None:
    good, deep = "c3, pool, c3, gap, out", ", ".join(["c3, pool"] * 4 + ["gap, out"])
    space = tmp_path / "space.toml"
    space.write_text(f'topology = ["{good}", "{deep}"]\n')
    with pytest.raises(SpaceError, match="topology: "):  # no pixel is left for its last pooling
        here.search(space=str(space))
    space.write_text(f'topology = ["{good}", "c3, gap, out"]\n')
    queue = [{"topology": deep, "momentum": 0.9 + k / 1000} for k in range(13)]
    first, failed, second = here.search(queue=queue[:1], space=str(space))
    assert (first.state, second.state) == (TrialState.COMPLETE, TrialState.COMPLETE)
    assert failed.state == TrialState.FAIL
    assert "topology = " in failed.user_attrs["reason"]
    with pytest.raises(TrainingError, match=r"10 in a row failed; the last one: .*Mend that"):
        here.search(queue=queue[1:], n_trials=4, space=str(space))
    states = [trial.state for trial in here.trials()[3:]]
    assert states == [TrialState.FAIL] * 10 + [TrialState.WAITING] * 2
