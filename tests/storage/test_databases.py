"""What holds on SQLite and on a real PostgreSQL server alike, and a server that goes away."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import optuna
import psutil
import psycopg
import pytest
from optuna.distributions import FloatDistribution
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from sqlalchemy import event, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import PoolProxiedConnection

from search.exceptions import DatabaseError, StorageError, StorageUnreachableError
from search.storage.checks import has_studies
from search.storage.errors import cannot_open
from search.storage.open import opened_storage
from search.storage.retry import Waiting
from search.storage.urls import shown_url
from search.study.history import run_records
from search.tuner.options import SearchRequest
from search.tuner.preflight import check_search
from search.tuner.request import check_request
from tests.conftest import DIGITS_RUN, Command, alive, run_here, wait_until
from tests.support.prepared import preparation
from tests.support.servers import PASSWORD, Postgres, shown

NAME = "digits-3000x3"
SECRETS = (PASSWORD, "hunter2", "hunter2%20")


@contextmanager
def plain_optuna(url: str) -> Iterator[RDBStorage]:
    storage = RDBStorage(url)
    try:
        yield storage
    finally:
        storage.remove_session()
        storage.engine.dispose()


def states(url: str, name: str) -> list[TrialState]:
    """The states of a study's trials; none without it."""
    with opened_storage(url) as storage:
        if name not in optuna.get_all_study_names(storage):
            return []
        return [trial.state for trial in optuna.load_study(study_name=name, storage=storage).trials]


@contextmanager
def stopped(server: Postgres) -> Iterator[None]:
    """A server that is away for as long as the context lasts."""
    server.stop()
    try:
        yield
    finally:
        server.start()


def test_a_database_is_made_opened_again_and_read_by_plain_optuna(database_url: str) -> None:
    with opened_storage(database_url, create=True) as storage:
        study = optuna.create_study(study_name="s", storage=storage)
        trial = study.ask()
        trial.suggest_float("x", 0, 1)
        trial.report(0.25, step=1)
        trial.set_user_attr("epochs", [{"epoch": 1}])
        study.tell(trial, 0.5)
    with opened_storage(database_url) as storage:
        (kept,) = optuna.load_study(study_name="s", storage=storage).trials
    assert (kept.value, kept.intermediate_values) == (0.5, {1: 0.25})
    assert kept.user_attrs == {"epochs": [{"epoch": 1}]}
    with plain_optuna(database_url) as storage:
        assert optuna.load_study(study_name="s", storage=storage).best_value == 0.5


def test_nothing_is_made_where_nothing_is_to_be_created(database_url: str) -> None:
    assert not has_studies(database_url)
    with pytest.raises(StorageError), opened_storage(database_url):
        pass
    assert not has_studies(database_url)
    with opened_storage(database_url, create=True):
        pass
    assert has_studies(database_url)


def test_an_older_schema_is_refused_naming_the_command_that_upgrades_it(database_url: str) -> None:
    with opened_storage(database_url, create=True) as storage, storage.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'v3.0.0.d'")
    with (
        pytest.raises(StorageError, match="optuna storage upgrade --storage"),
        opened_storage(database_url, create=True),
    ):
        pass


def test_two_processes_write_to_two_studies_of_one_database(database_url: str) -> None:
    code = (
        "import optuna, sys\n"
        "from search.storage.open import opened_storage\n"
        "with opened_storage(sys.argv[1], create=True) as storage:\n"
        "    study = optuna.load_study(study_name=sys.argv[2], storage=storage)\n"
        "    for number in range(15):\n"
        "        trial = study.ask()\n"
        "        trial.set_user_attr('number', number)\n"
        "        study.tell(trial, 1.0)\n"
    )
    with opened_storage(database_url, create=True) as storage:
        for name in "ab":
            optuna.create_study(study_name=name, storage=storage)
    writers = [preparation().start(["-c", code, database_url, name]) for name in "ab"]
    errors = [writer.communicate()[1] for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0], errors
    for name in "ab":
        assert states(database_url, name) == [TrialState.COMPLETE] * 15


