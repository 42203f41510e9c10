"""What is worth doing next with a study as it stands, and how a command shows it."""

from __future__ import annotations

import math
import os
import shutil
import socket
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest
from optuna.trial import TrialState

from search.cli.output import artifact_words, next_lines, storage_words
from search.exceptions import StudyError
from search.report.facts import read_report
from search.report.note import note_text
from search.space.space import Space
from search.storage.open import opened_storage
from search.study.history import RunRecord, record_run, remembered_data_dir
from search.study.locks import locked_file
from search.study.next_steps import NextStep, next_steps, retrain_step, steps_with_weights
from search.study.owners import owner_of, owner_of_this_process
from search.study.record import TrialRecord
from tests.conftest import Command
from tests.support.made_studies import MadeTrial, confirmation, make_study

BEST, WEAKER = MadeTrial([0.9, 0.95, 0.96]), MadeTrial([0.9, 0.94, 0.95])
LARGE = MadeTrial([0.9, 0.95, 0.96], values={"budget_share": 1.0})
FAILED, WAITING = MadeTrial(state=TrialState.FAIL), MadeTrial(state=TrialState.WAITING)
DIVERGED = MadeTrial([0.1, 0.1], TrialState.PRUNED, loss=math.nan)
USED_UP = {"space_exhausted": True}
CONFIRMED = {"confirmation": confirmation(0, {0: [0.93, 0.94, 0.95], 1: [0.9, 0.91, 0.92]})}
NEED_A_COMPLETE_TRIAL = (
    ("best",),
    ("best", "--front"),
    ("retrain",),
    ("confirm",),
    ("report", "--train"),
)
OUTCOME = {"test_accuracy": {"mean": 0.9}, "runs": [{"last_three_mean": 0.9}]}
RETRAINED = {"retrain_000001": {"trial": 0, **OUTCOME}, "test_looks": 1}
OF_ANOTHER = {"retrain_000001": {"trial": 1, **OUTCOME}, "test_looks": 1}


def _delete(database: Path) -> None:
    """With its log, which stays as long as a test has a study open."""
    for path in database.parent.glob(f"{database.name}*"):
        path.unlink()


def steps_of(folder: Path, trials: list[MadeTrial], **options: Any) -> list[NextStep]:
    study = make_study(f"sqlite:///{folder / 'studies.db'}", "made", trials, **options)
    steps = next_steps(study, study.get_trials())
    return [*filter(None, [steps.go_on]), *steps.with_result, *filter(None, [steps.search_on])]


@pytest.mark.parametrize(
    ("trials", "options", "commands"),
    [
        ([FAILED], {}, "run"),  # no trial is complete
        ([BEST, FAILED], {}, "run show confirm retrain report dashboard"),
        ([BEST, WEAKER], {}, "show confirm retrain report dashboard run"),
        ([BEST, WEAKER], {"attributes": CONFIRMED}, "show retrain report dashboard run"),
        ([BEST, WEAKER], {"attributes": RETRAINED}, "show confirm report dashboard run"),
        ([BEST, WEAKER], {"attributes": OF_ANOTHER}, "show confirm retrain report dashboard run"),
        ([LARGE], {"objective": "accuracy,size"}, "show best retrain report dashboard run"),
        ([BEST], {"dataset": "tensors:photos"}, "show report dashboard"),
        ([FAILED], {"dataset": "tensors:photos"}, ""),
        ([DIVERGED], {}, "space"),  # the end of its search, and more would diverge, too
        ([DIVERGED, FAILED], {}, "run"),
        ([BEST, FAILED], {"attributes": USED_UP}, "show confirm retrain report dashboard"),
        ([BEST, WEAKER], {"attributes": USED_UP}, "show confirm retrain report dashboard"),
        ([BEST, WAITING], {"attributes": USED_UP}, "run show confirm retrain report dashboard"),
    ],
)
def test_the_steps_follow_from_how_a_study_stands(
    tmp_path: Path, trials: list[MadeTrial], options: dict[str, Any], commands: str
) -> None:
    assert [step.command for step in steps_of(tmp_path, trials, **options)] == commands.split()


def test_what_helps_a_study_all_of_whose_trials_diverged_is_told_by_all_that_need_one(
    command: Command,
) -> None:
    make_study(f"sqlite:///{command.database}", "made", [DIVERGED])
    why = "search smaller learning rates, as another study ('search run' with --space and --study)"
    for words in NEED_A_COMPLETE_TRIAL:
        refused = command(*words)
        assert refused.code == 2
        assert why in " ".join(refused.err.split())
    assert why in " ".join(command().out.split())
    with opened_storage(f"sqlite:///{command.database}") as storage:
        study = optuna.load_study(study_name="made", storage=storage)
        assert f"No trial is complete yet; {why}" in note_text(read_report(study), "")


