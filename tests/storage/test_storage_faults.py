"""Full disks, copies, upgrades, narrow machines and changed data, each made to happen."""

from __future__ import annotations

import ast
import os
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import optuna
import pytest
import sqlalchemy
from optuna.trial import TrialState

from search.exceptions import CardError, DatabaseError, StorageError
from search.published import LIST_NAME
from search.storage.backup import backup
from search.storage.mounts import network_filesystem
from search.storage.open import opened_storage
from search.study.record import TrialRecord
from search.training.weights import load
from search.tuner.options import SearchRequest
from search.tuner.plan import plan_search
from search.tuner.request import check_request
from search.tuner.session import begin_search
from tests.conftest import (
    DIGITS_RUN,
    ENDLESS,
    Command,
    Result,
    n_reported,
    run_here,
    start_long_run,
    wait_until,
)
from tests.support import disks
from tests.support.servers import Postgres, shown

NAME = "digits-3000x3"
ROOT = Path(__file__).parents[2]
_FREE_BYTES = 900_000  # for a database with some trials
_FILE_BYTES = 900_000  # of a log, which is written for some trials


def integrity(path: Path) -> str:
    with closing(sqlite3.connect(path)) as connection:
        return str(connection.execute("PRAGMA integrity_check").fetchone()[0])


_IN_MOUNTS = """
import ctypes, os, pathlib, subprocess
from search.cli import main

own_mounts, own_user = 0x20000, 0x10000000  # CLONE_NEWNS and CLONE_NEWUSER of unshare(2)
user = os.getuid()
assert ctypes.CDLL(None).unshare(own_mounts | (own_user if user else 0)) == 0
if user:
    pathlib.Path("/proc/self/uid_map").write_text(f"0 {{user}} 1")
subprocess.run(["mount", "--make-rprivate", "/"], check=True)
subprocess.run(["bash", "-ec", {script!r}], check=True)
main({arguments!r})
"""


def with_mounts(script: str, *arguments: str) -> str:
    """A program that runs the command where a script has mounted what it likes.

    Nobody else sees that.
    """
    unshare = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-rm"]
    if subprocess.run([*unshare, "true"], capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount anything: unshare -m does not work")
    return _IN_MOUNTS.format(script=script, arguments=arguments)


def limited(n_bytes: int, *arguments: str) -> str:
    """A program that runs the command where no file may grow beyond that; it needs no root."""
    return (
        f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({n_bytes}, {n_bytes}))\n"
        f"from search.cli import main; main({arguments!r})"
    )


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with disks.small_disk(tmp_path / "disk") as folder:
        yield folder


def check_failed_for_room(done: Result, database: Path) -> int:
    """Sees that a search ended for lack of room and lost nothing; how many trials it printed."""
    assert done.code == 1, done.out + done.err
    assert "must have room" in done.err or "OSError: [Errno" in done.err, done.err
    assert "Traceback" not in done.out + done.err
    assert integrity(database) == "ok"
    n_printed = sum(line.startswith("[") for line in done.out.splitlines())
    study = optuna.load_study(study_name=NAME, storage=f"sqlite:///{database}")
    assert [trial.state for trial in study.trials].count(TrialState.COMPLETE) >= n_printed
    return n_printed


def check_goes_on(command: Command, n_printed: int) -> None:
    values = {
        trial.number: (trial.value, trial.params)
        for trial in command.study(NAME).trials
        if trial.state == TrialState.COMPLETE
    }
    more = command(*DIGITS_RUN, "--trials", str(len(values) + 2), "--no-confirm")
    assert more.code == 0, more.err
    trials = command.study(NAME).trials
    assert [trial.state for trial in trials].count(TrialState.COMPLETE) == len(values) + 2
    assert {n: (trials[n].value, trials[n].params) for n in values} == values
    assert len(values) >= n_printed


def test_a_search_whose_disk_is_full_stops_whole_and_goes_on_with_room(small_disk: Path) -> None:
    command = Command(small_disk)
    filler = disks.fill(small_disk, but=_FREE_BYTES)
    done = command(*DIGITS_RUN, "--trials", "200", "--no-confirm")
    n_printed = check_failed_for_room(done, command.database)
    filler.unlink()
    check_goes_on(command, n_printed)


