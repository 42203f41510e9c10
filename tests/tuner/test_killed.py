"""A study whose coordinator is killed again and again, and the audit that looks after it."""

from __future__ import annotations

import itertools
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import psutil
import pytest
from optuna.trial import FrozenTrial, TrialState

from scripts.chaos import Audit, Chaos, Witness, check_study, read_log, read_trials
from search.report.artifacts import N_BEST
from search.study.summary import by_accuracy, is_trained
from tests.conftest import alive, wait_until
from tests.support.artifact_files import entered, lying
from tests.support.prepared import PreparedProcess, preparation

ROOT = Path(__file__).parents[2]
OF_A_REPEATED_TRIAL = (
    "WHERE trial_id = (SELECT min(trial_id) FROM trial_params JOIN trials USING (trial_id) "
    "WHERE state = 'FAIL')"
)
DAMAGES = (
    ("UPDATE trial_intermediate_values SET intermediate_value = 0.5", "changed"),
    ("UPDATE trial_values SET value = value + 0.01", "lost"),
    (f"UPDATE trial_params SET param_value = param_value + 1 {OF_A_REPEATED_TRIAL}", "changed"),
    ("UPDATE trial_user_attributes SET value_json = '[]' WHERE key = 'epochs'", "lost"),
    ("UPDATE trials SET state = 'RUNNING' WHERE state = 'COMPLETE'", "lost"),
    ("UPDATE trials SET state = 'PRUNED' WHERE state = 'FAIL'", "counted_twice"),
    ("UPDATE trials SET state = 'COMPLETE' WHERE state = 'FAIL'", "changed"),
)
N_KILLS, MOST_KILLS, N_TRIALS = 16, 60, 20


@contextmanager
def searches(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """The process that searches a study in `folder` as often as it is told to."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.killed_searches", str(folder), str(N_TRIALS)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def is_between_queueing_and_telling(trials: list[FrozenTrial]) -> bool:
    repeated = {trial.user_attrs.get("repeats") for trial in trials}
    return any(t.state == TrialState.RUNNING and t.number in repeated for t in trials)


@pytest.fixture(scope="module")
def survivor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a study whose coordinator was killed again and again, audited on the way."""
    folder = tmp_path_factory.mktemp("killed")
    url = f"sqlite:///{folder / 'studies.db'}"
    draw, audit, witness = random.Random(1), Audit(), Witness()
    n_between = n_interrupted = n_trained_before_kills = 0
    with searches(folder) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        for kill in itertools.count():
            # Early on in a start, what the last one left running is put back in the queue; then
            # trials are made, and from some ten writes on they are trained.
            n_writes = draw.randint(*draw.choice([(2, 9), (6, 16), (14, 40)]))
            if kill >= N_KILLS:  # chance had none fall between queueing and telling
                n_writes = draw.randint(2, 9)
            is_last = kill >= N_KILLS and (n_between > 0 or kill == MOST_KILLS)
            print("" if is_last else n_writes, file=process.stdin, flush=True)
            code = int(process.stdout.readline())
            assert code == (0 if is_last else -signal.SIGKILL)
            workers = [
                worker
                for server in psutil.Process(process.pid).children()
                for worker in server.children()
            ]
            wait_until(lambda own=workers: not alive(own))  # type: ignore[misc]
            trials = read_trials(url, "killed")
            if not is_last:
                n_trained_before_kills = sum(map(is_trained, trials))
            witness.look(audit, trials)
            assert set(entered(folder / "studies.db")) <= lying(folder / "studies.db")
            n_between += is_between_queueing_and_telling(trials)
            n_interrupted += any(trial.state == TrialState.RUNNING for trial in trials)
            if is_last:
                break
    assert audit.is_clean, audit
    assert n_between > 0
    assert n_interrupted > N_KILLS // 2
    assert n_trained_before_kills > N_KILLS // 4, n_trained_before_kills
    return folder


def audited(folder: Path, n_trials: int = N_TRIALS) -> Audit:
    audit = Audit()
    trials = read_trials(f"sqlite:///{folder / 'studies.db'}", "killed")
    check_study(audit, trials, read_log(folder / "log"), n_trials=n_trials)
    return audit


def test_a_study_survives_the_kills_of_its_coordinator(survivor: Path) -> None:
    """What the kills left is whole, and the audit that says so finds what is wrong."""
    audit = audited(survivor)
    assert audit.is_clean, audit
    database = survivor / "studies.db"
    assert lying(database) == set(entered(database))
    best = by_accuracy(read_trials(f"sqlite:///{database}", "killed"))[:N_BEST]
    expected = {f"trial-{t.number}.{suffix}" for t in best for suffix in ("png", "safetensors")}
    assert set(entered(database).values()) == expected
    for number, (statement, found) in enumerate(DAMAGES):
        copy = survivor / f"damaged-{number}"
        copy.mkdir()
        (copy / "log").symlink_to(survivor / "log")
        with closing(sqlite3.connect(shutil.copy(database, copy))) as connection:
            connection.execute(statement)
            connection.commit()
        assert getattr(audited(copy), found), statement


def test_chaos_loses_counts_twice_changes_and_leaves_behind_nothing(tmp_path: Path) -> None:
    def start(words: Sequence[str], log: int) -> PreparedProcess:
        return preparation().start(words, output=log)

    chaos = Chaos(tmp_path / "chaos", seed=1, n_trials=20, start=start, pace=6.0)
    audit = chaos.run(minutes=0, n_kills=2)
    assert audit.is_clean, audit
    assert min(chaos.kills["coordinator"], chaos.kills["other"]) >= 2
