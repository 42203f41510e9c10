"""Storages: real SQLite files, what is refused without a trace, and readers beside a writer."""

from __future__ import annotations

import importlib.util
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import optuna
import pytest
import sqlalchemy
from optuna.storages import RDBStorage

from search.exceptions import StorageError
from search.storage.backup import backup
from search.storage.checks import has_studies
from search.storage.open import opened_storage
from search.storage.urls import shown_url
from tests.conftest import read_only
from tests.support.prepared import preparation


def _url(path: Path) -> str:
    return f"sqlite:///{path}"


def _contents(folder: Path) -> dict[str, bytes | None]:
    """Every file and folder with its bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def _refusal(url: str, *, create: bool = True) -> str:
    with pytest.raises(StorageError) as caught, opened_storage(url, create=create):
        pass
    return str(caught.value)


def _query(path: Path, statement: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute(statement).fetchall()
        connection.commit()
        return rows


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A database with one study, made by this project and closed again."""
    path = tmp_path / "studies.db"
    with opened_storage(_url(path), create=True) as storage:
        optuna.create_study(study_name="s", storage=storage)
    return path


def test_a_new_file_is_in_wal_mode_and_has_optunas_tables(tmp_path: Path) -> None:
    path = tmp_path / "new.db"

    with opened_storage(_url(path), create=True) as storage, storage.engine.connect() as connection:
        modes = [
            connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "busy_timeout")
        ]
        tables = set(sqlalchemy.inspect(connection).get_table_names())

    assert modes == ["wal", 1, 60_000]
    assert {"studies", "trials", "alembic_version"} <= tables


def test_one_whole_file_remains_when_a_storage_is_closed(tmp_path: Path) -> None:
    with opened_storage(_url(tmp_path / "new.db"), create=True) as storage:
        study = optuna.create_study(study_name="s", storage=storage)
        study.tell(study.ask(), 1.0)

    assert [path.name for path in tmp_path.iterdir()] == ["new.db"]
    copy = tmp_path / "copy.db"
    shutil.copyfile(tmp_path / "new.db", copy)
    assert optuna.load_study(study_name="s", storage=_url(copy)).best_value == 1.0


def test_one_whole_file_remains_after_an_error(tmp_path: Path) -> None:
    def fail() -> None:
        with opened_storage(_url(tmp_path / "new.db"), create=True) as storage:
            optuna.create_study(study_name="s", storage=storage)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()

    assert [path.name for path in tmp_path.iterdir()] == ["new.db"]


def test_a_database_opens_again(database: Path) -> None:
    with opened_storage(_url(database)) as storage:
        assert optuna.get_all_study_names(storage) == ["s"]


def test_a_database_that_plain_optuna_made_opens(tmp_path: Path) -> None:
    path = tmp_path / "plain.db"
    optuna.create_study(study_name="plain", storage=_url(path))

    with opened_storage(_url(path), create=True) as storage:
        assert optuna.get_all_study_names(storage) == ["plain"]


def test_an_empty_file_becomes_a_database(tmp_path: Path) -> None:
    path = tmp_path / "empty.db"
    path.touch()

    with opened_storage(_url(path), create=True) as storage:
        assert optuna.get_all_study_names(storage) == []


def test_an_empty_file_is_refused_where_nothing_is_to_be_created(tmp_path: Path) -> None:
    path = tmp_path / "empty.db"
    path.touch()

    assert "must hold Optuna's tables" in _refusal(_url(path), create=False)
    assert path.read_bytes() == b""


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("studies.db", "must be a URL"),
        ("", "must be a URL"),
        ("sqlite", "must be a URL"),
        ("carrierpigeon://host/db", "that SQLAlchemy knows, but got 'carrierpigeon'"),
        ("sqlite+dove:///x.db", r"that SQLAlchemy knows, but got 'sqlite\+dove'"),
        ("postgresql://user@host:port/db", "must be a URL"),
        ("sqlite://", "must be a file"),
        ("sqlite:///", "must be a file"),
        ("sqlite:///:memory:", "must be a file"),
        ("sqlite:///file:x?mode=memory&uri=true", "must be a file"),
    ],
)
def test_a_url_that_is_no_storage_is_refused(url: str, message: str) -> None:
    assert re.search(message, _refusal(url))
    assert not Path("x.db").exists()


