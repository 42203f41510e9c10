"""The queue of a database: what users and servers do with its jobs, on SQLite and PostgreSQL."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
import typer
from typer.testing import CliRunner

from search.cli.run_options import read_options, takes_options
from search.exceptions import InputError, JobError, StorageError
from search.service.channels import Channels
from search.service.claims import LEFT_SECONDS, MAX_DEATHS, Claims
from search.service.database import QueueDatabase, opened_database
from search.service.jobs import Job, JobProgress, JobState
from search.service.progress import EventReader, JobEnd
from search.service.queue import LOST_SECONDS, JobQueue, note_event
from search.service.submission import options_of, request_of, run_words
from search.service.tables import VERSION, jobs, servers, version
from search.tuner.options import SearchRequest, Target
from tests.conftest import wait_until
from tests.support.servers import Postgres, shown

OPTIONS = {"budget": 800, "epochs": 2}
KILLED = JobEnd(None, "its process was killed by SIGKILL")
AWAY = JobEnd(2, "away", is_temporary=True)


@pytest.fixture
def database(database_url: str) -> Iterator[QueueDatabase]:
    with opened_database(database_url, create=True) as database:
        yield database


@pytest.fixture
def queue(database: QueueDatabase) -> JobQueue:
    return JobQueue(database)


def submit(queue: JobQueue, n: int = 1, **options: Any) -> list[Job]:
    return [queue.submit({**OPTIONS, **options}, study=f"s{i}")[0] for i in range(n)]


def waiting(queue: JobQueue) -> list[int]:
    return [job.number for job in queue.page((JobState.WAITING,))]


def test_jobs_are_taken_in_the_order_of_the_queue_and_each_once(
    database: QueueDatabase, queue: JobQueue
) -> None:
    assert [job.number for job in submit(queue, 4)] == [1, 2, 3, 4]
    queue.move("3", first=True)
    queue.move("s0", first=False)
    assert waiting(queue) == [3, 2, 4, 1]
    first, second = (Claims(database, name) for name in ("first", "second"))
    taken = [first.take_next([]), second.take_next([4]), first.take_next([2, 3])]
    assert [job and job.number for job in taken] == [3, 2, 4]
    assert [job.number for job in first.own()] == [3, 4]
    assert second.take_next([1]) is None


def test_many_servers_at_once_take_each_job_once(database: QueueDatabase, queue: JobQueue) -> None:
    submit(queue, 40)
    taken: list[int] = []

    def take(name: str) -> None:
        claims = Claims(database, name)
        while (job := claims.take_next([])) is not None:
            taken.append(job.number)

    threads = [threading.Thread(target=take, args=(f"server {n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == list(range(1, 41))


def test_what_is_asked_of_a_job_depends_on_where_it_is(
    database: QueueDatabase, queue: JobQueue
) -> None:
    claims = Claims(database, "server")
    submit(queue, 3)
    assert claims.take_next([]) is not None
    with pytest.raises(JobError, match=r"must be stopped or have failed, but job 1 \(s0\) runs"):
        queue.resume("1")
    assert queue.stop("1").shown_state == "stopping"
    with pytest.raises(JobError, match="is still being stopped"):
        queue.resume("1")
    ended = claims.end(1, JobEnd(130, None), has_trained=True)
    assert (ended.state, ended.exit_code, ended.wanted) == (JobState.STOPPED, 130, None)
    assert queue.resume("s0").state is JobState.WAITING
    assert waiting(queue) == [2, 3, 1]
    assert queue.stop("2").state is JobState.STOPPED
    assert queue.cancel("2").state is JobState.CANCELLED
    with pytest.raises(JobError, match="must wait or run, but job 2"):
        queue.stop("2")
    with pytest.raises(JobError, match="must wait, but job 2"):
        queue.move("2", first=True)
    assert claims.take_next([]) is not None
    queue.cancel("3")
    assert claims.end(3, KILLED, has_trained=False).state is JobState.CANCELLED
    assert claims.take_next([]) is not None
    assert claims.end(1, JobEnd(0, None), has_trained=True).state is JobState.DONE
    with pytest.raises(JobError, match="is done; submit its search with more --trials"):
        queue.resume("1")
    for name in ("99", "nothing", "-1", "9" * 40, "9" * 5000, "a\0b", ""):
        with pytest.raises(JobError, match="there is no"):
            queue.find(name)
    states = [event.kind for event in queue.events_after(0) if event.job == 1]
    assert states == ["waiting", "running", "stopped", "waiting", "running", "done"]
    assert queue.events_after(queue.last_event()) == []


def test_a_search_that_dies_goes_first_and_is_given_up_once_it_trains_nothing(
    database: QueueDatabase, queue: JobQueue
) -> None:
    claims = Claims(database, "server")
    submit(queue, 2)
    for has_trained in (False, True, *[False] * (MAX_DEATHS - 2)):
        job = claims.take_next([])
        assert job is not None
        assert job.number == 1
        assert claims.end(1, KILLED, has_trained=has_trained).state is JobState.WAITING
        assert waiting(queue) == [1, 2]
    claims.take_next([])
    # The death of a server, or of the machine, is not the search's fault.
    assert claims.end(1, KILLED, has_trained=False, is_blamed=False).state is JobState.WAITING
    claims.take_next([])
    given_up = claims.end(1, KILLED, has_trained=False)
    assert given_up.state is JobState.FAILED
    assert given_up.reason == (
        f"{KILLED.reason}, {MAX_DEATHS} times without a trial trained in between"
    )
    claims.take_next([])
    assert claims.end(2, AWAY, has_trained=False).state is JobState.WAITING
    claims.take_next([])
    refused = claims.end(2, JobEnd(2, "A cap must be a number."), has_trained=False)
    assert (refused.state, refused.reason) == (JobState.FAILED, "A cap must be a number.")


def test_a_server_puts_away_only_what_is_its_own(database: QueueDatabase, queue: JobQueue) -> None:
    submit(queue)
    Claims(database, "first").take_next([])
    other = Claims(database, "second")
    assert other.end(1, JobEnd(0, None), has_trained=True).state is JobState.RUNNING
    other.heartbeat()
    other.heartbeat()
    assert queue.has_server()
    other.leave()
    assert not queue.has_server()


@pytest.mark.parametrize("direction", [-1, 1], ids=["silent", "clock set back"])
def test_the_jobs_of_a_server_that_falls_silent_are_another_s(
    database: QueueDatabase, queue: JobQueue, direction: int
) -> None:
    here, lost, left = (Claims(database, name) for name in ("here", "lost", "left"))
    submit(queue, 4)
    for claims in (here, lost, lost, left):
        claims.heartbeat()
        assert claims.take_next([]) is not None
    assert here.reclaim_lost() == []
    # Far ahead as well: the clock of the database was set back since then.
    silent = servers.update().values(heard=servers.c.heard + direction * 10 * LOST_SECONDS)
    database.write(lambda connection: connection.execute(silent))
    assert not queue.has_server()
    left.leave()  # on purpose: what it runs goes on
    here.heartbeat()
    assert [job.number for job in here.reclaim_lost()] == [3, 2]
    assert waiting(queue) == [2, 3]
    assert [job.number for job in left.own()] == [4]
    # Who only slept has nothing left to say of them.
    assert lost.own() == []
    assert lost.end(2, JobEnd(0, None), has_trained=True).state is JobState.WAITING
    assert [job and job.number for job in (here.take_next([]), here.take_next([]))] == [2, 3]
    # Who left long ago may never come back.
    gone = servers.update().where(servers.c.heard < 0)
    gone = gone.values(heard=servers.c.heard - direction * 10 * LEFT_SECONDS)
    database.write(lambda connection: connection.execute(gone))
    assert [job.number for job in here.reclaim_lost()] == [4]
    assert left.own() == []


def test_who_reads_the_events_misses_none_that_is_noted_late(
    database: QueueDatabase, queue: JobQueue
) -> None:
    if database.engine.name == "sqlite":
        return  # one writes at a time
    submit(queue, 2)
    is_noted, goes_on = threading.Event(), threading.Event()
    threads: list[threading.Thread] = []

    def note_slowly(connection: sqlalchemy.Connection) -> None:
        note_event(connection, 1, "slow")
        is_noted.set()
        goes_on.wait()

    def has_other() -> bool:
        """Whether the other event is there, or waits."""
        waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        n_waiting = database.read(lambda c: c.exec_driver_sql(waits).scalar_one())
        return n_waiting > 0 or not threads[1].is_alive()

    for write in (note_slowly, lambda connection: note_event(connection, 2, "quick")):
        threads.append(threading.Thread(target=database.write, args=(write,)))
        threads[-1].start()
        is_noted.wait()
    try:
        wait_until(has_other)
        seen = queue.events_after(0)
    finally:
        goes_on.set()
        for thread in threads:
            thread.join()
    seen += queue.events_after(seen[-1].number)
    assert [event.kind for event in seen[-2:]] == ["slow", "quick"]


def test_a_job_whose_server_is_away_on_postgresql_is_stopped_and_cancelled_at_once(
    postgres: Postgres,
) -> None:
    url = shown(postgres.guarded_url(postgres.new_database()))
    with opened_database(url, create=True) as database:
        queue, claims = JobQueue(database), Claims(database, "gone")
        submit(queue, 3)
        claims.heartbeat()
        for _ in range(3):
            assert claims.take_next([]) is not None
        claims.leave()
        assert queue.stop("1").shown_state == "stopping"  # it may be back in a moment
        away = servers.update().values(heard=servers.c.heard + LOST_SECONDS + 1)
        database.write(lambda connection: connection.execute(away))
        assert queue.resume("1").state is JobState.WAITING
        assert queue.stop("2").state is JobState.STOPPED
        assert queue.cancel("3").state is JobState.CANCELLED
        assert claims.own() == []


def test_who_reads_keeps_nobody_from_the_queue(tmp_path: Path) -> None:
    with opened_database(f"sqlite:///{tmp_path / 'own.db'}", create=True) as database:
        queue, claims = JobQueue(database), Claims(database, "only")
        submit(queue)
        with closing(sqlite3.connect(tmp_path / "own.db", isolation_level=None)) as reader:
            reader.execute("BEGIN")
            states = reader.execute("SELECT state FROM service_jobs").fetchall()
            submit(queue)
            assert claims.take_next([]) is not None
            claims.end(1, JobEnd(0, None), has_trained=True)
            assert reader.execute("SELECT state FROM service_jobs").fetchall() == states
        assert [job.state for job in queue.page()] == [JobState.WAITING, JobState.DONE]


def test_a_job_that_is_submitted_twice_with_a_key_is_one(queue: JobQueue) -> None:
    job, is_new = queue.submit(OPTIONS, key="once")
    assert (job.number, is_new) == (1, True)
    assert queue.submit(OPTIONS, key="once") == (job, False)
    with pytest.raises(JobError, match="A key must be given again with the same options"):
        queue.submit({**OPTIONS, "seed": 3}, key="once")
    assert queue.submit(OPTIONS)[0].number == 2


def test_a_study_that_is_called_as_a_number_is_no_job_of_that_number(queue: JobQueue) -> None:
    submit(queue)
    queue.submit(OPTIONS, study="1")
    channels = Channels(queue)
    of_job, of_study = channels.open(1), channels.open("1")
    assert of_job is not None
    assert of_study is not None
    wait_until(lambda: bool(of_job.after(0) and of_study.after(0)))
    assert [channel.after(0)[0][1]["number"] for channel in (of_job, of_study)] == [1, 2]
    queue.cancel("1")
    assert queue.stop_study("1").number == 2
    wait_until(lambda: of_job.is_over and of_study.is_over)
    states = [channel.after(0)[-1][1]["state"] for channel in (of_job, of_study)]
    assert states == ["cancelled", "stopped"]
    for name in ("2", "a\0b", "9" * 5000):
        with pytest.raises(JobError, match="there is no"):
            queue.stop_study(name)


def test_pages_follow_each_other(queue: JobQueue) -> None:
    jobs = submit(queue, 7)
    queue.cancel("4")
    queue.move("6", first=True)
    ends: list[Job] = queue.page(limit=3)
    following = queue.page(limit=10, after=ends[-1])
    assert [job.number for job in (*ends, *following)] == [7, 6, 5, 4, 3, 2, 1]
    page = queue.page((JobState.WAITING,), limit=2)
    rest = queue.page((JobState.WAITING,), limit=10, after=page[-1])
    assert [job.number for job in (*page, *rest)] == [6, 1, 2, 3, 5, 7]
    assert queue.count()[JobState.WAITING] == 6
    assert Job.from_json(jobs[0].to_json()) == jobs[0]


@pytest.mark.parametrize(
    ("change", "state"),
    [
        ({"state": "asleep"}, JobState.FAILED),
        ({"progress": '{"best_value": "high"}'}, JobState.WAITING),
        ({"progress": f'{{"best_value": {10**400}}}'}, JobState.WAITING),
        ({"progress": '{"n_trained": -1}'}, JobState.WAITING),
        ({"owner": '{"host": 3, "pid": -1}'}, JobState.WAITING),
        ({"submitted": "at noon"}, JobState.WAITING),
        ({"state": "running", "wanted": "tea", "server": "only"}, JobState.RUNNING),
    ],
)
def test_a_row_that_another_program_has_written_costs_no_other(
    database: QueueDatabase, queue: JobQueue, change: dict[str, Any], state: JobState
) -> None:
    other, job = submit(queue, 2)
    of_job = jobs.c.number == job.number
    database.write(lambda c: c.execute(sqlalchemy.update(jobs).where(of_job).values(**change)))

    found = queue.job(job.number)
    assert (found.state, found.progress, found.host) == (state, JobProgress(), None)
    assert found.wanted is None
    assert queue.job(other.number) == other
    assert queue.count()[JobState.WAITING] == 1 + (state is JobState.WAITING)
    ended = Claims(database, "only").end(job.number, JobEnd(0, None), has_trained=True)
    assert ended.state is (JobState.DONE if state is JobState.RUNNING else state)


def test_a_queue_of_another_version_is_refused(database_url: str) -> None:
    with opened_database(database_url, create=True) as database:
        database.write(lambda c: c.execute(version.update().values(version=VERSION + 1)))
    with (
        pytest.raises(StorageError, match=f"must be of version {VERSION}, but that of .* is of"),
        opened_database(database_url, create=False),
    ):
        pass


def test_two_processes_make_the_tables_at_once(database_url: str) -> None:
    failed: list[Exception] = []

    def open_it() -> None:
        try:
            with opened_database(database_url, create=True) as database:
                JobQueue(database).submit(OPTIONS)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    with opened_database(database_url, create=False) as database:
        assert sorted(waiting(JobQueue(database))) == [1, 2, 3, 4]  # at once, so in any order


def test_a_job_is_on_the_disk_once_it_is_queued(tmp_path: Path) -> None:
    with opened_database(f"sqlite:///{tmp_path / 'own.db'}", create=True) as database:
        found = database.read(lambda c: c.exec_driver_sql("PRAGMA synchronous").scalar())
    assert found == 2  # FULL: each commit waits for the disk


EVERYTHING = SearchRequest(
    budget=8000,
    epochs=15,
    space="standard",
    metric="balanced-accuracy",
    target=Target(99.4 / 100, 0.9),
    n_trials=7,
    timeout_seconds=5400.0,
    trial_timeout_seconds=90.0,
    patience=5,
    dataset="digits",
    image_size=(20, 60),
    data_dir=Path("/data"),
    study="-a b",
    n_workers=2,
    device="cpu",
    artifacts=Path("/kept"),
    lost_after_seconds=60.0,
    sampler="random",
    pruner="median",
    seed=3,
    from_study="other",
    worker_log=Path("/log"),
)


def test_the_words_of_a_job_are_the_command_that_asks_for_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All options of a search, so that none is forgotten when one is added."""
    monkeypatch.delenv("SEARCH_DATA_DIR", raising=False)
    found: list[SearchRequest] = []
    app = typer.Typer()

    @app.command()
    @takes_options
    def run(**options: Any) -> None:
        found.append(read_options(options)[0])

    several = (
        EVERYTHING,
        SearchRequest(8000, 15, engine="ray", ray_address="auto", resources="gpu=1"),
        SearchRequest(8000, 15, confirm=False, image_size=(32, 32), objective="accuracy,size"),
    )
    for request in several:
        options = options_of(request)
        assert request_of(options, request.storage) == request
        done = CliRunner().invoke(app, run_words(options)[1:])
        assert not done.exception, done.output
    assert found == list(several)
    given = {name for request in several for name in options_of(request)}
    # A file of networks is refused: a server runs no program of a client's.
    assert given == set(SearchRequest.__dataclass_fields__) - {"storage", "network"}