@pytest.mark.parametrize("words", NEED_A_COMPLETE_TRIAL, ids=" ".join)
def test_what_needs_a_complete_trial_sends_nobody_to_a_search_that_is_refused(
    command: Command, words: tuple[str, ...]
) -> None:
    """Another search is refused while one runs, and finds nothing where the space is used up."""
    url = f"sqlite:///{command.database}"
    other = psutil.Process(os.getppid())
    owner = TrialRecord(owner=owner_of(other)).to_attributes()
    make_study(url, "made", [FAILED, MadeTrial(state=TrialState.RUNNING, attributes=owner)])
    searched = command(*words)
    assert searched.code == 2
    assert f"process {other.pid} on {socket.gethostname()}" in " ".join(searched.err.split())
    assert "go on with" not in searched.err

    _delete(command.database)
    make_study(url, "made", [FAILED], attributes=USED_UP)
    used_up = command(*words)
    assert used_up.code == 2
    assert "search a larger space, as another study" in " ".join(used_up.err.split())


def test_what_is_searched_now_is_not_to_be_searched_on(command: Command) -> None:
    """Where a search would be refused, or is another host's: whose it is, is told instead."""
    owner = TrialRecord(owner=owner_of_this_process()).to_attributes()
    running = MadeTrial(state=TrialState.RUNNING, attributes=owner)
    url = f"sqlite:///{command.database}"
    for trials in ([FAILED, running], [BEST, running]):
        study = make_study(url, "made", trials)
        steps = next_steps(study, study.get_trials())
        assert (steps.go_on, steps.search_on) == (None, None)
        assert steps.searched_by == f"process {os.getpid()} on {socket.gethostname()}"
        overview = command()
        assert f"It is being searched now, by {steps.searched_by}." in " ".join(
            overview.out.split()
        )
        assert "search run" not in overview.out
        note = note_text(read_report(study), "")
        assert "go on with the search" not in note
        assert f"## Next\n\nIt is being searched, by {steps.searched_by}.\n" in note
        assert "search confirm" not in note
        assert ("search show 0 --study made" in note) is (BEST in trials)
        _delete(command.database)


def test_what_a_process_has_locked_is_not_to_be_searched_on_between_two_trials(
    command: Command,
) -> None:
    """While data are loaded, and while the best trials race, no trial runs."""
    study = make_study(f"sqlite:///{command.database}", "made", [FAILED])
    with locked_file(command.database, study):
        steps = next_steps(study, study.get_trials())
        assert steps.go_on is None
        assert steps.searched_by == f"process {os.getpid()} on {socket.gethostname()}"
        assert "search run" not in command().out
        refused = command("confirm")
        assert steps.searched_by in " ".join(refused.err.split())
        assert next_steps(study, study.get_trials(), is_leaving=True).go_on is not None
    assert next_steps(study, study.get_trials()).go_on is not None


def test_a_study_whose_lock_was_deleted_is_not_searched_twice(command: Command) -> None:
    url = f"sqlite:///{command.database}"
    make_study(url, "made", [])
    program = "import signal, sys; file = open(sys.argv[1]); print(flush=True); signal.pause()"
    another = command.start_words([sys.executable, "-c", program, str(command.database)])
    assert another.stdout is not None
    assert another.stdout.readline()
    started = psutil.Process(another.pid).create_time() - psutil.boot_time()
    owner = replace(owner_of_this_process(), pid=another.pid, started=started)
    running = MadeTrial(
        state=TrialState.RUNNING, attributes=TrialRecord(owner=owner).to_attributes()
    )
    study = make_study(url, "searched", [BEST, running])
    with (
        pytest.raises(StudyError, match=f"process {another.pid} on .* is searching 'searched'"),
        locked_file(command.database, study),
    ):
        pass
    refused = command("confirm", "--study", "searched")
    assert f"process {another.pid} on" in " ".join(refused.err.split())
    assert study.trials[1].state == TrialState.RUNNING

    copy = command.database.with_name("copy.db")
    shutil.copy(command.database, copy)
    with locked_file(copy, optuna.load_study(study_name="searched", storage=f"sqlite:///{copy}")):
        pass  # the process searches another database


