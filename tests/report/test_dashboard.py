"""`search dashboard` and the real optuna-dashboard behind it."""

from __future__ import annotations

import os
import signal
import socket

from optuna_dashboard import get_note, save_note

from search.report.dashboard_sync import DashboardSync
from search.storage.open import opened_storage
from search.study.locks import locked_file
from search.study.open import open_study
from tests.conftest import Command, start_long_run, wait_until
from tests.support.made_studies import MadeTrial, add_as_ours, confirmation, make_study
from tests.support.prepared import PreparedProcess
from tests.support.servers import call, trials_at


def start_dashboard(command: Command) -> tuple[PreparedProcess, str]:
    """The dashboard's process and its address."""
    process = command.start("dashboard", "--port", "0")
    return process, process.stdout.readline().split()[2]


def test_it_serves_the_trials_and_stops(finished: Command) -> None:
    process, address = start_dashboard(finished)
    assert address.startswith("http://127.0.0.1:")
    trials = trials_at(address)
    assert [trial["state"] for trial in trials] == ["Complete"] * 4
    keys = {attribute["key"] for attribute in trials[0]["user_attrs"]}
    assert {"parameter_count", "training_seed", "seconds"} <= keys
    assert not {"epochs", "owner"} & keys, "what pages are no place for"
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait() == 0


def test_a_trial_failed_there_while_it_runs_does_not_disturb_the_search(command: Command) -> None:
    search = start_long_run(command)
    dashboard, address = start_dashboard(command)
    first, *_ = trials_at(address)
    assert first["state"] == "Running"
    assert len(first["intermediate_values"]) > 0
    call(f"{address}api/trials/{first['trial_id']}/tell", {"state": "Fail"})
    wait_until(lambda: len(trials_at(address)) >= 3)
    os.killpg(search.pid, signal.SIGINT)
    out, _ = search.communicate()
    assert search.returncode == 130, out
    assert "trial 0" in out
    assert "by somebody else" in out
    expected = ["Fail"] * 3 + ["Waiting"] * 2  # once the dashboard has read the database again
    wait_until(lambda: [trial["state"] for trial in trials_at(address)] == expected)
    os.killpg(dashboard.pid, signal.SIGINT)
    assert dashboard.wait() == 0


def test_the_note_of_a_search_that_was_killed_names_the_best_trial_of_the_page(
    command: Command,
) -> None:
    url = f"sqlite:///{command.database}"
    made = [MadeTrial([0.8, 0.9, value]) for value in (0.92, 0.91, 0.95)]
    raced = confirmation(1, {0: (0.91, 0.92, 0.92), 1: (0.94, 0.95, 0.96)})
    make_study(url, "made", made[:2], attributes={"confirmation": raced})
    better = make_study(f"sqlite:///{command.folder / 'other.db'}", "made", made).trials[-1]
    with opened_storage(url, write=True) as storage:
        study = open_study(storage, "made")
        DashboardSync(storage, study, None).update()
        assert "## Best: trial 1" in get_note(study)
        save_note(study, get_note(study) + "\n\nof my own")
        add_as_ours(study, [better])  # and no more is written of it
    dashboard, address = start_dashboard(command)
    study_id = call(f"{address}api/studies")["study_summaries"][0]["study_id"]
    shown = call(f"{address}api/studies/{study_id}")
    assert [trial["number"] for trial in shown["best_trials"]] == [2]
    note = shown["note"]["body"]
    assert "## Best: trial 2" in note
    assert "search show 2" in note
    assert "trial 1" not in note
    assert "Confirmed" not in note
    assert note.endswith("---\n\nof my own")
    os.killpg(dashboard.pid, signal.SIGINT)
    assert dashboard.wait() == 0


def test_the_note_on_a_page_names_the_search_that_runs_and_none_that_was_killed(
    command: Command,
) -> None:
    url = f"sqlite:///{command.database}"
    study = make_study(url, "made", [MadeTrial([0.8, 0.9, 0.92])])
    searched = f"It is being searched, by process {os.getpid()} on {socket.gethostname()}."
    dashboard, address = start_dashboard(command)

    def shown() -> str:
        note: str = call(f"{address}api/studies/{study._study_id}")["note"]["body"]
        return note

    with opened_storage(url, write=True) as storage:
        DashboardSync(storage, study, None).update()
        assert searched not in shown()
        assert "search confirm" in shown()
        with locked_file(command.database, study):
            assert searched in shown()
            assert "search confirm" not in shown()
            DashboardSync(storage, study, None).update()
    assert searched in get_note(study)
    assert searched not in shown()
    assert "search confirm" in shown()
    os.killpg(dashboard.pid, signal.SIGINT)
    assert dashboard.wait() == 0


def test_a_port_that_is_taken_is_refused(finished: Command) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = finished("dashboard", "--port", str(taken.getsockname()[1]))
    assert done.code == 2
    assert "The port must be free" in done.err


def test_an_address_that_others_reach_is_refused_with_the_way_to_do_it(finished: Command) -> None:
    for host in ("0.0.0.0", "203.0.113.7", "example.org"):
        done = finished("dashboard", "--port", "8150", "--host", host)
        assert done.code == 2
        assert "'search serve' show it, which asks for a token" in " ".join(done.err.split())
        assert "ssh -L 8150:127.0.0.1:8150 THIS-HOST" in " ".join(done.err.split())
    done = finished("dashboard", "--port", "0", "--host", "0.0.0.0")
    assert "ssh -L PORT:127.0.0.1:PORT THIS-HOST" in " ".join(done.err.split())
    process = finished.start("dashboard", "--port", "0", "--host", "::1")
    assert process.stdout.readline().split()[2].startswith("http://[::1]:")
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait() == 0
