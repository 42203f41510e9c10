"""Tables that commands print: what they hold, and that they stay as narrow as a terminal."""

from __future__ import annotations

import io
import math
import re
from datetime import datetime

import pytest
from optuna.trial import TrialState
from rich.cells import cell_len
from rich.console import Console

from search.cli.tables import FittedTable
from search.study.locks import locked_file
from search.study.record import Owner, TrialRecord
from search.study.settings import identity_of
from search.training.epochs import EpochResult
from search.wording import figure
from tests.conftest import Command, run_here
from tests.support.made_studies import MadeTrial, make_study


def test_a_loss_beyond_all_bounds_widens_no_table(command: Command) -> None:
    url = f"sqlite:///{command.database}"
    epoch = EpochResult(1, 3.25, 0.1, 0.05, 1e20, 0.1, 2.0).to_dict()
    make_study(url, "made", [MadeTrial([0.1], attributes={"epochs": [epoch]})], epochs=1)
    shown = command("show", "0").out
    assert "1.00e+20" in shown
    assert "3.2500" in shown
    assert max(map(len, shown.splitlines())) < 100


@pytest.mark.parametrize(
    ("value", "decimals", "shown"),
    [
        (0.0, 4, "0.0000"),
        (0.05, 4, "0.0500"),
        (1e-12, 4, "1.00e-12"),
        (3e-8, 6, "3.00e-08"),
        (-3.0, 4, "-3.0000"),
        (1e20, 4, "1.00e+20"),
        (math.nan, 4, "not finite"),
        (None, 4, "not finite"),
    ],
)
def test_a_figure_of_any_size_is_told(value: float | None, decimals: int, shown: str) -> None:
    assert figure(value, decimals) == shown


def drawn(width: int) -> str:
    """A table of two studies in a terminal of that width, without colours."""
    table = FittedTable(gap=1)
    table.add_column("study", overflow="fold")
    for heading in ("trained", "best\nvalue", "last used"):
        table.add_column(heading, justify="right")
    table.add_row("手写数字识别研究" * 4, "1,200", "98.48 %", "2026-11-30")
    table.add_row("one", "8", "74.37 %", "2026-11-29", style="bold")
    console = Console(force_terminal=True, color_system=None, width=width, file=io.StringIO())
    with console.capture() as capture:
        console.print(table)
    return capture.get()


@pytest.mark.parametrize("width", [20, 40, 43, 60, 80, 200])
def test_a_terminal_of_any_width_shows_each_column_whole(width: int) -> None:
    lines = [line.rstrip() for line in drawn(width).splitlines()]
    assert max(map(cell_len, lines)) <= width
    shown = " ".join(" ".join(lines).split())
    for part in ("study", "trained", "1,200", "98.48 %", "2026-11-30", "one", "8", "74.37 %"):
        assert part in shown
    assert "…" not in shown
    assert shown.replace(" ", "").count("手写数字识别研究"[:1]) == 4
    is_list = "best value  98.48 %" in lines
    assert is_list == (width < 42)  # 16 + 7 + 7 + 10 columns, if no heading is broken, and gaps


def test_a_foreign_trial_has_no_table_of_epochs(command: Command) -> None:
    study = make_study(f"sqlite:///{command.database}", "made", [])
    study.tell(study.ask(), 1e20)
    assert command("show", "0").out.split() == (
        ["Trial", "0", "of", "made:", "foreign,", "written", "by", "another", "program"]
    )


def test_studies_show_when_they_were_used_and_what_trains(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{command.database}"
    study = make_study(url, "mnist-8000x15", [MadeTrial([0.5] * 3)])
    table = command("studies").out
    assert re.search(rf" {datetime.now().astimezone():%Y-%m-%d}$", table, re.M)
    assert max(map(len, table.splitlines())) <= 80
    (listed,) = command("studies", "--json").json
    assert listed["n_training"] == 0
    assert datetime.fromisoformat(listed["last_used"]).tzinfo is not None
    assert listed["is_searched"] is False
    # A race keeps its runs in another study, and has the lock of this one.
    with locked_file(command.database, study):
        assert re.search(r" runs$", command("studies").out, re.M)
        (listed,) = command("studies", "--json").json
    assert (listed["n_training"], listed["is_searched"]) == (0, True)
    # One that a search on another machine trains, and one of nobody's.
    trial = study.ask()
    record = TrialRecord(owner=Owner("there", "another", 1, 0.0), study=identity_of(study))
    record.write(study, trial._trial_id)
    study.ask()
    assert study.trials[-1].state == TrialState.RUNNING
    assert re.search(r" 1 train$", command("studies").out, re.M)
    assert run_here("studies", "--storage", url, "--json") == 0
    assert '"n_training": 1' in capsys.readouterr().out