@pytest.mark.skipif(
    importlib.util.find_spec("pymysql") is not None, reason="the driver is installed"
)
def test_a_missing_driver_is_refused_without_the_password() -> None:
    message = _refusal("mysql+pymysql://user:hunter2@localhost/db")

    assert "mysql+pymysql needs a driver that is not installed" in message
    assert "hunter2" not in message


def test_a_server_that_nobody_answers_for_is_refused_without_the_password() -> None:
    message = _refusal("postgresql+psycopg://user:hunter2@127.0.0.1:1/db")

    assert "hunter2" not in message
    if importlib.util.find_spec("psycopg") is None:
        assert "pip install '.[postgresql]'" in message
    else:
        assert "cannot be opened" in message


def test_a_url_is_shown_without_its_password() -> None:
    assert shown_url("sqlite:///studies.db") == "sqlite:///studies.db"
    if importlib.util.find_spec("psycopg") is not None:
        assert "hunter2" not in shown_url("postgresql+psycopg://user:hunter2@host/db")


def test_a_text_that_is_no_url_is_not_repeated_in_the_message() -> None:
    assert "hunter2" not in _refusal("user:hunter2@host")


@pytest.mark.parametrize("create", [True, False])
@pytest.mark.parametrize(
    "contents", [b"Dear diary,\n", b"x", b"SQLite format 3\x00" + b"but nothing more " * 300]
)
def test_a_file_that_is_no_database_is_refused_and_left_alone(
    contents: bytes, create: bool, tmp_path: Path
) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(contents)

    message = _refusal(_url(path), create=create)

    assert str(path) in message
    assert _contents(tmp_path) == {"notes.txt": contents}


@pytest.mark.parametrize("create", [True, False])
def test_a_foreign_database_is_refused_and_left_alone(create: bool, tmp_path: Path) -> None:
    path = tmp_path / "foreign.db"
    _query(path, "CREATE TABLE recipes (name TEXT)")
    before = _contents(tmp_path)

    assert "must hold Optuna's tables" in _refusal(_url(path), create=create)
    assert _contents(tmp_path) == before


@pytest.mark.parametrize("create", [True, False])
def test_another_schema_is_refused_and_left_alone(create: bool, database: Path) -> None:
    _query(database, "UPDATE alembic_version SET version_num = 'v2.6.0.a'")
    before = _contents(database.parent)

    message = _refusal(_url(database), create=create)

    assert "of schema v2.6.0.a" in message
    assert "optuna storage upgrade" in message
    assert _contents(database.parent) == before


def test_a_folder_that_does_not_exist_is_refused_and_not_created(tmp_path: Path) -> None:
    message = _refusal(_url(tmp_path / "nowhere" / "studies.db"))

    assert f"{tmp_path / 'nowhere'} does not" in message
    assert _contents(tmp_path) == {}


def test_a_folder_is_no_database(tmp_path: Path) -> None:
    assert "must be a readable file" in _refusal(_url(tmp_path))


def test_a_missing_file_is_refused_where_nothing_is_to_be_created(tmp_path: Path) -> None:
    refusal = _refusal(_url(tmp_path / "none.db"), create=False)
    assert "There is no database" in refusal
    assert "'search serve' creates it" in refusal  # as a queue may be asked before its server
    assert _contents(tmp_path) == {}


@pytest.mark.parametrize("maker", ["this project", "plain Optuna"])
def test_a_read_only_database_is_refused_for_writing_and_left_alone(
    maker: str, tmp_path: Path
) -> None:
    path = tmp_path / "studies.db"
    if maker == "this project":
        with opened_storage(_url(path), create=True) as storage:
            optuna.create_study(study_name="s", storage=storage)
    else:
        optuna.create_study(study_name="s", storage=_url(path))
    before = _contents(tmp_path)

    with read_only(path):
        message = _refusal(_url(path), create=True)

    assert str(path) in message
    assert _contents(tmp_path) == before


