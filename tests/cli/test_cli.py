"""What every command prints and answers, and what it does with bad input."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest
from optuna.trial import TrialState
from sqlalchemy import Engine, event

from search.cli import app
from search.cli.options import duration, percentage, positive
from search.cli.output import data_words
from search.study.owners import owner_of_this_process
from search.study.record import TrialRecord
from search.study.settings import identity_of
from tests.conftest import (
    DIGITS_RUN,
    Command,
    Result,
    alive,
    read_only,
    run_here,
    start_long_run,
    wait_until,
)
from tests.support.made_studies import MadeTrial, make_study

NAME = "digits-3000x3"
COMMANDS = [command.callback.__name__ for command in app.registered_commands if command.callback]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_an_example_and_the_exit_codes(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_here(name, "--help") == 0
    out = capsys.readouterr().out
    assert f"Example: search {name}" in out
    assert "130 interrupted" in out


def test_summaries_of_the_commands_are_whole_in_a_terminal_of_80_columns(command: Command) -> None:
    command.environment["COLUMNS"] = "80"
    out = command("--help").out.partition("Commands:")[2]
    assert "  run        Search for the best network under a budget.\n" in out
    assert "..." not in out


def test_help_imports_nothing_slow() -> None:
    """`scripts/benchmarks/help_latency.py` measures what that saves."""
    slow = {"torch", "optuna", "rich", "matplotlib", "numpy", "sqlalchemy", "sklearn", "PIL"}
    slow |= {"fastapi", "uvicorn", "httpx2"}
    code = (
        "import contextlib, sys\n"
        "from search.cli import main\n"
        f"for words in {[[], *([name] for name in COMMANDS)]}:\n"
        "    with contextlib.suppress(SystemExit): main([*words, '--help'])\n"
        f"print('imported:', *({slow} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.count("130 interrupted") == len(COMMANDS) + 1
    assert done.stdout.endswith("\nimported:\n"), done.stdout[-100:]


def test_alone_it_shows_the_next_useful_step(
    command: Command, retrained: tuple[Command, Result], finished_folder: Path
) -> None:
    assert "search run --budget 8000 --epochs 15  # search" in command().out
    assert not list(command.folder.iterdir())

    shutil.copy(finished_folder / "studies.db", command.folder)
    done = command()
    assert (done.code, done.err) == (0, "")
    assert f"Study {NAME}: 4 trained trials; best " in done.out
    assert f"search confirm --study {NAME}  # race" in done.out
    words = "run --dataset digits --budget 3000 --epochs 3 --trials 8 --space standard"
    again = f"{words} --study {NAME}"
    assert f"search {again}  # search on" in done.out
    assert command(*again.split(), "--pruner", "none", "--no-confirm").code == 0

    assert (
        "The test set was seen 2 times, once for each seed that was scored on it."
        in retrained[0]().out
    )


def test_an_empty_variable_of_the_environment_is_none(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    command.environment["SEARCH_STORAGE"] = ""
    assert "Nothing has been searched" in command().out
    monkeypatch.setenv("SEARCH_DATA_DIR", "")
    assert data_words("mnist", Path()) == ["--data-dir", "."]


def test_alone_it_goes_on_with_a_search_that_was_stopped(command: Command) -> None:
    process = start_long_run(command)
    os.killpg(process.pid, signal.SIGINT)
    process.wait()
    words = "run --dataset digits --budget 3000 --epochs 400 --trials 4 --space standard"
    assert f"search {words} --study long  # go on" in command().out


def test_a_search_that_is_stopped_while_it_loads_leaves_no_process(command: Command) -> None:
    process = command.start_words(command.words(*DIGITS_RUN))

    def servers() -> list[psutil.Process]:
        children = psutil.Process(process.pid).children()
        return [child for child in children if "forkserver" in " ".join(child.cmdline())]

    wait_until(lambda: bool(servers()))
    (server,) = servers()
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate()
    assert process.returncode == 130, out
    assert out == "Interrupted. What was finished is kept; the same command goes on.\n"
    assert not alive([server])  # which imports for seconds yet
    assert not command.database.exists()


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_here("--version") == 0
    assert capsys.readouterr().out == "search 0.1.0\n"


def test_doctor_says_which_step_serves(capsys: pytest.CaptureFixture[str]) -> None:
    from search_models import native

    assert run_here("doctor") == 0
    out = capsys.readouterr().out
    kernel = native.kernel()
    assert (f"native step for {kernel.isa}" if kernel else "PyTorch, because") in out
    assert "three-step-3" in out
    assert out.splitlines() == [line.rstrip() for line in out.splitlines()]


def test_doctor_without_the_compiled_part_says_why_and_how_to_get_it(command: Command) -> None:
    done = command.run_words(
        command.words("doctor"), BUDGET_SEARCH_NATIVE=str(command.folder / "missing.so")
    )
    assert done.code == 0, done.err
    assert "PyTorch, because the compiled part cannot be loaded" in done.out
    assert "install a C++ compiler" in done.out


def test_studies_lists_and_gives_json(finished: Command) -> None:
    table = finished("studies").out
    assert NAME in table
    (study,) = finished("studies", "--json").json
    assert study["name"] == NAME
    assert (study["budget"], study["epochs"], study["dataset"]) == (3000, 3, "digits")
    assert study["trials"]["n_trained"] == 4
    assert study["best_parameter_count"] < 3000


def test_a_piped_table_is_as_wide_as_it_needs(command: Command) -> None:
    names = [letter * 100 for letter in "abc"]
    for name in names:
        make_study(f"sqlite:///{command.database}", name, [MadeTrial((0.9,) * 3)])
    lines = command("compare", *names).out.splitlines()
    assert any(line.split()[-3:] == names for line in lines)


def test_best_is_the_trial_with_the_highest_value(finished: Command) -> None:
    trials = finished.study(NAME).trials
    expected = max(trials, key=lambda trial: trial.value or 0.0)
    best = finished("best", "--json").json
    assert best["trial"] == expected.number
    assert best["value"] == expected.value
    assert best["hyperparameters"] == expected.params
    assert f"Trial {expected.number} of {NAME}: COMPLETE" in finished("best").out


def test_show_has_the_layer_table_and_the_epochs(finished: Command) -> None:
    shown = finished("show", "0", "--json").json
    assert [row["layer"].split()[0] for row in shown["layers"]][-2:] == ["out+bias", "gap"]
    assert sum(row["parameters"] for row in shown["layers"]) == shown["parameter_count"]
    assert shown["layers"][-1]["receptive_field"] == 28
    assert [epoch["epoch"] for epoch in shown["epochs"]] == [1, 2, 3]
    assert {"validation_loss", "validation_accuracy"} <= shown["epochs"][0].keys()
    text = finished("show", "0").out
    for heading in ("output", "jump", "receptive field", "learning rate", "validation accuracy"):
        assert heading in text


def test_show_says_how_far_a_stopped_trial_came(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    stopped = MadeTrial(
        [0.5, 0.625], TrialState.PRUNED, attributes={"reason": "weak after epoch 2"}
    )
    failed = MadeTrial([], TrialState.FAIL, attributes={"reason": "it crashed"})
    make_study(url, "made", [stopped, failed])
    assert run_here("show", "0", "--storage", url) == 0
    assert ": PRUNED, 62.50 % validation accuracy in epoch 2, " in capsys.readouterr().out
    assert run_here("show", "1", "--storage", url) == 0
    assert "validation" not in capsys.readouterr().out.splitlines()[0]


def test_widths_that_are_scaled_are_shown_as_what_they_are(finished: Command) -> None:
    best = finished("best", "--json").json
    drawn = [value for name, value in best["hyperparameters"].items() if name.startswith("width")]
    shown = f"{' : '.join(map(str, drawn))}, then scaled to fit the budget"
    assert shown in finished("best").out


def test_delete_asks_first_and_deletes(finished: Command) -> None:
    asked = finished("delete", NAME)
    assert asked.code == 1  # nobody answers
    assert f"Delete {NAME} with its 4 trials?" in asked.out
    assert finished("studies", "--json").json
    assert finished("delete", NAME, "--yes").code == 0
    assert finished("studies", "--json").json == []


def test_one_trial_is_not_told_in_the_plural(command: Command) -> None:
    make_study(f"sqlite:///{command.database}", "made", [MadeTrial((0.9, 0.95, 0.96))])
    assert "it has 1 trial, counted from 0" in " ".join(command("show", "9").err.split())
    assert "Delete made with its 1 trial?" in command("delete", "made").out
    assert command("delete", "made", "--yes").out == "Deleted made (1 trial).\n"


def test_delete_says_that_a_search_is_running(finished: Command) -> None:
    trial = finished.study(NAME).ask()
    record = TrialRecord(owner=owner_of_this_process(), study=identity_of(trial.study))
    record.write(trial.study, trial._trial_id)
    assert "with its 5 trials; the search that runs on it ends?" in finished("delete", NAME).out


def test_no_line_ends_with_blanks_where_it_is_piped(finished: Command) -> None:
    for words in (("studies",), ("best",), ("show", "2")):
        lines = finished(*words).out.splitlines()
        assert lines == [line.rstrip() for line in lines]


def test_a_printed_space_is_the_same_space_whatever_its_file(finished: Command) -> None:
    (finished.folder / "own.toml").write_text(finished("space", "standard").out)
    again = finished(*DIGITS_RUN, "--space", "own.toml", "--trials", "4")
    assert again.code == 0, again.err
    assert "has its 4 trained trials" in again.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "--epochs", "1"), "--budget"),
        (("run", "--budget", "0", "--epochs", "1"), "or 8k, but got '0'"),
        (
            ("run", "--budget", "-5", "--epochs", "1"),
            "or 8k, but got '-5'",
        ),
        (
            ("run", "--budget", "many", "--epochs", "1"),
            "or 8k, but got 'many'",
        ),
        (("run", "--budget", "9", "--epochs", "0"), "or 8k, but got '0'"),
        (
            ("run", "--budget", "9", "--epochs", "1", "--trials", "0"),
            "or 8k, but got '0'",
        ),
        (
            ("run", "--budget", "9", "--epochs", "1", "--workers", "-1"),
            "or 8k, but got '-1'",
        ),
        (
            ("run", "--budget", "9", "--epochs", "1", "--patience", "0"),
            "or 8k, but got '0'",
        ),
        (("retrain", "--seeds", "0"), "or 8k, but got '0'"),
        (("ablate", "--seeds", "0"), "or 8k, but got '0'"),
        (("baseline", "v36", "--seeds", "none"), "or 8k, but got 'none'"),
        (("baseline", "v37"), "must be one of three-step-1"),
        (("baseline", "three-step-1", "--own-momentum"), "Only a baseline with a OneCycle"),
        (("baseline", "v36", "--all-images"), "Only a baseline whose author held images out"),
        (("baseline", "net.py", "--all-images"), "must come with a hand-tuned system"),
        (("space", "huge"), "must be one of adaptive, standard, wide"),
        ((*DIGITS_RUN, "--timeout", "soon"), "--timeout must be a time above zero"),
        ((*DIGITS_RUN, "--timeout", "0m"), "--timeout must be a time above zero"),
        ((*DIGITS_RUN, "--timeout", "9" * 500 + "h"), "--timeout must be a time above zero"),
        ((*DIGITS_RUN, "--timeout", "9" * 5000), "(5000 characters)"),
        ((*DIGITS_RUN, "--budget", "8,00"), "as 8000, 8,000 or 8k, but got '8,00'"),
        ((*DIGITS_RUN, "--dataset", "cats"), "must be one of auto, folder:PATH, mnist"),
        ((*DIGITS_RUN, "--sampler", "guess"), "must be one of tpe"),
        ((*DIGITS_RUN, "--pruner", "axe"), "must be one of halving"),
        ((*DIGITS_RUN, "--device", "tpu"), "must be auto, cpu or cuda"),
        ((*DIGITS_RUN, "--space", "missing.toml"), "there is no file 'missing.toml'"),
        ((*DIGITS_RUN, "--budget", "50"), "take a budget of 76 or more"),
        ((*DIGITS_RUN, "--storage", "studies"), "A storage must be a URL"),
        ((*DIGITS_RUN, "--storage", "sqlite:///no/such/folder.db"), "folder of a new database"),
        (("best",), "There is no database studies.db"),
        (("queue",), "'search submit' or 'search serve' creates it"),
        (("ablate",), "There is no database studies.db"),
        (("studies",), "There is no database studies.db"),
        (("dashboard",), "There is no database studies.db"),
        (("run", "--budget", "9000", "--epochs", "1", "--dataset", "mnist"), "--dataset digits"),
    ],
)
def test_bad_input_is_refused_and_nothing_is_written(
    arguments: tuple[str, ...],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if arguments[0] == "run":
        arguments = (*arguments, "--data-dir", str(tmp_path / "data"))
    from_here = ("best", "queue", "studies", "dashboard", "retrain", "ablate")
    if "--storage" not in arguments and arguments[0] in from_here:
        command = Command(tmp_path)(*arguments)
        code, err = command.code, command.err
    else:
        if arguments[0] == "run" and "--storage" not in arguments:
            arguments = (*arguments, "--storage", f"sqlite:///{tmp_path / 'studies.db'}")
        code = run_here(*arguments)
        err = capsys.readouterr().err
    assert code == 2
    assert message in " ".join(err.split())
    assert "Traceback" not in err
    assert not list(tmp_path.rglob("*"))


@pytest.mark.parametrize(
    ("option", "typo"),
    [
        ("--dataset", "mnits"),
        ("--dataset", "folder:nowhere"),
        ("--space", "wyde"),
        ("--device", "gpu"),
    ],
)
def test_a_typo_is_answered_before_pytorch_is_imported(
    option: str, typo: str, command: Command
) -> None:
    words = ["-m", "search", *DIGITS_RUN, option, typo]
    done = command.run_words([sys.executable, "-X", "importtime", *words])
    assert done.code == 2
    assert typo.removeprefix("folder:") in done.err.splitlines()[-1]
    imported = {line.rpartition("|")[2].strip() for line in done.err.splitlines()}
    assert "search.tuner.request" in imported
    assert "torch" not in imported


@pytest.mark.parametrize("words", [("retrain",), ("pictures", "best-8k")])
def test_a_folder_that_cannot_be_is_told_before_pytorch_is_imported(
    words: tuple[str, ...], finished: Command
) -> None:
    command = ["-m", "search", *words, "--out", "studies.db/weights"]
    done = finished.run_words([sys.executable, "-X", "importtime", *command])
    assert done.code == 2
    assert "The output folder must be writable" in done.err.splitlines()[-1]
    assert not any(line.endswith(" torch") for line in done.err.splitlines())


def test_cuda_without_a_gpu_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    assert run_here(*DIGITS_RUN, "--device", "cuda", "--storage", url) == 2
    assert "needs a GPU" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("best", "--study", "nobody"), "which has digits-3000x3, but there is no 'nobody'."),
        (("show", "99"), "has no trial 99; it has 4 trials"),
        (("show", "--", "-1"), "from 0 up, as 8000, 8,000 or 8k, but got '-1'"),
        (("delete", "nobody", "--yes"), "there is no 'nobody'"),
        (("retrain", "--trial", "99"), "has no trial 99"),
        (("ablate", "--trial", "99"), "has no trial 99"),
        (("retrain", "--out", __file__), "The output folder must be writable"),
        (("best", "--study", "digits-300x3"), "no 'digits-300x3'; did you mean digits-3000x3?"),
        (("run", "--budget", "8", "--epochs", "1", "--dataset", "mnst"), "did you mean mnist?"),
    ],
)
def test_what_does_not_exist_is_named(
    finished_folder: Path,
    arguments: tuple[str, ...],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name, *rest = arguments
    url = f"sqlite:///{finished_folder / 'studies.db'}"
    assert run_here(name, "--storage", url, *rest) == 2
    err = capsys.readouterr().err
    assert message in " ".join(err.split())
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "arguments", [("delete", NAME, "--yes"), ("retrain",), ("ablate",), DIGITS_RUN]
)
def test_a_read_only_database_is_refused_by_what_writes(
    finished: Command, arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    name, *rest = arguments
    url = f"sqlite:///{finished.database}"
    with read_only(finished.database):
        assert run_here(name, *rest, "--storage", url) == 2
        assert "is read-only" in capsys.readouterr().err
        assert run_here("best", "--storage", url) == 0


def test_a_damaged_data_folder_is_refused(command: Command, mnist_dir: Path) -> None:
    shutil.copytree(mnist_dir / "MNIST", command.folder / "data" / "MNIST")
    raw = command.folder / "data" / "MNIST" / "raw"
    truncated = raw / "train-images-idx3-ubyte"
    truncated.chmod(0o644)
    truncated.write_bytes(truncated.read_bytes()[:1000])
    options = ("run", "--budget", "8000", "--epochs", "1", "--data-dir", "data")
    done = command(*options)
    assert done.code == 2
    assert "The files of mnist in data/MNIST/raw are damaged" in done.err
    assert not command.database.exists()


@pytest.mark.parametrize(
    "budget",
    ["8000", "8,000", "8k", "8_000", "8 000", "8\u202f000", "8'000", "8.0k", "0.008M", " 8000 "],
)
def test_a_budget_is_understood_as_people_write_it(budget: str) -> None:
    assert positive(budget) == 8000


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("30m", 1800),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("1d1s", 86401),
        ("1H 30M", 5400),
        (" 30 min ", 1800),
    ],
)
def test_a_time_is_understood_as_people_write_it(text: str, seconds: int) -> None:
    assert duration("--timeout")["parser"](text) == seconds


@pytest.mark.parametrize("text", ["99.4", "99.4%", "99.4 %"])
def test_a_percentage_is_understood_as_people_write_it(text: str) -> None:
    assert percentage(text) == 99.4


def test_a_database_in_a_folder_that_may_not_be_written_is_read(finished: Command) -> None:
    readable = (("best",), ("studies",), ("show", "0"), ())
    before = [finished(*words).out for words in readable]
    with read_only(finished.folder):
        after = [finished(*words) for words in readable]
        refused = finished(*DIGITS_RUN, "--trials", "9")
    assert [each.out for each in after] == before, [each.err for each in after]
    assert refused.code == 2
    assert "must be writable" in refused.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["best", "made"], "takes options alone, but got 'made' besides; leave it out, or say wh"),
        (["best", "made"], "as '--study made'."),
        (["retrain", "3"], "as '--trial 3'."),
        (["dashboard", "8081"], "as '--port 8081'."),
        ([*DIGITS_RUN, "digits"], "as '--dataset digits'."),
        ([*DIGITS_RUN, "000"], "'search run' takes options alone, but got '000' besides; leave it"),
        (
            ["show", "1", "2"],
            "'search show' takes N and options, but got '2' besides; leave it out.",
        ),
        (
            ["show"],
            "'search show' must be given N, but it is missing; give it, as in 'search show ",
        ),
        (
            ["predict", "best-8k"],
            "must be given IMAGE, but it is missing; give it, as in 'search p",
        ),
        (["run"], "must be given --budget, but it is missing; give it, as in 'search run --budget"),
        (["best", "--studie", "a"], "--help' lists, but got --studie; did you mean --study?"),
        (
            ["best", "--study"],
            "but option '--study' requires an argument; see 'search best --help'.",
        ),
    ],
)
def test_words_too_many_or_too_few_are_told_with_what_to_give(
    words: list[str], message: str, command: Command
) -> None:
    done = command(*words)
    assert done.code == 2
    assert message in " ".join(done.err.split())
    assert not list(command.folder.iterdir())


@contextmanager
def _deleted_while_it_is_read(url: str, *, n_later: int) -> Iterator[None]:
    """The study `deleted` is so many statements after the first that names it."""
    n_since = -1

    def delete(_connection: object, _cursor: object, _text: str, values: Any, *_: object) -> None:
        nonlocal n_since
        if n_since >= 0 or "deleted" in values:
            n_since += 1
        if n_since == n_later:
            n_since += 1
            optuna.delete_study(study_name="deleted", storage=url)

    event.listen(Engine, "before_cursor_execute", delete)
    try:
        yield
    finally:
        event.remove(Engine, "before_cursor_execute", delete)


@pytest.mark.parametrize("n_later", range(4))
def test_a_study_that_is_deleted_while_all_are_listed_is_left_out(
    n_later: int, command: Command
) -> None:
    """Before it is opened, and some statements later."""
    url = f"sqlite:///{command.database}"
    for name in ("kept", "deleted"):
        make_study(url, name, [MadeTrial((0.5, 0.6, 0.7))])
    with _deleted_while_it_is_read(url, n_later=n_later):
        done = command("studies", "--json")
    assert done.code == 0, done.err
    assert [each["name"] for each in done.json] == ["kept"]
    assert optuna.get_all_study_names(url) == ["kept"]


@pytest.mark.parametrize("words", ["best", "show 0", "compare deleted kept", "report", "ablate"])
def test_a_study_that_is_deleted_while_it_is_read_is_told(words: str, command: Command) -> None:
    url = f"sqlite:///{command.database}"
    make_study(url, "kept", [MadeTrial((0.5, 0.6, 0.7))])
    options = [] if words.startswith("compare") else ["--study", "deleted"]
    n_told = 0
    for n_later in range(0, 12, 2):
        if "deleted" not in optuna.get_all_study_names(url):
            make_study(url, "deleted", [MadeTrial((0.5, 0.6, 0.7))])
        with _deleted_while_it_is_read(url, n_later=n_later):
            done = command(*words.split(), *options)
        assert done.code in (0, 1, 2), done.err
        assert done.code == 0 or "deleted" in done.err
        n_told += done.code > 0
    assert n_told > 0
