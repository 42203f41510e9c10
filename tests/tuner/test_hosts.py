"""Several searches on one study of a real PostgreSQL server, each in a folder of its own."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from search.storage.open import opened_storage
from search.storage.retrying import RetryingStorage
from search.storage.studies import study_names
from search.study.history import run_records
from search.study.open import open_study
from search.study.record import TrialRecord
from tests.conftest import DIGITS_RUN, Command, wait_until
from tests.support.own_networks import RESIDUAL
from tests.support.prepared import PreparedProcess
from tests.support.servers import PASSWORD, Postgres, shown

NAME = "digits-3000x3"
TRAINED = (TrialState.COMPLETE, TrialState.PRUNED)
N_TRIALS = 12  # so many that one host, met by the other late, still trains some


@pytest.fixture
def url(postgres: Postgres) -> str:
    return shown(postgres.url(postgres.new_database()))


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[tuple[Command, Command]]:
    commands = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        commands.append(Command(tmp_path / name))
    yield (commands[0], commands[1])
    for command in commands:
        command.stop()


def trials_of(url: str, name: str = NAME) -> list[FrozenTrial]:
    with opened_storage(url, create=True) as storage:
        return open_study(storage, name).trials if name in study_names(storage) else []


def pids(trials: list[FrozenTrial]) -> set[int]:
    return {trial.user_attrs["owner"]["pid"] for trial in trials if "owner" in trial.user_attrs}


def long_run(url: str, *, n_trials: int) -> tuple[str, ...]:
    """A search whose trials take long enough to be met in the middle."""
    options = ("--epochs", "25", "--study", NAME, "--no-confirm", "--trials", str(n_trials))
    return (*DIGITS_RUN, "--storage", url, *options)


def training(url: str) -> set[int]:
    """The processes that have trained an epoch of a trial that runs."""
    running = [trial for trial in trials_of(url) if trial.state == TrialState.RUNNING]
    return pids([trial for trial in running if trial.intermediate_values])


def started(
    hosts: tuple[Command, Command], url: str, *options: str, n_trials: int
) -> list[PreparedProcess]:
    """The search begun on each host, once both train."""
    words = (*long_run(url, n_trials=n_trials), *options)
    processes = [host.start(*words) for host in hosts]
    wait_until(lambda: training(url) == {process.pid for process in processes})
    return processes


def stopped(process: PreparedProcess, url: str) -> None:
    """Stops a search in the midst of a trial: between two it would leave nothing to take over."""

    def stops_in_a_trial() -> bool:
        os.killpg(process.pid, signal.SIGSTOP)
        # Twice, as the end of a trial may be on its way to the server just then.
        if process.pid in training(url) and process.pid in training(url):
            return True
        os.killpg(process.pid, signal.SIGCONT)
        return False

    wait_until(stops_in_a_trial)


def check_exact(trials: list[FrozenTrial], n: int) -> None:
    """Exactly `n` trained, each with all its epochs, no configuration twice, nothing left over."""
    trained = [trial for trial in trials if trial.state in TRAINED]
    assert len(trained) == n
    for trial in trained:
        assert [result.epoch for result in TrialRecord.read(trial).epochs] == sorted(
            trial.intermediate_values
        )
    assert len({str(sorted(trial.params.items())) for trial in trained}) == n
    assert {trial.state for trial in trials} <= {*TRAINED, TrialState.FAIL}
    repeated = [trial.user_attrs["repeats"] for trial in trials if "repeats" in trial.user_attrs]
    assert len(repeated) == len(set(repeated))  # nothing is queued again twice


def test_hosts_that_join_a_study_train_exactly_what_was_asked_for(
    hosts: tuple[Command, Command], url: str
) -> None:
    options = (
        *(*DIGITS_RUN, "--epochs", "1", "--study", NAME, "--storage", url),
        *("--workers", "1", "--trials", "20", "--seed", "3"),
    )
    processes = [host.start(*options) for host in hosts]
    outputs = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    trials = trials_of(url)
    check_exact(trials, 20)
    assert len(trials) == 20  # nobody drew what another had drawn
    assert pids(trials) == {process.pid for process in processes}
    for output in outputs:  # each tells of all trials since it came, and where others ran
        counts = [int(count) for count in re.findall(r"^\[(\d+)/20\] trial", output, re.M)]
        assert counts == list(range(counts[0], 21))
        assert " on " in output
    with opened_storage(url) as storage:
        study = open_study(storage, NAME)
        assert len(run_records(study)) == 2
        races = [name for name in study_names(storage) if name != NAME]
        assert len(races) == 1
        runs = open_study(storage, races[0]).trials
    raced_runs = [str(sorted(trial.user_attrs.items())) for trial in runs]
    assert len(raced_runs) == len(set(raced_runs))
    raced = [output for output in outputs if "Confirming the best" in output]
    assert raced
    assert len(raced) == 1 or "Another host races" not in "".join(outputs)


def test_a_host_that_dies_is_noticed_by_the_other_which_trains_its_trials(
    hosts: tuple[Command, Command], url: str
) -> None:
    options = ("--lost-after", "4s", "--workers", "2")
    first, second = started(hosts, url, *options, n_trials=N_TRIALS)
    stopped(first, url)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    output, _ = second.communicate()
    assert second.returncode == 0, output
    trials = trials_of(url)
    check_exact(trials, N_TRIALS)
    lost = [trial for trial in trials if trial.state == TrialState.FAIL]
    assert lost
    assert pids(lost) == {first.pid}
    told = " ".join(output.split())
    for trial in lost:
        assert f"trial {trial.number} on {socket.gethostname()}" in told
    assert told.count("taken over, as its host fell silent (queued again)") == len(lost)
    assert f"0 failed, {len(lost)} interrupted and queued again" in told
    repeats = {trial.user_attrs.get("repeats"): trial for trial in trials}
    for trial in lost:
        assert repeats[trial.number].params == trial.params
        assert (
            repeats[trial.number].user_attrs["training_seed"] == (trial.user_attrs["training_seed"])
        )


def test_a_host_that_only_slept_drops_the_trial_that_was_given_away(
    hosts: tuple[Command, Command], url: str
) -> None:
    options = ("--lost-after", "3s", "--workers", "1")
    sleeper, other = started(hosts, url, *options, n_trials=N_TRIALS)
    stopped(sleeper, url)

    def has_given_away() -> bool:
        return any(trial.user_attrs.get("reason") == "interrupted" for trial in trials_of(url))

    wait_until(has_given_away)
    os.killpg(sleeper.pid, signal.SIGCONT)
    outputs = [process.communicate()[0] for process in (sleeper, other)]
    assert [sleeper.returncode, other.returncode] == [0, 0], outputs
    trials = trials_of(url)
    check_exact(trials, N_TRIALS)
    (lost,) = [trial for trial in trials if trial.state == TrialState.FAIL]
    assert lost.user_attrs["owner"]["pid"] == sleeper.pid
    assert f"trial {lost.number}," in outputs[0]
    assert "dropped: ended or deleted by somebody else" in outputs[0]
    silence = f"Nothing was heard of process {sleeper.pid} on {socket.gethostname()} for 1 s"
    before, _, after = " ".join(outputs[1].split()).partition(silence)
    assert after.startswith(" or longer; what it trains is taken over after 3 s of silence.")
    assert "taken over, as its host fell silent" not in before


def test_an_interrupted_host_leaves_its_trials_to_the_other(
    hosts: tuple[Command, Command], url: str
) -> None:
    first, second = started(hosts, url, "--workers", "1", n_trials=4)
    os.killpg(first.pid, signal.SIGINT)
    assert first.wait() == 130
    output, _ = second.communicate()
    assert second.returncode == 0, output
    check_exact(trials_of(url), 4)


def test_hosts_that_differ_in_their_settings_do_not_share_a_study(
    hosts: tuple[Command, Command], url: str
) -> None:
    options = (*DIGITS_RUN, "--storage", url, "--workers", "1", "--trials", "2", "--no-confirm")
    first = hosts[0].start(*options, "--study", "s")
    wait_until(lambda: bool(trials_of(url, "s")))
    other = hosts[1](*options, "--study", "s", "--budget", "2000")
    assert other.code == 2
    assert "budget 3000 there and 2000 here" in other.err
    assert first.wait() == 0


def test_a_password_comes_from_the_environment_or_from_a_pgpass_file(
    command: Command, postgres: Postgres
) -> None:
    url = shown(postgres.url(postgres.new_database(), username="guarded"))
    options = (*DIGITS_RUN, "--epochs", "1", "--trials", "1", "--storage", url)
    without = command.apart("studies", "--storage", url)
    assert without.code == 2
    assert "cannot be opened" in without.err
    assert command.apart(*options, PGPASSWORD=PASSWORD).code == 0
    file = command.folder / "pgpass"
    file.write_text(f"*:*:*:guarded:{PASSWORD.replace(':', chr(92) + ':')}\n")
    file.chmod(0o600)
    listed = command.apart("studies", "--storage", url, PGPASSFILE=str(file))
    assert listed.code == 0, listed.err
    assert "digits-3000x1" in listed.out
    assert PASSWORD not in without.err + listed.out


@pytest.fixture
def storage(url: str) -> Iterator[RetryingStorage]:
    with opened_storage(url, create=True) as storage:
        assert isinstance(storage, RetryingStorage)
        yield storage


def test_turns_are_taken_one_at_a_time_and_waiting_for_one_can_be_stopped(
    storage: RetryingStorage,
) -> None:
    inside: list[int] = []
    most: list[int] = []

    def work(number: int) -> None:
        for _ in range(5):
            with storage.lock("s", lambda: False) as is_ours:
                assert is_ours
                inside.append(number)
                most.append(len(inside))
                time.sleep(0.01)
                inside.remove(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 20
    with storage.lock("s", lambda: False):
        with storage.lock("other", lambda: False) as is_ours:
            assert is_ours
        with storage.lock("s", lambda: True) as is_ours:
            assert not is_ours


def test_a_trial_is_silent_by_the_clock_of_the_server_whatever_zone_it_has(
    storage: RetryingStorage, postgres: Postgres, url: str
) -> None:
    study = optuna.create_study(study_name="s", storage=storage)
    unheard, heard = study.ask(), study.ask()
    number: Any = study._study_id
    storage.record_heartbeat(heard._trial_id)
    assert storage.silent_trials(number, 60) == {unheard._trial_id}
    database = url.rsplit("/", 1)[1].split("?")[0]
    postgres.query(database, f"ALTER DATABASE {database} SET TIME ZONE 'Pacific/Kiritimati'")
    with opened_storage(url) as again:
        assert isinstance(again, RetryingStorage)
        assert again.silent_trials(number, 60) == {unheard._trial_id}
        again.record_heartbeat(unheard._trial_id)
        assert again.silent_trials(number, 60) == set()
    postgres.query(
        database, "UPDATE trial_heartbeats SET heartbeat = heartbeat - interval '2 minutes'"
    )
    # For longer than the server has been there, nobody can have been silent.
    assert storage.silent_trials(number, 1) == {unheard._trial_id, heard._trial_id}
    postgres.stop()  # a server that was away heard nobody
    postgres.start()
    storage.engine.dispose()
    assert storage.silent_trials(number, 60) == set()
    study.tell(heard, 1.0)
    assert storage.silent_trials(number, -60) == {unheard._trial_id}


def test_each_host_names_its_own_copy_of_a_file_of_networks(
    hosts: tuple[Command, Command], url: str
) -> None:
    for host in hosts:
        (host.folder / "net.py").write_text(RESIDUAL)
    words = (
        *("run", "--network", "net.py", "--dataset", "digits", "--budget", "3000", "--epochs", "1"),
        *("--study", NAME, "--storage", url, "--pruner", "none", "--no-confirm"),
        *("--trials", "4", "--workers", "1"),
    )
    processes = [host.start(*words) for host in hosts]
    outputs = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert sum(trial.state == TrialState.COMPLETE for trial in trials_of(url)) == 4
    (hosts[1].folder / "net.py").write_text(RESIDUAL.replace("stride=4", "stride=2"))
    refused = hosts[1](*words)
    assert refused.code == 2
    assert "(it differs in" in " ".join(refused.err.split())
