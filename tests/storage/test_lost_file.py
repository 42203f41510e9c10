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

from search.exceptions import DatabaseError
from search.storage.open import opened_storage
from search.study.summary import tally
from tests.conftest import Command, n_reported, start_long_run
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


@pytest.mark.parametrize("lose", [_delete, _replace, _delete_with_its_logs, _move_away])
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
                with pytest.raises(DatabaseError, match="must stay while it is used"):
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
    assert database.exists() == (lose is _replace)


def test_a_command_that_ends_when_its_file_is_gone_says_so(tmp_path: Path) -> None:
    database = tmp_path / "folder" / "studies.db"
    database.parent.mkdir()

    def write() -> None:
        with opened_storage(f"sqlite:///{database}", create=True) as storage:
            optuna.create_study(storage=storage, study_name="kept")
            shutil.move(database.parent, tmp_path / "elsewhere")

    with contextlib.chdir(tmp_path), pytest.raises(DatabaseError, match="is saved in"):
        write()
    saved = f"sqlite:///{tmp_path / 'studies-saved.db'}"
    assert optuna.get_all_study_names(saved) == ["kept"]