def test_a_search_on_postgresql_is_killed_and_goes_on(
    command: Command, postgres: Postgres, capsys: pytest.CaptureFixture[str]
) -> None:
    url = shown(postgres.guarded_url(postgres.new_database()))
    options = (*DIGITS_RUN, "--storage", url, "--workers", "2", "--no-confirm")
    process = command.start(*options, "--trials", "400")
    wait_until(lambda: has_studies(url) and len(states(url, NAME)) >= 4)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_until(lambda: not alive(children))
    before = states(url, NAME)
    n_before = before.count(TrialState.COMPLETE)
    assert TrialState.RUNNING in before

    more = command(*options, "--trials", str(n_before + 2))
    assert more.code == 0, more.err
    assert "that a search left unfinished are queued again" in more.out
    after = states(url, NAME)
    assert after.count(TrialState.COMPLETE) == n_before + 2
    assert TrialState.RUNNING not in after
    assert after[: len(before)].count(TrialState.COMPLETE) == n_before
    assert run_here("best", "--storage", url) == 0

    with opened_storage(url) as storage:
        study = optuna.load_study(study_name=NAME, storage=storage)
        kept = str([study.user_attrs, study._storage.get_all_studies(), run_records(study)])
        kept += str([(trial.user_attrs, trial.system_attrs) for trial in study.trials])
    shown_texts = (more.out, more.err, capsys.readouterr().out, kept)
    assert "***" in more.out
    assert not [secret for text in shown_texts for secret in SECRETS if secret in text]


def test_a_search_waits_for_a_postgresql_server_that_restarts_and_loses_nothing(
    command: Command, postgres: Postgres
) -> None:
    url = shown(postgres.guarded_url(postgres.new_database()))
    process = command.start(
        *(*DIGITS_RUN, "--epochs", "10", "--trials", "8"),
        *("--storage", url, "--workers", "2", "--no-confirm"),
    )
    lines: list[str] = []
    stream = process.stdout
    reader = threading.Thread(target=lambda: lines.extend(stream))
    reader.start()

    def wait_for_more(text: str, n: int) -> None:
        n_before = sum(text in line for line in lines)
        wait_until(lambda: sum(text in line for line in lines) >= n_before + n)

    n_restarts = 2
    for _ in range(n_restarts):  # each at another moment of a trial
        wait_for_more("] trial", 1)
        with ThreadPoolExecutor() as executor:
            is_noticed = executor.submit(wait_for_more, "waiting for it", 1)
            with stopped(postgres):
                is_noticed.result()
    assert process.wait() == 0, lines
    reader.join()
    output = "".join(lines)
    assert output.count("The database answers again") >= n_restarts
    assert "error ignored" not in output  # psycopg's own words
    assert logging.getLogger("psycopg").handlers
    assert not [secret for secret in SECRETS if secret in output]
    assert "Traceback" not in output
    with plain_optuna(url) as storage:
        trials = optuna.load_study(study_name="digits-3000x10", storage=storage).trials
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 8
    for trial in trials:
        assert [epoch["epoch"] for epoch in trial.user_attrs["epochs"]] == list(range(1, 11))
        assert sorted(trial.intermediate_values) == list(range(1, 11))
    assert len({str(trial.params) for trial in trials}) == 8