def test_an_option_that_there_is_not_is_refused() -> None:
    with pytest.raises(InputError, match="got 'epoch'; did you mean epochs"):
        request_of({"budget": 1, "epoch": 1}, "sqlite:///a.db")
    with pytest.raises(InputError, match="runs no program of a client's"):
        request_of({"budget": 1, "epochs": 1, "network": "net.py"}, "sqlite:///a.db")
    with pytest.raises(InputError, match="runs no program of a client's"):
        run_words({"budget": 1, "epochs": 1, "network": "net.py"})
    with pytest.raises(InputError, match="must be given epochs"):
        request_of({"budget": 1}, "sqlite:///a.db")


def test_what_a_killed_search_wrote_by_half_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "events"
    reader = EventReader(path)
    assert not reader.read()
    path.write_text(
        '{"event": "start", "attempt": 1}\n'
        '{"event": "search", "study": "a", "trials": 5, "trained": 1}\n'
        '{"event": "trial_end", "trial": 1, "state": "COMPLETE", "value": 0.9, "epochs": 2}\n'
        '{"event": "trial_e'
    )
    assert reader.read()
    assert (reader.study, reader.progress.n_trained, reader.has_trained) == ("a", 2, True)
    assert reader.end(-9, attempt=1).reason == "its process was killed by SIGKILL"
    assert reader.end(None, attempt=2).reason == "it was not started"
    with path.open("a") as file:
        file.write('\n{"event": "start", "attempt": 2}\n7\n')
        file.write('{"event": "end", "exit_code": 1, "error": "why"}\n')
    assert reader.end(None, attempt=2) == JobEnd(1, "why")
    assert not reader.has_trained
    with path.open("a") as file:
        file.write('{"event": "start", "attempt": 3}\n')
        file.write('{"event": "end", "exit_code": 2, "error": "away", "temporary": true}\n')
    assert reader.end(2, attempt=3) == AWAY


@pytest.mark.parametrize("states", [(JobState.WAITING,), tuple(JobState)], ids=["waiting", "all"])
def test_the_first_page_of_a_long_queue_reads_no_more_than_it_shows(
    tmp_path: Path, states: tuple[JobState, ...]
) -> None:
    asked: list[tuple[str, Any]] = []
    with opened_database(f"sqlite:///{tmp_path / 'own.db'}", create=True) as database:

        @sqlalchemy.event.listens_for(database.engine, "before_cursor_execute")
        def note(_1: Any, _2: Any, statement: str, values: Any, _3: Any, _4: Any) -> None:
            asked.append((statement, values))

        JobQueue(database).page(states)
        (statement, values) = asked[-1]
        assert statement.startswith("SELECT service_jobs")
        plan = database.read(
            lambda c: c.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values).all()
        )
    assert "service_jobs" in str(plan)
    assert "TEMP B-TREE" not in str(plan)  # which would sort all that there are
