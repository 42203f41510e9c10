"""What the Tab key offers, asked of the shells themselves."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from search.cli import completion
from search.space.baselines import BASELINES
from search.space.presets import PRESETS
from search.space.space import Space
from search.study.settings import OBJECTIVES
from search.tuner.pruners import PRUNERS
from search.tuner.sampler import SAMPLERS
from tests.conftest import Command

INSTALLED = Path(sys.executable).parent / "search"


def in_shell(command: Command, words: list[str]) -> str:
    """What a shell prints that finds the installed command, and whose home is the folder."""
    done = subprocess.run(
        words,
        cwd=command.folder,
        env={
            **command.environment,
            "HOME": str(command.folder),
            "PATH": f"{INSTALLED.parent}{os.pathsep}{command.environment['PATH']}",
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_bash_completes_commands_options_studies_and_names(finished: Command) -> None:
    cases = {
        ("stud",): ["studies"],
        ("run", "--patie"): ["--patience"],
        ("run", "--dataset", ""): ["auto", "mnist", "fashion-mnist", "kmnist", "digits"],
        ("run", "--sampler", ""): list(SAMPLERS),
        ("run", "--pruner", ""): list(PRUNERS),
        ("run", "--objective", ""): list(OBJECTIVES),
        ("best", "--study", ""): ["digits-3000x3"],
        ("best", "--study", "mnist"): [],
        ("best", "--storage", "sqlite:///nowhere.db", "--study", ""): [],
        ("best", "--storage", "postgresql://localhost/digits", "--study", ""): [],
        ("delete", "dig"): ["digits-3000x3"],
        ("baseline", ""): [*BASELINES, *PRESETS],
        ("predict", "best"): ["best-8k", "best-small", "best-20k", "best-1-epoch"],
    }
    in_shell(finished, ["bash", "-c", "search --install-completion; true"])
    lines = []
    for words in cases:
        line = " ".join(map(shlex.quote, ("search", *words)))
        lines.append(f"COMP_WORDS=({line}); COMP_CWORD={len(words)}")
        lines.append("_search_completion search; echo ${COMPREPLY[@]}")
    # An interactive shell, for it reads what was installed.
    printed = in_shell(finished, ["bash", "-i", "-c", "\n".join(lines)])
    answers = [line.split() for line in printed.splitlines()]
    assert dict(zip(cases, answers, strict=True)) == cases


def test_folders_of_weights_are_offered(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("weights", "runs/mnist-8000x15/trial-17", "elsewhere"):
        (command.folder / folder).mkdir(parents=True)
    for folder in ("weights", "runs/mnist-8000x15/trial-17"):
        (command.folder / folder / "card.json").touch()
    monkeypatch.chdir(command.folder)
    ours = ["runs/mnist-8000x15/trial-17", "weights"]
    assert completion.complete_weights("") == [*PRESETS, *ours]
    assert completion.complete_weights("runs/") == ours[:1]


def test_names_that_are_offered_are_those_that_there_are() -> None:
    for name in completion.complete_spaces(""):
        assert Space.load(name).is_built_in
    for name in completion.complete_devices("c"):
        assert torch.device(name).type == name


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_zsh_takes_what_is_installed_for_it(finished: Command) -> None:
    script = in_shell(finished, ["zsh", "-c", "search --show-completion; true"])
    (finished.folder / "completion.zsh").write_text(script)
    check = "autoload -Uz compinit; compinit -u; source completion.zsh; echo $_comps[search]"
    assert in_shell(finished, ["zsh", "-f", "-c", check]) == "_search_completion\n"
    # What that function asks when somebody presses Tab.
    ask = "_TYPER_COMPLETE_ARGS='search best --study dig' _SEARCH_COMPLETE=complete_zsh search"
    assert '"digits-3000x3"' in in_shell(finished, ["zsh", "-f", "-c", ask])
