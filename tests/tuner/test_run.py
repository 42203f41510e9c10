"""`search run` from its first line to its last, on real data with real processes."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import pty
import signal
import tempfile
import threading
import tomllib
import weakref
from dataclasses import replace
from pathlib import Path

import optuna
import psutil
import pytest
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from search.cli.output import heard_interrupts, stop_signals
from search.exceptions import DataError
from search.space.adaptive import Situation, adaptive_table
from search.space.space import Space
from search.space.toml import to_toml
from search.study.history import StudyLength, make_last_used, run_records
from search.study.length import Stagnation, is_stagnant
from search.study.open import rebuild
from search.study.record import TrialRecord
from search.study.repair import requeue, requeue_left
from search.study.settings import StudySettings
from search.tuner.options import SearchRequest
from search.tuner.plan import plan_search
from search.tuner.request import check_request
from tests.conftest import (
    DIGITS_RUN,
    ENDLESS,
    Command,
    alive,
    n_reported,
    run_here,
    start_long_run,
    wait_until,
)
from tests.support.made_studies import MadeTrial, make_study
from tests.support.prepared import PreparedProcess, preparation

NAME = "digits-3000x3"


def stop(process: PreparedProcess, number: signal.Signals) -> str:
    """Sends a signal to all of a search's processes, as a terminal does; returns its output."""
    os.killpg(process.pid, number)
    out, _ = process.communicate()
    assert process.wait() == 130, out
    return out


def read_all(terminal: int) -> None:
    """Reads what a terminal is told, so that nobody who writes to it has to wait."""
    with contextlib.suppress(OSError):
        while os.read(terminal, 4096):
            pass


def test_every_trial_is_trained_and_under_the_cap(finished: Command) -> None:
    study = finished.study(NAME)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 4
    for trial in study.trials:
        spec = rebuild(study, trial).spec
        assert spec.parameter_count == trial.user_attrs["parameter_count"] < 3000


def test_the_default_space_adapts_and_a_study_keeps_the_one_that_it_was_begun_with(
    command: Command,
) -> None:
    run = ("run", "--dataset", "digits", "--budget", "1200", "--epochs", "1", "--workers", "1")
    done = command(*run, "--trials", "1")
    assert done.code == 0, done.err
    assert "adaptive: " in done.out
    study = command.study("digits-1200x1")
    situation = Situation(n_training=1_079, epochs=1, parameter_cap=1_200)
    settings = study.user_attrs["settings"]
    assert settings["space"] == json.loads(json.dumps(adaptive_table(situation)))
    # As a later version might make another one of the same images.
    other = {**settings["space"], "momentum": 0.5}
    study.set_user_attr("settings", {**settings, "space": other})
    study.set_user_attr("marked_from", 0)
    more = command(*run, "--trials", "2")
    assert more.code == 0, more.err
    assert rebuild(study, study.trials[-1]).momentum == 0.5


def test_a_study_of_the_former_default_goes_on_in_its_space(finished: Command) -> None:
    run = ("run", "--dataset", "digits", "--budget", "3000", "--epochs", "3", "--pruner", "none")
    done = finished(*run, "--trials", "4")
    assert done.code == 0, done.err
    assert "standard, in which the study was begun: 13 hyperparameters" in " ".join(
        done.out.split()
    )


def test_the_first_trial_has_the_values_with_which_the_space_begins(finished: Command) -> None:
    first = Space.load("standard", parameter_cap=3000).first()
    assert finished.study(NAME).trials[0].params == first
    assert finished.study(NAME).trials[1].params != first


def test_a_trial_keeps_all_that_is_known_of_it(finished: Command) -> None:
    trial = finished.study(NAME).trials[0]
    epochs = trial.user_attrs["epochs"]
    assert [epoch["epoch"] for epoch in epochs] == [1, 2, 3]
    assert set(epochs[0]) == {
        "epoch",
        "training_loss",
        "training_accuracy",
        "learning_rate",
        "loss",
        "accuracy",
        "seconds",
    }
    assert trial.intermediate_values == {epoch["epoch"]: epoch["accuracy"] for epoch in epochs}
    assert trial.value == pytest.approx(sum(epoch["accuracy"] for epoch in epochs) / 3)
    assert trial.user_attrs["seconds"] > 0
    assert trial.user_attrs["worker"].endswith(("/0", "/1"))
    assert isinstance(trial.user_attrs["training_seed"], int)