def test_a_study_remembers_where_its_data_lie(command: Command) -> None:
    url = f"sqlite:///{command.database}"
    study = make_study(url, "made", [BEST, WEAKER], dataset="mnist")
    assert remembered_data_dir(study) is None
    folder = command.folder / "images"
    folder.mkdir()
    (folder / "notes.txt").touch()
    run: dict[str, Any] = dict.fromkeys(("n_workers", "n_trials", "seed"), 1)
    run |= {"sampler": "tpe", "pruner": "none", "device": "cpu", "patience": None, "target": None}
    record_run(study, RunRecord.now(**run, data_dir=folder))
    record_run(study, RunRecord.now(**run))
    assert remembered_data_dir(study) == folder
    # Each command looks there: what it does not find is named.
    again = ("run", "--dataset", "mnist", "--budget", "3000", "--epochs", "3", "--study", "made")
    for words in (("retrain",), again):
        assert str(folder) in "".join(command(*words).err.split("\n")), words
    shutil.rmtree(folder)
    assert remembered_data_dir(study) is None


def test_a_search_that_lacks_trials_goes_on_and_one_that_has_them_is_doubled(
    tmp_path: Path,
) -> None:
    first, *_ = steps_of(tmp_path, [BEST, FAILED, FAILED])
    assert first.purpose == "go on with the search"
    assert "--trials 3 --space standard --study made" in " ".join(first.words)
    _delete(tmp_path / "studies.db")
    *_, last = steps_of(tmp_path, [BEST, WEAKER])
    assert last.purpose == "search on"
    assert "--trials 4 --space standard --study made" in " ".join(last.words)


def test_a_search_goes_on_without_the_file_that_its_space_was_read_from(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text("momentum = 0.9\n")
    space = Space.load(str(file), parameter_cap=3000)
    *_, last = steps_of(tmp_path, [BEST], space=space)
    assert "--trials 2 --study made" in " ".join(last.words)


def test_a_command_is_shown_with_where_its_database_and_its_data_are() -> None:
    url = "postgresql+psycopg://ada:hunter2@host/db"
    steps = [
        retrain_step("made", 7),
        *steps_with_weights(Path("weights"), "made", "digits"),
    ]
    lines = list(next_lines(steps, 200, storage=url, data=["--data-dir", "images"]))
    there = "--storage 'postgresql+psycopg://ada:***@host/db'"
    assert [line.removeprefix("  ").removeprefix("uv run ") for line in lines] == [
        "\nNext:",
        f"search retrain --trial 7 --study made {there} --data-dir images"
        "  # train it on all data, test it, keep its weights",
        # Where its look at the test set is counted.
        f"search pictures weights {there} --data-dir images  # how it learnt and where it errs",
        "search export weights --out network.onnx --data-dir images  # take it elsewhere",
        f"search report --study made {there}  # the study's story on one page",
        "*** stands for the password; put the whole URL into SEARCH_STORAGE instead.",
    ]
    seen = NextStep(("dashboard",), "look", reads_artifacts=True)
    artifacts = artifact_words(Path("own curves"))
    (_, line) = next_lines([seen], 200, storage="sqlite:///studies.db", artifacts=artifacts)
    assert line.endswith("search dashboard --artifacts 'own curves'  # look")
    (_, purpose, command, _) = next_lines(steps[1:2], 40, storage=url)
    assert purpose == "  # how it learnt and where it errs"
    assert command.endswith(f"search pictures weights {there}")


@pytest.mark.parametrize(
    ("storage", "environment", "words"),
    [
        ("sqlite:///studies.db", {}, ""),
        ("sqlite:///a b.db", {}, "--storage sqlite:///a b.db"),
        ("sqlite:///own.db", {"SEARCH_STORAGE": "sqlite:///own.db"}, ""),
        # Without the option the command would look into the one that the environment names.
        (
            *("sqlite:///studies.db", {"SEARCH_STORAGE": "sqlite:///own.db"}),
            "--storage sqlite:///studies.db",
        ),
        # The server of a queue has set it, not who reads the log.
        (
            *("sqlite:///own.db", {"SEARCH_STORAGE": "sqlite:///own.db", "SEARCH_JOB": "1"}),
            "--storage sqlite:///own.db",
        ),
    ],
)
def test_a_command_names_its_database_unless_whoever_types_it_has_it_named(
    storage: str, environment: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SEARCH_STORAGE", "SEARCH_JOB"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert " ".join(storage_words(storage)) == words


def test_a_network_is_taken_elsewhere_in_a_way_that_is_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def exported() -> str:
        steps = steps_with_weights(Path("weights"), "made", "digits")
        (words,) = (step.words for step in steps if step.command == "export")
        return words[-1]

    assert exported() == "network.onnx"
    for package in ("onnx", "onnxruntime"):
        with monkeypatch.context() as without:
            without.setitem(sys.modules, package, None)
            assert exported() == "network.py"