def test_who_may_not_write_a_database_leaves_no_log_beside_it(tmp_path: Path) -> None:
    """It would be his, and nobody else could write then."""
    path = tmp_path / "studies.db"
    optuna.create_study(study_name="s", storage=_url(path))
    with opened_storage(_url(path), write=True):
        pass
    before = _contents(tmp_path)
    with read_only(path):
        with opened_storage(_url(path)) as storage:
            assert optuna.get_all_study_names(storage) == ["s"]
        backup(_url(path), tmp_path / "copy.db")
    copy = tmp_path / "copy.db"
    assert optuna.get_all_study_names(_url(copy)) == ["s"]
    copy.unlink()
    assert _contents(tmp_path) == before


def test_a_log_that_another_user_has_left_is_named(database: Path) -> None:
    for end in ("wal", "shm"):
        log = database.with_name(f"{database.name}-{end}")
        log.touch()
        with read_only(log):
            message = _refusal(_url(database), create=True)
        assert f"must be writable, but {log} is not" in message
        log.unlink()


def test_it_is_seen_whether_a_database_has_studies(database: Path) -> None:
    missing = database.with_name("none.db")

    assert has_studies(_url(database))
    assert not has_studies(_url(missing))
    assert not missing.exists()


def test_a_broken_database_has_no_answer_whether_it_has_studies(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("Dear diary")

    with pytest.raises(StorageError, match="must be a SQLite file"):
        has_studies(_url(path))


_READER = """
import sys
import optuna
from search.storage.open import opened_storage
n_reads = 0
print("ready", flush=True)
n_seen = 0
while n_seen < int(sys.argv[2]):
    with opened_storage(sys.argv[1]) as storage:
        trials = optuna.load_study(study_name="s", storage=storage).trials
    n_seen = sum(trial.state.is_finished() for trial in trials)
    n_reads += 1
print(n_reads)
"""


def test_a_reader_beside_a_writer_never_meets_a_locked_database(database: Path) -> None:
    n_trials = 60
    reader = preparation().start(["-c", _READER, _url(database), str(n_trials)])
    try:
        assert reader.stdout.readline() == "ready\n"
        with opened_storage(_url(database), create=True) as storage:
            study = optuna.load_study(
                study_name="s", storage=storage, sampler=optuna.samplers.RandomSampler(seed=0)
            )
            for _ in range(n_trials):
                trial = study.ask()
                trial.suggest_float("x", 0, 1)
                trial.report(0.5, step=1)
                trial.set_user_attr("epochs", [1, 2, 3])
                study.tell(trial, 0.5)
        out, err = reader.communicate()
    finally:
        reader.send_signal(signal.SIGKILL)

    assert reader.wait() == 0, err
    assert "locked" not in err
    assert int(out) >= 2, "the reader polled while trials were written"
    assert [path.name for path in database.parent.iterdir()] == [database.name]


def test_opening_a_database_drops_no_lock_that_this_process_has_on_it(database: Path) -> None:
    with opened_storage(_url(database), create=True) as storage:
        study = optuna.load_study(study_name="s", storage=storage)
        study.tell(study.ask(), 2.0)
        with opened_storage(_url(database)):
            pass
        assert has_studies(_url(database))
        # Who takes itself for the last one to use the log deletes it, under our feet.
        code = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('PRAGMA user_version')"
        subprocess.run([sys.executable, "-c", code, str(database)], check=True)

        assert database.with_name(f"{database.name}-wal").exists()
        study.tell(study.ask(), 3.0)
    with opened_storage(_url(database)) as storage:
        assert len(optuna.load_study(study_name="s", storage=storage).trials) == 2


def test_plain_optuna_opens_the_database_while_it_is_in_use(database: Path) -> None:
    with opened_storage(_url(database), create=True) as storage:
        study = optuna.load_study(study_name="s", storage=storage)
        study.tell(study.ask(), 2.0)
        other = RDBStorage(_url(database))

        assert optuna.load_study(study_name="s", storage=other).best_value == 2.0
        other.remove_session()
        other.engine.dispose()
