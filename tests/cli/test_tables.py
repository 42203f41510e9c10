"""Tables that commands print: what they hold, and that they stay as narrow as a terminal."""

from __future__ import annotations

import re
from datetime import datetime

import pytest
from optuna.trial import TrialState

from search.study.record import Owner, TrialRecord
from search.study.settings import identity_of
from search.training.epochs import EpochResult
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
    # One that a search on another machine trains, and one of nobody's.
    trial = study.ask()
    record = TrialRecord(owner=Owner("there", "another", 1, 0.0), study=identity_of(study))
    record.write(study, trial._trial_id)
    study.ask()
    assert study.trials[-1].state == TrialState.RUNNING
    assert re.search(r" 1 train$", command("studies").out, re.M)
    assert run_here("studies", "--storage", url, "--json") == 0
    assert '"n_training": 1' in capsys.readouterr().out