def test_a_study_keeps_how_it_was_made(finished: Command) -> None:
    study = finished.study(NAME)
    settings = StudySettings.from_study(study)
    assert (settings.budget, settings.epochs, settings.dataset) == (3000, 3, "digits")
    assert len(settings.data_fingerprint) == len(settings.split_fingerprint) == 64
    (run,) = run_records(study)
    assert (run["sampler"], run["pruner"], run["seed"]) == ("tpe", "none", 1)
    assert set(run["versions"]) == {"python", "torch", "optuna", "budget-search"}


def test_the_database_alone_is_whole_when_the_command_ends(finished_folder: Path) -> None:
    names = {path.name for path in finished_folder.glob("[!.]*")}
    assert names == {"studies.db", "studies.db-artifacts"}


def test_it_says_what_it_does_and_what_comes_next(finished_output: str) -> None:
    for shown in (
        "digits-3000x3, new",
        "digits (embedded in scikit-learn): 1,079 images train, 359 validate",
        "standard: 13 hyperparameters searched",
        "fewer than 3,000 parameters, 3 epochs",
        "the highest accuracy (the mean of all 3 epochs, early ones included)",
        "4 trained in total; sampler tpe, pruner none, seed 1",
        "2 on cpu",
        "sqlite:///studies.db",
        "[4/4] trial ",
        "(best so far)",
        "Best: ",
        "search retrain --study digits-3000x3",
    ):
        assert shown in finished_output


def test_a_reached_total_says_how_to_get_more_and_more_goes_on(finished: Command) -> None:
    again = finished(*DIGITS_RUN, "--trials", "4")
    assert again.code == 0
    assert "has its 4 trained trials" in again.out
    more = finished(*DIGITS_RUN, "--trials", "6", "--sampler", "random", "--seed", "7")
    assert more.code == 0, more.err
    assert "goes on with 4 trained trials" in more.out
    study = finished.study(NAME)
    assert len(study.trials) == 6
    assert len({str(trial.params) for trial in study.trials}) == 6
    settings = [(run["sampler"], run["seed"], run["n_trials"]) for run in run_records(study)]
    assert settings == [("tpe", 1, 4), ("tpe", 0, 4), ("random", 7, 6)]


def test_it_says_that_another_than_its_best_won_the_race(finished: Command) -> None:
    assert finished("confirm", "--top", "2", "--seeds", "2").code == 0
    study = finished.study(NAME)
    outcome = study.user_attrs["confirmation"]
    winner = next(
        row["trial"] for row in outcome["candidates"] if row["trial"] != study.best_trial.number
    )
    study.set_user_attr("confirmation", {**outcome, "trial": winner})
    done = finished(*DIGITS_RUN, "--trials", "4")
    assert done.code == 0, done.err
    assert f"Over fresh seeds trial {winner} was the best: it won the race before." in done.out
    assert f"show {winner} --study" in done.out


def test_a_search_trains_with_elastic_distortion_where_the_space_says_so(command: Command) -> None:
    (command.folder / "space.toml").write_text("elastic = { low = 0.02, high = 0.03 }")
    options = ("--space", "space.toml", "--trials", "1", "--workers", "1", "--no-confirm")
    done = command(*DIGITS_RUN, *options)
    assert done.code == 0, done.err
    study = command.study(NAME)
    (trial,) = study.trials
    assert 0.02 <= rebuild(study, trial).augmentation.elastic == trial.params["elastic"] <= 0.03