def test_a_search_whose_files_may_not_grow_stops_whole_and_goes_on(command: Command) -> None:
    program = limited(_FILE_BYTES, *DIGITS_RUN, "--trials", "200", "--no-confirm")
    n_printed = check_failed_for_room(command.fork("-c", program), command.database)
    check_goes_on(command, n_printed)


def test_a_disk_that_is_full_from_the_start_is_named(small_disk: Path) -> None:
    disks.fill(small_disk, but=20_000)
    url = f"sqlite:///{small_disk / 'studies.db'}"
    with (
        pytest.raises(StorageError, match=r"full.*room on the disk"),
        opened_storage(url, create=True),
    ):
        pass


def test_what_is_on_a_full_disk_is_read_and_copied_elsewhere(
    small_disk: Path, tmp_path: Path
) -> None:
    url = f"sqlite:///{small_disk / 'studies.db'}"
    with opened_storage(url, create=True) as storage:
        optuna.create_study(storage=storage, study_name="kept")
    filler = disks.fill(small_disk, but=0)
    copy = tmp_path / "copy.db"
    backup(url, copy)
    assert optuna.get_all_study_names(f"sqlite:///{copy}") == ["kept"]
    with opened_storage(url) as storage:
        assert optuna.get_all_study_names(storage) == ["kept"]
        filler.unlink()
        with opened_storage(url, write=True) as other:
            optuna.create_study(storage=other, study_name="new")
            assert sorted(optuna.get_all_study_names(storage)) == ["kept", "new"]
        assert sorted(optuna.get_all_study_names(storage)) == ["kept", "new"]


def test_weights_that_a_full_disk_does_not_take_end_retrain_and_leave_no_half_file(
    finished: Command, small_disk: Path
) -> None:
    filler = disks.fill(small_disk, but=8192)
    options = ("retrain", "--seeds", "1", "--out", str(small_disk / "out"))
    done = finished(*options)
    assert done.code == 1
    assert "No space left on device" in done.err
    assert "seed-1.safetensors" in done.err
    assert "Traceback" not in done.out + done.err
    assert list((small_disk / "out").iterdir()) == []
    filler.unlink()
    again = finished(*options)
    assert again.code == 0, again.err
    written = {path.name for path in (small_disk / "out").iterdir()}
    assert written == {LIST_NAME, "card.json", "seed-1.safetensors"}