def test_a_server_that_stays_away_is_waited_for_only_so_long(postgres: Postgres) -> None:
    url = shown(postgres.guarded_url(postgres.new_database()))
    notices: list[str] = []
    with opened_storage(
        url, create=True, waiting=Waiting(limit_seconds=1, notice=notices.append)
    ) as storage:
        study = optuna.create_study(study_name="s", storage=storage)
        trial = study.ask()
        with stopped(postgres):
            started = time.monotonic()
            with pytest.raises(DatabaseError, match="must answer while it is used") as caught:
                trial.set_user_attr("epochs", [])
            assert time.monotonic() - started >= 1
            with pytest.raises(DatabaseError):
                study.tell(trial, 1.0)
        study.tell(trial, 1.0)  # it is back
        assert len(notices) == 1  # nobody waits twice
        with stopped(postgres), pytest.raises(DatabaseError):
            study.ask()
    assert states(shown(postgres.url(url.rsplit("/", 1)[1].split("?")[0])), "s") == [
        TrialState.COMPLETE
    ]
    assert len(notices) == 2  # the next time that it is away, it is waited for again
    for notice in notices:
        assert "for at most 1 s" in notice
        assert not [secret for secret in SECRETS if secret in notice + str(caught.value)]


@contextmanager
def answer_lost_once(storage: RDBStorage) -> Iterator[None]:
    """The connection breaks behind the next commit of a change, whose answer does not come."""
    dialect = storage.engine.dialect
    commit = dialect.do_commit
    wrote = has_lost = False

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        nonlocal wrote
        wrote = wrote or statement.startswith(("INSERT", "UPDATE"))

    def lose(connection: PoolProxiedConnection) -> None:
        nonlocal has_lost
        commit(connection)
        if wrote and not has_lost:
            has_lost = True
            assert connection.dbapi_connection is not None
            connection.dbapi_connection.close()
            raise psycopg.OperationalError("server closed the connection unexpectedly")

    event.listen(storage.engine, "before_cursor_execute", note)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dialect, "do_commit", lose)
        yield
    event.remove(storage.engine, "before_cursor_execute", note)
    assert has_lost


def test_what_was_committed_without_an_answer_is_not_done_twice(postgres: Postgres) -> None:
    url = shown(postgres.url(postgres.new_database()))
    with opened_storage(url, create=True, waiting=Waiting(limit_seconds=600)) as storage:
        study = optuna.create_study(study_name="s", storage=storage)
        with answer_lost_once(storage):
            study.enqueue_trial({"x": 1})
        assert [trial.state for trial in study.trials] == [TrialState.WAITING]
        trial = study.ask()
        with answer_lost_once(storage):
            study.tell(trial, 0.5)
        assert [trial.value for trial in study.trials] == [0.5]


def test_a_wait_ends_when_it_is_asked_to(postgres: Postgres) -> None:
    url = shown(postgres.url(postgres.new_database()))
    stop = threading.Event()
    forever = 1e9
    waiting = Waiting(limit_seconds=forever, notice=lambda _: stop.set(), should_stop=stop.is_set)
    with opened_storage(url, create=True, waiting=waiting) as storage:
        study = optuna.create_study(study_name="s", storage=storage)
        with stopped(postgres), pytest.raises(DatabaseError):
            study.ask()


def test_a_search_that_waits_stops_on_a_signal(command: Command, postgres: Postgres) -> None:
    url = shown(postgres.url(postgres.new_database()))
    options = (*DIGITS_RUN, "--epochs", "400", "--workers", "1")
    process = command.start(*options, "--storage", url)
    wait_until(lambda: has_studies(url) and bool(states(url, "digits-3000x400")))
    with stopped(postgres):
        assert any("waiting for it" in line for line in process.stdout)
        os.killpg(process.pid, signal.SIGTERM)
        assert process.wait() == 1
    output = process.stdout.read()
    assert "must answer while it is used" in output
    assert "Traceback" not in output


def test_a_stop_is_heard_while_a_server_hangs(command: Command, postgres: Postgres) -> None:
    """As behind a network that was cut: its system answers, and the server says nothing."""
    url = shown(postgres.url(postgres.new_database()))
    options = (*DIGITS_RUN, "--epochs", "400", "--workers", "1")
    process = command.start(*options, "--storage", url)
    wait_until(lambda: has_studies(url) and bool(states(url, "digits-3000x400")))
    workers = psutil.Process(process.pid).children(recursive=True)
    with postgres.hanging():
        assert any("has not answered for 20 s; waiting for it" in line for line in process.stdout)
    assert any("The database answers again" in line for line in process.stdout)
    with postgres.hanging():
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate()
    assert process.returncode == 130, out
    assert "Interrupted, while the database did not answer" in out
    wait_until(lambda: not alive(workers))


