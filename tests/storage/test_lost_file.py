"""A database file that is deleted or replaced while a search writes to it."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import optuna
import pytest

from search.exceptions import DatabaseError, StorageError
from search.storage.guard import FileGuard
from search.storage.open import opened_storage
from search.study.summary import tally
from tests.conftest import Command, n_reported, read_only, start_long_run
from tests.support.made_studies import MadeTrial, make_study


def _delete(database: Path) -> None:
    database.unlink()


def _replace(database: Path) -> None:
    other = database.with_name("other.db")
    make_study(f"sqlite:///{other}", "other", [MadeTrial((0.5, 0.6, 0.7))])
    other.replace(database)


def _delete_with_its_logs(database: Path) -> None:
    for path in database.parent.glob("studies.db*"):
        if path.is_file():
            path.unlink()


def _move_away(database: Path) -> None:
    database.rename(database.with_name("moved.db"))


def _put_a_link_in_its_place(database: Path) -> None:
    """As people do who move it to a larger disk; the logs stay where they are."""
    _move_away(database)
    database.symlink_to("moved.db")


def _put_a_folder_in_its_place(database: Path) -> None:
    database.unlink()
    database.mkdir()


def _delete_the_log(database: Path) -> None:
    database.with_name("studies.db-wal").unlink()


def _delete_the_index_of_the_log(database: Path) -> None:
    database.with_name("studies.db-shm").unlink()


def _cut(path: Path, n_bytes: int = 0) -> None:
    with path.open("r+b") as file:
        file.truncate(n_bytes)


def _cut_the_log(database: Path) -> None:
    _cut(database.with_name("studies.db-wal"))


def _cut_half(database: Path) -> None:
    _cut(database, database.stat().st_size // 2)


def _overwrite_with_an_older_copy(database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.write_bytes(database.with_name("older.db").read_bytes())


def _vacuum(database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _empty_the_log_into_the_file(database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


@pytest.mark.parametrize("lose", [_delete, _replace])
def test_a_search_whose_database_is_deleted_or_replaced_stops_and_saves_what_it_had(
    lose: Callable[[Path], None], finished: Command
) -> None:
    search = start_long_run(finished)
    n_epochs = n_reported(finished, "long")

    lose(finished.database)

    out, _ = search.communicate()
    assert search.wait() == 1, out
    saved = finished.folder / "studies-saved.db"
    assert "studies-saved.db" in " ".join(out.split())
    with closing(sqlite3.connect(saved)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    before = optuna.load_study(study_name="digits-3000x3", storage=f"sqlite:///{saved}")
    assert tally(before.trials).n_trained == 4
    long = optuna.load_study(study_name="long", storage=f"sqlite:///{saved}")
    assert sum(len(trial.intermediate_values) for trial in long.trials) >= n_epochs
    # Nothing of the old file is taken for the new one's, nor is it made again.
    assert not finished.database.with_name("studies.db-wal").exists()
    if lose is _delete:
        assert not finished.database.exists()
    else:
        storage = f"sqlite:///{finished.database}"
        assert optuna.get_all_study_names(storage) == ["other"]
        assert finished("best").code == 0


@pytest.mark.parametrize(
    "lose",
    [
        _delete,
        _replace,
        _delete_with_its_logs,
        _move_away,
        _put_a_link_in_its_place,
        _put_a_folder_in_its_place,
        _delete_the_log,
        _delete_the_index_of_the_log,
    ],
)
def test_what_was_written_into_a_lost_file_is_saved_once(
    lose: Callable[[Path], None], tmp_path: Path
) -> None:
    database = tmp_path / "studies.db"
    taken = tmp_path / "studies-saved.db"
    taken.write_text("of somebody else's")

    def write() -> None:
        with opened_storage(f"sqlite:///{database}", create=True) as storage:
            study = optuna.create_study(storage=storage, study_name="kept")
            study.set_user_attr("before", 1)
            lose(database)
            for _ in range(2):
                with pytest.raises(DatabaseError, match="must stay as it is while it is used"):
                    study.set_user_attr("after", 1)

    with pytest.raises(DatabaseError, match=r"studies-saved-2\.db"):
        write()
    assert sorted(path.name for path in tmp_path.glob("*-saved*")) == [
        "studies-saved-2.db",
        "studies-saved.db",
    ]
    assert taken.read_text() == "of somebody else's"
    saved = f"sqlite:///{tmp_path / 'studies-saved-2.db'}"
    kept = optuna.load_study(study_name="kept", storage=saved)
    assert kept.user_attrs == {"before": 1}
    is_gone = lose in (_delete, _delete_with_its_logs, _move_away)
    assert database.exists() != is_gone


def _open_and(change: Callable[[Path], None], folder: Path) -> None:
    """Writes a study much of which is gone again, has a change made to the file, and writes on."""
    database = folder / "studies.db"
    url = f"sqlite:///{database}"
    with opened_storage(url, create=True) as storage:
        optuna.create_study(storage=storage, study_name="kept")
    shutil.copy(database, folder / "older.db")
    with opened_storage(url, write=True) as storage:
        optuna.create_study(storage=storage, study_name="large").set_user_attr("a", "x" * 2**20)
        with closing(sqlite3.connect(database)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        storage.delete_study(storage.get_study_id_from_name("large"))
        optuna.load_study(storage=storage, study_name="kept").set_user_attr("before", 1)
        change(database)
        optuna.load_study(storage=storage, study_name="kept").set_user_attr("after", 1)


@pytest.mark.parametrize("cut", [_cut, _cut_half, _cut_the_log, _overwrite_with_an_older_copy])
def test_a_file_or_log_that_is_cut_short_ends_what_writes_to_it(
    cut: Callable[[Path], None], tmp_path: Path
) -> None:
    with pytest.raises(DatabaseError, match=r"studies\.db(-wal)? was cut short\. .*saved"):
        _open_and(cut, tmp_path)
    for saved in tmp_path.glob("*-saved.db"):
        with closing(sqlite3.connect(saved)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_of_a_file_that_was_written_over_and_cannot_be_saved_it_is_said_to_look_first(
    tmp_path: Path,
) -> None:
    """Its log may go into it as it is closed: an older copy in its place would lose that."""
    database = tmp_path / "studies.db"
    with opened_storage(f"sqlite:///{tmp_path / 'other.db'}", create=True) as storage:
        optuna.create_study(storage=storage, study_name="other")

    def write() -> None:
        with opened_storage(f"sqlite:///{database}", create=True, write=True) as storage:
            study = optuna.create_study(storage=storage, study_name="kept")
            for number in range(300):
                study.set_user_attr(str(number), "x" * 3000)
            database.write_bytes((tmp_path / "other.db").read_bytes())
            study.set_user_attr("after", 1)

    look = rf"could not be saved \(.*\)\. Look first what {database} has now, with 'search studies'"
    with pytest.raises(DatabaseError, match=look):
        write()


def test_of_a_database_that_lost_a_table_nobody_says_that_all_is_kept(tmp_path: Path) -> None:
    database = tmp_path / "studies.db"

    def write() -> None:
        with opened_storage(f"sqlite:///{database}", create=True) as storage:
            study = optuna.create_study(storage=storage, study_name="kept")
            with closing(sqlite3.connect(database)) as connection:
                connection.execute("DROP TABLE study_user_attributes")
            study.set_user_attr("after", 1)

    with pytest.raises(DatabaseError, match=r"must be whole, .*no such table: .*backup") as told:
        write()
    assert "is kept" not in str(told.value)


@pytest.mark.parametrize("size", [20_000, 4096])
def test_what_is_to_be_done_with_a_damaged_database_is_told_as_it_is_opened(
    size: int, tmp_path: Path
) -> None:
    database = tmp_path / "studies.db"
    with opened_storage(f"sqlite:///{database}", create=True) as storage:
        optuna.create_study(storage=storage, study_name="kept")
    database.write_bytes(database.read_bytes()[:size])
    told = "must be whole, .*malformed.* If 'search backup' has made a copy of it, move that to"
    with pytest.raises(StorageError, match=told), opened_storage(f"sqlite:///{database}"):
        pass


@pytest.mark.parametrize("shorten", [_vacuum, _empty_the_log_into_the_file])
def test_a_file_or_log_that_is_shortened_as_databases_do_is_none_that_is_lost(
    shorten: Callable[[Path], None], tmp_path: Path
) -> None:
    _open_and(shorten, tmp_path)
    kept = optuna.load_study(study_name="kept", storage=f"sqlite:///{tmp_path / 'studies.db'}")
    assert kept.user_attrs == {"before": 1, "after": 1}
    assert not list(tmp_path.glob("*-saved*"))


def test_a_file_whose_folder_went_with_the_working_folder_is_saved_in_the_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, temporary = tmp_path / "folder", tmp_path / "temporary"
    folder.mkdir()
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))

    def write() -> None:
        with opened_storage(f"sqlite:///{folder / 'studies.db'}", create=True) as storage:
            optuna.create_study(storage=storage, study_name="kept")
            shutil.rmtree(folder)

    monkeypatch.chdir(folder)
    with pytest.raises(DatabaseError, match="is saved in"):
        write()
    monkeypatch.chdir(tmp_path)
    saved = f"sqlite:///{temporary / 'studies-saved.db'}"
    assert optuna.get_all_study_names(saved) == ["kept"]


def test_what_its_own_folder_cannot_take_is_saved_in_the_working_folder_or_the_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, working, temporary = (tmp_path / name for name in ("own", "working", "temporary"))
    for folder in (own, working, temporary):
        folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    monkeypatch.chdir(working)

    def write(*sealed: Path) -> None:
        database = own / "studies.db"
        for log in own.iterdir():  # which could not be deleted while the folder was sealed
            log.unlink()
        with contextlib.ExitStack() as stack:
            storage = stack.enter_context(opened_storage(f"sqlite:///{database}", create=True))
            study = optuna.create_study(storage=storage, study_name="kept")
            database.unlink()
            for folder in sealed:
                stack.enter_context(read_only(folder))
            study.set_user_attr("after", 1)

    for sealed, taken in (((own,), working), ((own, working), temporary)):
        saved = taken / "studies-saved.db"
        with pytest.raises(DatabaseError, match=f"is saved in {saved}, not beside it"):
            write(*sealed)
        assert optuna.get_all_study_names(f"sqlite:///{saved}") == ["kept"]
    with pytest.raises(DatabaseError, match="What it held could not be saved"):
        write(own, working, temporary)


def test_a_command_that_ends_when_its_file_is_gone_says_so(tmp_path: Path) -> None:
    database = tmp_path / "folder" / "studies.db"
    database.parent.mkdir()
    log = tmp_path / "studies-saved.db-wal"
    log.write_bytes(b"of a database that was saved before, and moved")

    def write() -> None:
        with opened_storage(f"sqlite:///{database}", create=True) as storage:
            optuna.create_study(storage=storage, study_name="kept")
            shutil.move(database.parent, tmp_path / "elsewhere")

    with contextlib.chdir(tmp_path), pytest.raises(DatabaseError, match="is saved in"):
        write()
    saved = f"sqlite:///{tmp_path / 'studies-saved-2.db'}"
    assert optuna.get_all_study_names(saved) == ["kept"]
    assert log.exists()


@pytest.mark.parametrize("error", [FileNotFoundError, KeyboardInterrupt])
def test_what_a_lost_file_had_is_saved_whatever_ends_the_command(
    error: type[BaseException], tmp_path: Path
) -> None:
    """Weights may be deleted with the database, or somebody who sees his mistake stops it all."""
    database = tmp_path / "studies.db"

    def write() -> None:
        with opened_storage(f"sqlite:///{database}", create=True) as storage:
            optuna.create_study(storage=storage, study_name="kept")
            database.unlink()
            raise error

    with pytest.raises(DatabaseError, match="is saved in"):
        write()
    saved = f"sqlite:///{tmp_path / 'studies-saved.db'}"
    assert optuna.get_all_study_names(saved) == ["kept"]


def test_a_database_that_vacuums_itself_may_shrink(tmp_path: Path) -> None:
    database = tmp_path / "studies.db"
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("PRAGMA auto_vacuum=FULL")
        connection.execute("CREATE TABLE large AS SELECT zeroblob(1048576) AS content")
        guard = FileGuard(database, timeout=0)
        connection.execute("DELETE FROM large")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        assert database.stat().st_size < 2**20
        guard.check()
        guard.close()


def test_a_log_that_is_not_its_own_may_go(tmp_path: Path) -> None:
    """While another process makes the database, the log cannot be had."""
    database = tmp_path / "studies.db"
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE numbers (number)")
        connection.execute("BEGIN")
        connection.execute("SELECT * FROM numbers").fetchall()
        guard = FileGuard(database, timeout=0)
        connection.execute("COMMIT")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("INSERT INTO numbers VALUES (1)")
        assert database.with_name("studies.db-wal").exists()
        guard.check()
    assert not database.with_name("studies.db-wal").exists()
    guard.check()
    guard.close()