def test_a_study_of_an_earlier_version_is_shown_and_goes_on(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    (command.folder / "space.toml").write_text("budget_share = 0")
    as_drawn = (*DIGITS_RUN, "--space", "space.toml")
    made = command(*as_drawn, "--trials", "2")
    assert made.code == 0, made.err
    study = command.study(NAME)
    settings = study.user_attrs["settings"]
    del settings["objective"], settings["space"]["budget_share"]  # those came later
    study.set_user_attr("settings", {**settings, "space_name": "standard"})
    for key, run in study.user_attrs.items():
        if key.startswith("run_"):
            del run["patience"], run["target"]
            study.set_user_attr(key, run)
    url = f"sqlite:///{command.database}"

    assert run_here("best", "--json", "--storage", url) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["trial"] == study.best_trial.number
    assert shown["network"] == str(rebuild(study, study.best_trial).spec)
    assert run_here(*DIGITS_RUN, "--storage", url) == 2  # the space standard is another by now
    refused = " ".join(capsys.readouterr().err.split())
    assert "budget_share of the space: 0.0 there and 1.0 here" in refused
    assert "can stand in a file for --space" in refused
    more = command(*as_drawn, "--trials", "3")
    assert more.code == 0, more.err
    assert "goes on with 2 trained trials" in more.out
    trials = command.study(NAME).trials
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 3
    assert trials[2].user_attrs["parameter_count"] < 3000


def test_trained_trials_are_counted_exactly_with_pruning_and_more_workers_than_cores(
    command: Command,
) -> None:
    options = (*DIGITS_RUN, "--pruner", "halving", "--epochs", "4")
    done = command(*options, "--trials", "9", "--workers", "3", "--no-confirm")
    assert done.code == 0, done.err
    trials = command.study("digits-3000x4").trials
    assert len(trials) == 9
    states = {trial.state for trial in trials}
    assert states == {TrialState.COMPLETE, TrialState.PRUNED}
    assert trials[0].state == TrialState.COMPLETE  # which a search begins with
    for trial in trials:
        pruned = trial.state == TrialState.PRUNED
        assert (len(trial.user_attrs["epochs"]) < 4) == pruned
        assert ("reason" in trial.user_attrs) == pruned


def test_a_run_leaves_nothing_in_the_temporary_folder(command: Command) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # a short path, as sockets go there
        done = command.apart(*DIGITS_RUN, "--trials", "1", TMPDIR=folder)
        assert done.code == 0, done.err
        assert "Best: " in done.out
        left = [path.name for path in Path(folder).iterdir()]
    assert all(name.startswith("torchinductor") for name in left), left  # PyTorch's own cache


def test_a_run_replays_to_the_digit(command: Command) -> None:
    first, second = ((*DIGITS_RUN, "--study", name, "--workers", "1") for name in "ab")
    for options in (first, second):
        assert command(*options, "--trials", "2").code == 0
    a, b = (command.study(name) for name in "ab")
    assert [trial.params for trial in a.trials] == [trial.params for trial in b.trials]
    accuracies = [[trial.intermediate_values for trial in study.trials] for study in (a, b)]
    assert accuracies[0] == accuracies[1]


def test_ctrl_c_keeps_everything_and_the_same_command_goes_on(command: Command) -> None:
    process = start_long_run(command)
    children = psutil.Process(process.pid).children(recursive=True)
    out = stop(process, signal.SIGINT)
    assert "The same command goes on" in out
    wait_until(lambda: not alive(children))
    trials = command.study("long").trials
    assert [trial.state for trial in trials] == [TrialState.FAIL] * 2 + [TrialState.WAITING] * 2
    assert {trial.user_attrs["reason"] for trial in trials[:2]} == {"interrupted"}

    resumed = start_long_run(command, first=2)
    trials = command.study("long").trials
    assert [trial.params for trial in trials[2:4]] == [trial.params for trial in trials[:2]]
    seeds = [trial.user_attrs["training_seed"] for trial in trials[:4]]
    assert seeds[2:] == seeds[:2]
    server = psutil.Process(resumed.pid).children()
    hanging = next(child for process in server for child in process.children())
    hanging.suspend()  # which a stop must not wait for
    stop(resumed, signal.SIGTERM)
    assert not alive([hanging])
    states = [trial.state for trial in command.study("long").trials]
    assert states == [TrialState.FAIL] * 4 + [TrialState.WAITING] * 2


def test_what_a_killed_search_left_running_is_queued_again(command: Command) -> None:
    process = start_long_run(command)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_until(lambda: not alive(children))
    trials = command.study("long").trials
    assert [trial.state for trial in trials] == [TrialState.RUNNING] * 2

    resumed = start_long_run(command, first=2)
    trials = command.study("long").trials
    assert [trial.state for trial in trials] == [TrialState.FAIL] * 2 + [TrialState.RUNNING] * 2
    assert [trial.user_attrs["repeats"] for trial in trials[2:]] == [0, 1]

    stop(resumed, signal.SIGHUP)


def test_a_closed_terminal_puts_back_what_runs_and_ends_the_search(command: Command) -> None:
    ours, theirs = pty.openpty()
    process = preparation().start(
        ["-m", "search", *DIGITS_RUN, *ENDLESS, "--trials", "4", "--workers", "2"],
        folder=command.folder,
        environment={key: value for key, value in command.environment.items() if key != "CI"},
        terminal=os.ttyname(theirs),
    )
    command.started.append(process)
    os.close(theirs)
    threading.Thread(target=read_all, args=(ours,), daemon=True).start()
    wait_until(lambda: n_reported(command, "long") >= 4)
    servers = psutil.Process(process.pid).children()
    workers = [worker for server in servers for worker in server.children()]
    assert len(workers) == 2
    os.close(ours)
    wait_until(lambda: process.poll() is not None)
    assert not alive(workers)
    wait_until(lambda: not alive(servers))  # they have to unload PyTorch
    states = [trial.state for trial in command.study("long").trials]
    assert states == [TrialState.FAIL] * 2 + [TrialState.WAITING] * 2


def test_a_second_ctrl_c_does_not_wait_for_whoever_asks() -> None:
    with stop_signals() as should_stop:
        assert not should_stop()
        for number in (signal.SIGHUP, signal.SIGHUP, signal.SIGTERM):  # a closed terminal sends two
            signal.raise_signal(number)
            assert should_stop()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    with stop_signals() as should_stop:
        signal.raise_signal(signal.SIGINT)
        assert should_stop()


@pytest.mark.parametrize("name", ["SIGHUP", "SIGTERM"])
def test_a_stop_that_is_ignored_where_it_starts_stays_so(name: str) -> None:
    """`nohup` has a closed terminal ignored; what a shell starts in the background hears Ctrl-C."""
    ignored = (getattr(signal, name), signal.SIGINT)
    before = [signal.signal(number, signal.SIG_IGN) for number in ignored]
    try:
        with stop_signals() as should_stop:
            signal.raise_signal(ignored[0])
            assert not should_stop()
            signal.raise_signal(signal.SIGINT)
            assert should_stop()
        with heard_interrupts():
            signal.raise_signal(ignored[0])
        assert [signal.getsignal(number) for number in ignored] == [signal.SIG_IGN] * 2
    finally:
        for number, handler in zip(ignored, before, strict=True):
            signal.signal(number, handler)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_that_python_drops_while_it_imports_is_heard() -> None:
    class Module:
        pass

    def stop(_: weakref.ref[Module]) -> None:  # as a lock of the import system, once it is let go
        signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    done = []

    def load() -> None:
        with heard_interrupts():
            module = Module()
            reference = weakref.ref(module, stop)
            del module
            done.append(reference())  # Python has gone on

    try:
        with pytest.raises(KeyboardInterrupt):
            load()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert done == [None]


def test_ctrl_c_of_which_a_compiled_module_makes_an_error_of_its_own_is_heard() -> None:
    def load(*, is_stopped: bool) -> None:
        with heard_interrupts():
            try:
                if is_stopped:
                    signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt as stop:  # as pybind11 does
                raise ImportError("KeyboardInterrupt: <EMPTY MESSAGE>") from stop
            raise ImportError("no such library")

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            load(is_stopped=True)
        with pytest.raises(ImportError, match="no such library"):
            load(is_stopped=False)
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_study_deleted_while_it_runs_ends_the_search_with_a_clear_error(
    command: Command,
) -> None:
    process = start_long_run(command)
    optuna.delete_study(study_name="long", storage=f"sqlite:///{command.database}")
    out, _ = process.communicate()
    assert process.returncode == 1
    assert "'long' was deleted" in out
    assert "Traceback" not in out


def test_hand_made_trials_are_trained_or_refused(command: Command) -> None:
    (command.folder / "space.toml").write_text("budget_share = 0", encoding="utf-8")
    search = (*DIGITS_RUN, "--space", "space.toml")
    first = command(*search, "--trials", "4")
    assert first.code == 0, first.err
    study = command.study(NAME)
    good = {**study.trials[0].params, "momentum": 0.9}
    study.enqueue_trial(good)
    study.enqueue_trial({**good, "width_4": 32, "width_5": 32})  # over the cap
    study.enqueue_trial({"momentum": 1.5})
    study.enqueue_trial({"learning_rat": 0.1})
    more = command(*search, "--trials", "6")
    assert more.code == 0, more.err
    queued, large, outside, unknown = command.study(NAME).trials[4:8]
    assert queued.state == TrialState.COMPLETE
    assert queued.params == good
    assert large.state == TrialState.PRUNED
    assert "not fewer than the budget of 3,000" in large.user_attrs["reason"]
    assert large.constraints["parameters"] == large.user_attrs["parameter_count"] - 2999
    assert "epochs" not in large.user_attrs
    assert (outside.state, unknown.state) == (TrialState.FAIL, TrialState.FAIL)
    assert outside.user_attrs["reason"] == "momentum = 1.5 is outside its range in this space"
    assert "learning_rat is not searched" in unknown.user_attrs["reason"]


def test_what_a_person_queues_again_is_refused_once_it_is_trained(finished: Command) -> None:
    study = finished.study(NAME)
    new = {**study.trials[0].params, "momentum": 0.85}
    for _ in range(11):  # more than may fail in a row
        study.enqueue_trial(study.trials[2].params)
    study.enqueue_trial(new)
    study.enqueue_trial(new)
    done = finished(*DIGITS_RUN, "--trials", "6", "--workers", "2")
    assert done.code == 0, done.err
    *refused, first, second, last = finished.study(NAME).trials[4:]
    assert {trial.state for trial in refused} == {TrialState.FAIL}
    assert {trial.user_attrs["reason"] for trial in refused} == {
        "trial 2 trained this configuration already"
    }
    assert (first.state, first.params) == (TrialState.COMPLETE, new)
    assert second.state == TrialState.FAIL
    assert second.user_attrs["reason"] == f"trial {first.number} trains this configuration already"
    assert (last.state, last.number) == (TrialState.COMPLETE, 17)
    assert last.params != new


def test_a_search_of_a_small_space_ends_when_all_of_it_is_trained(command: Command) -> None:
    standard = tomllib.loads(to_toml("standard"))
    fixed = {
        key: value["low"] if isinstance(value, dict) else value for key, value in standard.items()
    }
    lines = {**fixed, "width_1": [4, 5], "batch_size": [64, 128]}
    (command.folder / "small.toml").write_text(
        "\n".join(f"{key} = {value!r}" for key, value in lines.items())
    )
    options = (*DIGITS_RUN, "--epochs", "1", "--space", "small.toml", "--workers", "2")
    done = command(*options, "--trials", "3")
    assert done.code == 0, done.err
    assert "no untried configuration" not in done.out
    for _ in range(2):
        done = command(*options, "--trials", "9")
        assert done.code == 0, done.err
        assert "The space has no untried configuration left" in done.out
        assert "The same command goes on" not in done.out
        trials = command.study("digits-3000x1").trials
        assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 4
        assert len({str(trial.params) for trial in trials}) == 4
        assert "search run" not in command().out  # what to do next


def test_a_loss_that_is_not_finite_prunes_its_trial_and_counts(command: Command) -> None:
    space = command.folder / "wild.toml"
    space.write_text("learning_rate = 100.0\nmomentum = 0.98\nweight_decay = 10.0\n")
    done = command(*DIGITS_RUN, "--space", str(space), "--trials", "2", "--epochs", "9")
    assert done.code == 0, done.err
    assert "For more, give the same command" not in done.out
    assert "search smaller learning rates" in " ".join(done.out.split())
    trials = command.study("digits-3000x9").trials
    assert len(trials) == 2
    assert {trial.state for trial in trials} == {TrialState.PRUNED}
    assert trials[0].user_attrs["reason"] == "the loss is not finite"
    assert trials[0].user_attrs["epochs"][-1]["training_loss"] is None


@pytest.mark.parametrize(
    ("batches", "largest"),
    [
        ("[4000, 5000]", 5000),
        ("[16, 1079]", 1079),  # one image more than train where another part validates
        ("{ low = 16, high = 2000 }", 2000),
    ],
)
def test_a_space_with_batches_that_are_too_large_is_refused(
    batches: str, largest: int, command: Command
) -> None:
    space = command.folder / "huge.toml"
    space.write_text(f"batch_size = {batches}\n")
    done = command(*DIGITS_RUN, "--space", str(space), "--trials", "50")
    assert done.code == 2
    assert f"has batches of {largest} images, and 1,078 train" in done.err
    assert not command.database.exists()


def test_two_searches_that_start_together_never_share_a_study(finished: Command) -> None:
    options = (*DIGITS_RUN, "--trials", "6", "--workers", "1")
    processes = [finished.start(*options) for _ in range(2)]
    outputs = [process.communicate()[0] for process in processes]
    assert sorted(process.wait() for process in processes) == [0, 2], outputs
    assert "One search at a time" in "".join(outputs)
    assert len(finished.study(NAME).trials) == 6


def test_a_trial_that_a_person_failed_is_not_queued_again_on_interruption(
    storage: RDBStorage,
) -> None:
    study = optuna.create_study(storage=storage, direction="maximize")
    study.ask()
    study.tell(0, state=TrialState.FAIL)
    requeue(study, study.trials[0])
    assert [trial.state for trial in study.trials] == [TrialState.FAIL]


def test_a_study_that_minimises_is_refused(command: Command) -> None:
    optuna.create_study(study_name="other", storage=f"sqlite:///{command.database}")
    done = command(*DIGITS_RUN, "--study", "other")
    assert done.code == 2
    assert "must have the objective accuracy" in done.err


def test_names_that_look_like_markup_are_printed_as_they_are(command: Command) -> None:
    (command.folder / "a[b].toml").write_text("momentum = 0.9\n")
    options = (*DIGITS_RUN, "--study", "x[/y]", "--space", "a[b].toml", "--trials", "1")
    done = command(*options)
    assert done.code == 0, done.err
    assert "a[b].toml: 12 hyperparameters" in done.out
    assert "x[/y]" in command("studies").out


def test_a_tiny_budget_works(command: Command) -> None:
    done = command(
        "run", "--dataset", "digits", "--budget", "800", "--epochs", "1", "--trials", "2"
    )
    assert done.code == 0, done.err
    counts = [trial.user_attrs["parameter_count"] for trial in command.study("digits-800x1").trials]
    assert len(counts) == 2
    assert max(counts) < 800
    assert min(counts) > 500  # what is there to use is used
    assert "redrawn" not in done.out


def test_timeout_ends_the_search_and_puts_back_what_runs(command: Command) -> None:
    done = command(*DIGITS_RUN, *ENDLESS, "--timeout", "2s")
    assert done.code == 0, done.err
    assert "The time is over" in done.out
    states = [trial.state for trial in command.study("long").trials]
    assert TrialState.RUNNING not in states
    # Where two seconds are too few to begin, none runs, and what the study tries first may wait:
    # `test_faults.py` does not go by time.
    has_begun = states not in ([], [TrialState.WAITING])
    assert not has_begun or states.count(TrialState.WAITING) == states.count(TrialState.FAIL) > 0


def test_a_study_that_no_longer_improves_ends_itself_and_goes_on_with_more_patience(
    command: Command,
) -> None:
    # Rates that train nothing: no value is better than another by more than noise.
    (command.folder / "still.toml").write_text("learning_rate = { low = 1e-8, high = 2e-8 }\n")
    options = (*DIGITS_RUN, "--epochs", "1", "--space", "still.toml", "--workers", "1")
    done = command(*options, "--trials", "40", "--patience", "2")
    assert done.code == 0, done.err
    assert "until 2 in a row bring nothing better, at most 40 trained" in done.out
    assert "No better trial in the last 2." in done.out
    assert "goes on with --patience 4" in done.out
    trials = command.study("digits-3000x1").trials
    assert Stagnation.of(trials, 359).n_without == 2
    assert not any(is_stagnant(StudyLength(40, 2), trials[:n], 359) for n in range(len(trials)))

    again = command(*options, "--trials", "40", "--patience", "2")
    assert again.code == 0, again.err
    assert "No better trial in the last 2." in again.out
    assert len(command.study("digits-3000x1").trials) == len(trials)

    more = command(*options, "--trials", "40", "--patience", "3")
    assert more.code == 0, more.err
    assert "No better trial in the last 3." in more.out
    assert len(command.study("digits-3000x1").trials) > len(trials)
    assert [run["patience"] for run in run_records(command.study("digits-3000x1"))] == [2, 2, 3]


def test_auto_takes_the_digits_where_mnist_is_not_to_be_had(command: Command) -> None:
    options = ("run", "--budget", "3000", "--epochs", "1", "--trials", "1")
    done = command(*options, "--data-dir", "nowhere")
    assert done.code == 0, done.err
    assert "because MNIST is not in nowhere and could not be downloaded" in done.out
    assert "--data-dir" in done.out
    again = command(*options, "--data-dir", "nowhere", "--trials", "2")
    assert again.code == 0, again.err
    assert "that of digits-3000x1, which goes on" in again.out


def test_auto_stays_with_the_data_of_a_study_whose_race_is_not_over(tmp_path: Path) -> None:
    trials = [MadeTrial(accuracies=(0.9, 0.91, 0.9 + number / 1000)) for number in range(20)]
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    make_study(url, "digits-3000x3", trials)
    raw = tmp_path / "data" / "MNIST" / "raw"  # MNIST arrives, or at least its files do
    raw.mkdir(parents=True)
    for part, kind in itertools.product(("train", "t10k"), ("images-idx3", "labels-idx1")):
        (raw / f"{part}-{kind}-ubyte").touch()
    request = SearchRequest(
        budget=3000, epochs=3, n_trials=20, storage=url, data_dir=tmp_path / "data"
    )
    plan = plan_search(check_request(request))
    assert plan.dataset.info.name == "digits"
    assert plan.dataset_note == "that of digits-3000x3, which goes on"
    usual = plan_search(check_request(replace(request, n_trials=None, confirm=False)))
    assert (usual.dataset.info.name, usual.length.n_trials) == ("digits", 100)
    with pytest.raises(DataError, match="mnist"):  # nothing is left to do for the digits
        plan_search(check_request(replace(request, confirm=False)))


def test_auto_goes_on_with_the_study_that_was_used_last(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    digits, mnist = (
        make_study(url, f"{name}-3000x3", [MadeTrial(accuracies=(0.9, 0.9, 0.9))], dataset=name)
        for name in ("digits", "mnist")
    )
    request = SearchRequest(budget=3000, epochs=3, n_trials=20, storage=url, data_dir=tmp_path)
    make_last_used(digits)
    assert (
        plan_search(check_request(request)).dataset_note == "that of digits-3000x3, which goes on"
    )
    make_last_used(mnist)
    with pytest.raises(DataError, match="The data set mnist must be in the data folder"):
        plan_search(check_request(request))


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        (("--budget", "2999", "--study", NAME), "budget 3000 there and 2999 here"),
        (("--epochs", "4", "--study", NAME), "epochs 3 there and 4 here"),
        (("--space", "wide"), "differs in: space standard there and wide here. Give"),
        (
            ("--space", "narrow.toml"),
            "differs in: learning_rate of the space: low 0.02, first 0.1 there and low 0.05 here; "
            "momentum of the space: { low = 0.8, high = 0.98, first = 0.9 } there and 0.9 here; "
            "translation of the space: { low = 0.0, high = 0.1, first = 0.04 } there and 0.0 here; "
            "weight_decay of the space: { low = 1e-06, high = 0.001, log = true, first = 0.0001 } "
            "there and 0.0 here; 1 more of the space. Give",
        ),
    ],
)
def test_a_run_that_differs_from_its_study_is_refused(
    finished: Command, options: tuple[str, ...], difference: str
) -> None:
    (finished.folder / "narrow.toml").write_text(
        "momentum = 0.9\nlearning_rate = { low = 0.05, high = 0.3, log = true }\n"
        "translation = 0.0\nweight_decay = 0.0\nwidth_5 = 12\n"
    )
    before = finished.database.read_bytes()
    done = finished(*DIGITS_RUN, *options)
    assert done.code == 2
    assert difference in done.err
    assert finished.database.read_bytes() == before


def test_sweep_queues_once_what_a_search_died_over_between_queueing_and_telling(
    storage: RDBStorage,
) -> None:
    study = optuna.create_study(storage=storage, direction="maximize")
    for _ in range(2):
        trial = study.ask()
        trial.suggest_float("momentum", 0, 1)
        TrialRecord(parameter_count=1000).write(study, trial._trial_id)
    study.enqueue_trial({"momentum": 0.5}, user_attrs={"repeats": 0, "crashes": 0})
    assert len(requeue_left(study, study.get_trials(deepcopy=False))) == 2
    states = [trial.state for trial in study.trials]
    assert states == [TrialState.FAIL] * 2 + [TrialState.WAITING] * 2
    assert [trial.user_attrs["repeats"] for trial in study.trials[2:]] == [0, 1]