def test_a_queues_server_hears_a_stop_while_that_of_its_database_hangs(
    command: Command, postgres: Postgres
) -> None:
    url = shown(postgres.url(postgres.new_database()))
    process = command.start("serve", "--port", "0", "--storage", url)
    assert any("Ctrl-C ends the server" in line for line in process.stdout)
    with postgres.hanging():
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate()
    # It may have asked for nothing just then.
    assert (process.returncode, "Interrupted, while" in out) in ((0, False), (130, True)), out


@pytest.mark.parametrize(
    "query", [{}, {"password": "hunter2 wrong&%/:@"}, {"sslpassword": "hunter2 x"}], ids=str
)
def test_no_error_of_a_server_repeats_a_password(
    query: dict[str, str], postgres: Postgres, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if query:
        wrong = postgres.url("postgres", username="guarded").update_query_dict(query)
    else:
        wrong = postgres.guarded_url("postgres", password="hunter2 wrong&%/:@")
    elsewhere = wrong.set(host="hunter2.invalid", port=1)
    nowhere = wrong.update_query_dict({"host": str(tmp_path)})
    for url in (shown(wrong), shown(elsewhere), shown(nowhere)):
        for arguments in (("studies",), ("best",), DIGITS_RUN, ("dashboard", "--port", "0")):
            assert run_here(*arguments, "--storage", url) == 2
            out, err = capsys.readouterr()
            assert "hunter2 " not in out + err
            assert "hunter2%20" not in out + err
            assert "cannot be opened" in err


def test_a_database_that_refuses_is_no_database_that_is_away(
    postgres: Postgres, tmp_path: Path
) -> None:
    password = postgres.guarded_url("postgres", password="wrong")
    for url in (password, postgres.url("none-of-this-name")):
        waiting = Waiting(60.0, from_start=True)
        with (
            pytest.raises(StorageError, match="FATAL") as told,
            opened_storage(shown(url), create=True, waiting=waiting),
        ):
            pass
        assert not told.value.is_temporary
    url = postgres.url("postgres").update_query_dict({"host": str(tmp_path)})
    with pytest.raises(StorageUnreachableError) as told, opened_storage(shown(url)):
        pass
    assert told.value.is_temporary
    # As a server says it whose process of another connection was killed.
    words = "connection to server failed: FATAL:  the database system is in recovery mode"
    recovers = OperationalError(None, None, psycopg.OperationalError(words))
    assert isinstance(cannot_open(url, recovers), StorageUnreachableError)


def _ended(postgres: Postgres, database: str) -> None:
    """Ends all connections to a database, as an administrator does."""
    ends = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
    postgres.query("postgres", f"{ends} AND datname = '{database}'")


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("DROP DATABASE {database} WITH (FORCE)", 'FATAL: +database "d.*" does not exist'),
        ("ALTER ROLE {role} PASSWORD 'another'", "FATAL: +password authentication failed"),
        ("ALTER ROLE {role} NOLOGIN", "FATAL: +role .* is not permitted to log in"),
    ],
    ids=["dropped", "password", "no login"],
)
def test_a_server_that_takes_a_database_away_is_not_waited_for(
    statement: str, reason: str, postgres: Postgres
) -> None:
    database = postgres.new_database()
    role = f"of_{database}"
    options = f"LOGIN SUPERUSER IN ROLE guarded PASSWORD '{PASSWORD}'"
    postgres.administer(f"CREATE ROLE {role} {options}")
    url = shown(postgres.url(database, username=role, password=PASSWORD))
    notices: list[str] = []
    waiting = Waiting(limit_seconds=600, notice=notices.append)
    with opened_storage(url, create=True, waiting=waiting) as storage:
        study = optuna.create_study(study_name="s", storage=storage)
        postgres.administer(statement.format(database=database, role=role))
        _ended(postgres, database)
        with pytest.raises(DatabaseError, match=reason):
            study.ask()
    assert not notices