def test_a_picture_that_a_full_disk_does_not_take_leaves_no_half_file(
    weights: Path, small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    filler = disks.fill(small_disk, but=8192)
    options = ("pictures", str(weights), "--out", str(small_disk / "out"))
    assert run_here(*options) == 1
    err = capsys.readouterr().err
    assert "confusion.png has not (No space left on device). Make room" in err
    assert [path.name for path in (small_disk / "out").iterdir()] == [LIST_NAME]
    filler.unlink()
    assert run_here(*options) == 0


def test_a_backup_of_a_database_that_is_written_is_whole(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    process = command.start(*DIGITS_RUN, "--epochs", "400", "--study", "long", "--workers", "1")
    url = f"sqlite:///{command.database}"
    copies = [command.folder / f"copy-{number}.db" for number in range(3)]
    for number, copy in enumerate(copies):
        wait_until(lambda n=number: n_reported(command, "long") > 5 * n)  # type: ignore[misc]
        assert run_here("backup", str(copy), "--storage", url) == 0
    assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    out, _ = process.communicate()
    assert process.returncode == 130, out
    n_epochs = []
    for copy in copies:
        before = copy.read_bytes()
        assert integrity(copy) == "ok"
        (trial,) = optuna.load_study(study_name="long", storage=f"sqlite:///{copy}").trials
        assert len(trial.intermediate_values) <= len(TrialRecord.read(trial).epochs)
        n_epochs.append(len(trial.intermediate_values))
        assert copy.read_bytes() == before, "nothing was left in a log beside it"
    assert n_epochs == sorted(n_epochs)
    assert n_epochs[-1] > 0
    names = {path.name for path in command.folder.iterdir() if not path.name.endswith(".lock")}
    own = {"studies.db", "studies.db-artifacts"}
    assert names == own | {copy.name for copy in copies}

    capsys.readouterr()
    assert run_here("backup", str(copies[0]), "--storage", url) == 2
    assert "is there; name another" in capsys.readouterr().err
    assert run_here("backup", str(command.database), "--storage", url) == 2
    shutil.move(copies[2], command.database)  # and the copy is a database to go on with
    more = command(*DIGITS_RUN, "--epochs", "400", "--study", "long", "--timeout", "1s")
    assert more.code == 0, more.err
    assert "queued again" in more.out


def test_a_backup_of_a_damaged_database_says_so_and_leaves_nothing(
    finished: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    with finished.database.open("r+b") as file:
        file.seek(-8192, os.SEEK_END)
        file.write(b"\xff" * 4096)
    copy = finished.folder / "copy.db"
    assert run_here("backup", str(copy), "--storage", f"sqlite:///{finished.database}") == 1
    assert "studies.db is damaged: " in " ".join(capsys.readouterr().err.split())
    assert not list(finished.folder.glob("*copy*"))


def test_a_backup_that_cannot_be_written_leaves_nothing(
    finished: Command, small_disk: Path, postgres: Postgres, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{finished.database}"
    filler = disks.fill(small_disk, but=20_000)
    assert run_here("backup", str(small_disk / "copy.db"), "--storage", url) == 2
    assert "make room" in capsys.readouterr().err
    assert list(small_disk.iterdir()) == [filler]
    assert run_here("backup", str(finished.folder / "no" / "copy.db"), "--storage", url) == 2
    assert "must be in a folder that is there" in capsys.readouterr().err
    server = shown(postgres.guarded_url(postgres.new_database()))
    assert run_here("backup", str(finished.folder / "copy.db"), "--storage", server) == 2
    err = capsys.readouterr().err
    assert "pg_dump" in err
    assert "hunter2" not in err
    with pytest.raises(StorageError, match="There is no database"):
        backup(f"sqlite:///{finished.folder / 'none.db'}", finished.folder / "copy.db")
    assert not (finished.folder / "copy.db").exists()


def test_a_database_of_an_older_optuna_goes_on_once_it_is_upgraded_as_told(
    finished: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    from alembic import command as alembic

    url = f"sqlite:///{finished.database}"
    storage = optuna.storages.RDBStorage(url)
    with storage.engine.begin() as connection:  # an older one had it, under this name
        connection.exec_driver_sql("CREATE INDEX trials_study_id_key ON trials (study_id)")
    configuration = storage._version_manager._create_alembic_config()
    alembic.downgrade(configuration, "v3.0.0.d")  # the tables as Optuna 3.0 made them
    storage.remove_session()
    storage.engine.dispose()
    before = finished.database.read_bytes()
    options = (*DIGITS_RUN, "--trials", "5", "--storage", url)
    assert run_here(*options) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert f"upgrade it with 'optuna storage upgrade --storage {url}'" in told
    assert finished.database.read_bytes() == before
    upgrade = told.split("'")[1].split()
    code = "import sys; from optuna.cli import main; sys.exit(main())"
    upgraded = finished.fork("-c", code, *upgrade[1:])
    assert upgraded.code == 0, upgraded.err
    more = finished(*options)
    assert more.code == 0, more.err
    assert [trial.state for trial in finished.study(NAME).trials] == [TrialState.COMPLETE] * 5


def test_a_database_of_a_newer_optuna_is_refused_with_what_to_install(
    finished: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(sqlite3.connect(finished.database)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'v99.0.0.a'")
        connection.commit()
    assert run_here("studies", "--storage", f"sqlite:///{finished.database}") == 2
    assert "pip install -U optuna" in " ".join(capsys.readouterr().err.split())


def test_a_study_of_a_newer_version_of_this_package_is_refused(
    finished: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    study = finished.study(NAME)
    study.set_user_attr("settings", {**study.user_attrs["settings"], "flavour": "sweet"})
    for arguments in (("retrain",), DIGITS_RUN):
        assert run_here(*arguments, "--storage", f"sqlite:///{finished.database}") == 2
        assert "settings of a later one (flavour)" in " ".join(capsys.readouterr().err.split())


def test_a_reader_does_not_hold_up_who_closes_the_database(finished: Command) -> None:
    with closing(sqlite3.connect(finished.database)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM trials").fetchone()
        statements: list[str] = []
        with opened_storage(f"sqlite:///{finished.database}", write=True) as storage:
            optuna.create_study(study_name="other", storage=storage)
            sqlalchemy.event.listen(
                storage.engine,
                "before_cursor_execute",
                lambda _connection, _cursor, statement, *_: statements.append(statement),
            )
        # Others' writes are waited for, for as long as a minute; this reader is not.
        waiting, checkpoint = statements
        assert checkpoint == "PRAGMA wal_checkpoint(TRUNCATE)"
        assert int(waiting.removeprefix("PRAGMA busy_timeout=")) <= 1000  # milliseconds


def test_a_second_search_on_a_study_is_told_of_the_server_and_another_study_works(
    finished: Command,
) -> None:
    endless = finished.start(*DIGITS_RUN, "--epochs", "400", "--study", "long", "--workers", "1")
    wait_until(lambda: n_reported(finished, "long") > 0)
    (finished.folder / "link.db").symlink_to(finished.database)
    for name in (finished.database.name, "link.db"):
        storage = ("--storage", f"sqlite:///{finished.folder / name}")
        second = finished(*DIGITS_RUN, "--epochs", "400", "--study", "long", *storage)
        assert second.code == 2
        assert "One search at a time must run on a study" in second.err
        assert "--storage postgresql+psycopg://" in second.err
    other = finished(*DIGITS_RUN, "--trials", "6", "--workers", "1")
    assert other.code == 0, other.err
    assert len(finished.study(NAME).trials) == 6
    assert endless.poll() is None
    os.killpg(endless.pid, signal.SIGINT)
    assert endless.wait() == 130
    assert integrity(finished.database) == "ok"


def test_a_stop_is_heard_while_another_program_locks_the_database(finished: Command) -> None:
    """SQLite waits for a minute, and hears no signal meanwhile."""
    search = start_long_run(finished)
    with closing(sqlite3.connect(finished.database, isolation_level=None)) as connection:
        connection.execute("PRAGMA busy_timeout=60000")
        connection.execute("BEGIN IMMEDIATE")
        search.send_signal(signal.SIGTERM)
        out, _ = search.communicate()
        connection.execute("ROLLBACK")
    assert search.returncode == 130, out
    assert "Interrupted, while the database did not answer" in out
    states = {trial.state for trial in finished.study("long").trials}
    assert TrialState.RUNNING in states, "the lock was let go of before the command ended"
    again = finished(*DIGITS_RUN, *ENDLESS, "--timeout", "1s", "--workers", "1")
    assert again.code == 0, again.err
    assert "queued again" in again.out


def test_what_is_written_over_in_the_midst_of_a_search_is_told_at_its_end(tmp_path: Path) -> None:
    """A file that keeps its length and its place is the same one to the system."""
    database = tmp_path / "studies.db"

    def write() -> None:
        with opened_storage(f"sqlite:///{database}", create=True) as storage:
            optuna.create_study(storage=storage, study_name="kept").set_user_attr("a", "x" * 2**16)
            with database.with_name("studies.db-wal").open("r+b") as file:
                file.seek(-(2**15), os.SEEK_END)
                file.write(b"\xaa" * 2**15)

    with pytest.raises(DatabaseError, match=r"studies\.db was damaged while it was used \(\w"):
        write()


def test_a_machine_with_little_shared_memory_a_read_only_home_and_a_full_temporary_folder(
    command: Command,
) -> None:
    home, full = command.folder / "home", command.folder / "full"
    home.mkdir()
    full.mkdir()
    script = (
        "mount -t tmpfs -o size=64m tmpfs /dev/shm\n"
        f"mount -t tmpfs -o ro tmpfs {home}\n"
        f"mount -t tmpfs -o size=64k tmpfs {full}\n"
        f"head -c 65536 /dev/zero > {full}/filler\n"
    )
    program = with_mounts(script, *DIGITS_RUN, "--trials", "2", "--no-confirm")
    words = [sys.executable, "-c", program]  # which imports PyTorch there
    done = command.run_words(words, HOME=str(home), TMPDIR=str(full))
    assert done.code == 0, done.err
    assert [trial.state for trial in command.study(NAME).trials] == [TrialState.COMPLETE] * 2


def test_a_machine_without_room_for_the_data_says_before_training_what_to_set(
    command: Command,
) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as small:  # a short path, as sockets go there
        program = with_mounts(f"mount -t tmpfs -o size=200k tmpfs {small}", *DIGITS_RUN)
        done = command.fork("-c", program, XDG_CACHE_HOME="/dev/null/cache", TMPDIR=small)
    assert done.code == 2
    assert "point XDG_CACHE_HOME or TMPDIR to a folder that has it" in done.err
    assert "Traceback" not in done.err
    assert {trial.state for trial in command.study(NAME).trials} == {TrialState.WAITING}


def test_a_temporary_folder_whose_path_is_too_long_is_refused(command: Command) -> None:
    long = command.folder / ("long" * 25)
    long.mkdir()
    done = command.apart(*DIGITS_RUN, TMPDIR=str(long))
    assert done.code == 2
    assert "set TMPDIR to a shorter one" in done.err
    assert not command.database.exists()


def test_a_machine_without_any_temporary_folder_says_what_to_set(command: Command) -> None:
    done = command.fork("-c", limited(0, *DIGITS_RUN))
    assert done.code == 2
    assert "set TMPDIR to a folder that has it" in done.err
    assert not command.database.exists()


def test_a_database_on_a_network_file_system_is_warned_of_before_training(
    command: Command,
) -> None:
    mounts = command.folder / "mounts"
    # What the system says of this folder; no test can bring an NFS server along.
    mounts.write_text(f"/ / ext4 rw 0 0\nhost:/export {command.folder} nfs4 rw,vers=4.2 0 0\n")
    script = f"mount --bind {mounts} /proc/$PPID/mounts"
    program = with_mounts(script, *DIGITS_RUN, "--trials", "1", "--no-confirm")
    done = command.fork("-c", program)
    assert done.code == 0, done.err
    warning = done.out.index("on a network file system (nfs4)")
    assert warning < done.out.index("[1/1]")
    assert "--storage postgresql" in done.out


def test_this_folder_is_on_no_network_file_system(tmp_path: Path) -> None:
    if "nfs" not in subprocess.run(["mount"], capture_output=True, text=True).stdout:
        assert network_filesystem(tmp_path) is None


def test_data_that_change_or_disappear_under_a_study_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = tmp_path / "data" / "KMNIST" / "raw"
    raw.mkdir(parents=True)
    for part, n in (("train", 60_000), ("t10k", 10_000)):
        images = struct.pack(">IIII", 2051, n, 28, 28) + bytes(784 * n)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(images)
        labels = np.arange(n, dtype=np.uint8) % 10
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, n) + bytes(labels))
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    data_dir = tmp_path / "data"
    request = SearchRequest(3000, 1, dataset="kmnist", data_dir=data_dir, storage=url)
    with begin_search(plan_search(check_request(request))):
        pass
    options = (
        *("run", "--budget", "3000", "--epochs", "1", "--dataset", "kmnist"),
        *("--data-dir", str(data_dir), "--storage", url),
    )
    before = (tmp_path / "studies.db").read_bytes()
    with (raw / "train-images-idx3-ubyte").open("r+b") as images_file:
        images_file.seek(1_000_000)
        images_file.write(b"\1")  # one pixel
    assert run_here(*options) == 2
    assert "differs in: the images or labels of the data set" in capsys.readouterr().err
    shutil.rmtree(raw.parent)
    assert run_here(*options) == 2
    assert "does not have its four files" in " ".join(capsys.readouterr().err.split())
    assert (tmp_path / "studies.db").read_bytes() == before


def test_nothing_is_ever_unpickled() -> None:
    forbidden = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib.load"}
    calls = {"torch.load", "np.load", "numpy.load", "joblib.load", "pickle.load", "pickle.loads"}
    for path in [*(ROOT / "search").rglob("*.py"), *(ROOT / "models").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names: set[str] = set()
            if isinstance(node, ast.Import):
                names = {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names = {str(node.module).split(".")[0]}
                names |= {f"{node.module}.{alias.name}" for alias in node.names}
            elif isinstance(node, ast.Attribute):
                names = {ast.unparse(node)}
            assert not names & (forbidden | calls), f"{path}:{getattr(node, 'lineno', 0)}"


def test_a_pickle_in_the_place_of_weights_is_refused_and_not_run(weights: Path) -> None:
    marker = weights / "executed"
    payload = f"cposix\nsystem\n(S'touch {marker}'\ntR.".encode()
    (weights / "seed-1.safetensors").write_bytes(payload)
    with pytest.raises(CardError, match="cannot be read"):
        load(weights, seed=1)
    assert not marker.exists()