def test_a_server_without_a_connection_left_is_away_for_a_while(postgres: Postgres) -> None:
    postgres.administer("CREATE ROLE crowded LOGIN CONNECTION LIMIT 0")
    url = shown(postgres.url("postgres", username="crowded"))
    with pytest.raises(StorageUnreachableError, match="too many"), opened_storage(url):
        pass


@pytest.mark.parametrize("is_made", [False, True], ids=["new", "made"])
@pytest.mark.parametrize(
    ("rights", "why"),
    [
        ("REVOKE CREATE ON SCHEMA public FROM PUBLIC", "this user may only read there"),
        (
            "ALTER DATABASE {database} SET default_transaction_read_only = on",
            "its transactions are read-only",
        ),
    ],
    ids=["rights", "read-only"],
)
def test_a_database_that_takes_nothing_of_this_user_is_told_before_anything_is_loaded(
    rights: str, why: str, is_made: bool, postgres: Postgres
) -> None:
    database = postgres.new_database()
    if is_made:
        with opened_storage(shown(postgres.url(database)), create=True) as storage:
            optuna.create_study(study_name="s", storage=storage)
        postgres.query(database, "GRANT SELECT ON ALL TABLES IN SCHEMA public TO PUBLIC")
    role = f"of_{database}"
    postgres.administer(f"CREATE ROLE {role} LOGIN")
    postgres.query(database, rights.format(database=database))
    url = shown(postgres.url(database, username=role))
    request = SearchRequest(dataset="digits", budget=3000, epochs=3, storage=url)
    with pytest.raises(StorageError, match=f"must take what is written.*{why}"):
        check_search(check_request(request))
    if is_made:
        with pytest.raises(StorageError, match=why), opened_storage(url, write=True):
            pass
        with opened_storage(url) as storage:
            assert optuna.get_all_study_names(storage) == ["s"]


def test_hosts_share_a_database_whose_transactions_are_serializable(postgres: Postgres) -> None:
    database = postgres.new_database()
    how = "SET default_transaction_isolation = 'serializable'"
    postgres.administer(f"ALTER DATABASE {database} {how}")
    url = shown(postgres.url(database))
    n_hosts, n_trials = 3, 8

    def search_alone() -> None:
        with opened_storage(url, write=True) as storage:
            study = optuna.load_study(study_name="s", storage=storage)
            for _ in range(n_trials):
                study.tell(study.ask({"x": FloatDistribution(0.0, 1.0)}), 0.5)

    with opened_storage(url, create=True) as storage:
        optuna.create_study(study_name="s", storage=storage)
    with ThreadPoolExecutor(n_hosts) as executor:
        for host in [executor.submit(search_alone) for _ in range(n_hosts)]:
            host.result()
    assert states(url, "s") == [TrialState.COMPLETE] * n_hosts * n_trials


def test_a_url_is_shown_without_the_passwords_in_its_query() -> None:
    url = "postgresql+psycopg://user:a%20b@host/db?password=hunter2&sslpassword=hunter2&sslmode=x"
    assert shown_url(url) == (
        "postgresql+psycopg://user:***@host/db?password=***&sslmode=x&sslpassword=***"
    )


def test_a_process_that_is_stopped_in_a_transaction_keeps_others_waiting_only_so_long(
    postgres: Postgres,
) -> None:
    url = shown(postgres.url(postgres.new_database()))
    with opened_storage(url, create=True) as storage, storage.engine.connect() as connection:
        longest = connection.scalar(text("SHOW idle_in_transaction_session_timeout"))
    assert longest == "15s"
