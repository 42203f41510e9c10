"""A database and weights that version 0.1.0 wrote go on working.

`tests/support/version-0.1.0/studies.db` has a study of the digits that ended with a race and was
retrained, and one that was interrupted while a trial ran, which it queued again.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from optuna.trial import TrialState

import search
from search.results.confirm import ConfirmationRun
from search.results.folds import Folds
from search.study.findings import Findings
from search.study.record import TrialRecord, is_foreign
from search.study.trials import trials_of
from search.tuner.final_race import race_at_the_end
from search.tuner.options import SearchRequest
from search.tuner.plan import plan_search
from search.tuner.request import check_request
from search.tuner.session import begin_search
from tests.conftest import Command

DATA = Path(__file__).parents[1] / "support" / "version-0.1.0"
WINNER, ITS_VALUE = 14, 0.46935933147632314


@pytest.fixture
def old(command: Command) -> Command:
    """A folder with the database of version 0.1.0."""
    shutil.copy(DATA / "studies.db", command.database)
    return command


def test_its_studies_are_shown_as_they_were(old: Command) -> None:
    listed = old("studies", "--json")
    assert listed.code == 0, listed.err
    assert {"finished", "interrupted"} <= {row["name"] for row in listed.json}
    best = old("best", "--study", "finished", "--json").json
    assert (best["trial"], best["value"]) == (WINNER, ITS_VALUE)
    shown = old("show", str(WINNER), "--study", "finished", "--json").json
    assert shown["parameter_count"] == 1072
    assert len(shown["epochs"]) == 2
    for name in ("finished", "interrupted"):
        report = old("report", "--study", name, "--out", f"report-{name}")
        assert report.code == 0, report.err
        assert (old.folder / f"report-{name}" / "report.html").is_file()
    assert TrialRecord.read(old.study("finished").trials[WINNER]).parameter_count == 1072


def test_a_finished_study_is_searched_on_and_retrained(old: Command) -> None:
    before = old.study("finished").get_trials()
    run = ("run", "--budget", "1200", "--epochs", "2", "--dataset", "digits", "--no-confirm")
    done = old(*run, "--study", "finished", "--trials", "22", "--workers", "1")
    assert done.code == 0, done.err
    after = old.study("finished").get_trials()
    assert len(after) >= 22
    for then, now in zip(before, after, strict=False):
        assert (then.state, then.values, then.params) == (now.state, now.values, now.params)
    done = old("retrain", "--study", "finished", "--trial", str(WINNER), "--seeds", "1")
    assert done.code == 0, done.err
    assert Findings.read(old.study("finished")).test_looks == 3  # two of them were there


def test_its_race_stands_and_its_runs_are_of_the_part_that_validated_them(old: Command) -> None:
    study, folds = old.study("finished"), Folds(4, 359)
    kept = Findings.read(study).confirmation
    assert kept is not None
    (row,) = (each for each in kept["candidates"] if each["trial"] == WINNER)
    request = SearchRequest(1200, 2, 20, dataset="digits", study="finished")
    assert race_at_the_end(study, request, folds) is None
    run = ConfirmationRun(study, top=1, folds=folds, n_seeds=3)
    (standing,) = (each for each in run.race.standings() if each.candidate == WINNER)
    assert {run.part for run in standing.runs} == {0}
    assert list(standing.values) == pytest.approx(row["values"])
    assert [part for _, (part, _) in filter(None, [run.next()])] == [1]
    # What was stored of it is shown as it was.
    best = old("best", "--study", "finished").out
    assert f"{100 * kept['mean']:.2f} % (95 % interval" in best
    assert "fresh seeds)" in " ".join(best.split())
    assert "parts of the data" not in best


def test_an_interrupted_study_goes_on_with_what_was_queued(old: Command) -> None:
    queued = old.study("interrupted").trials[8]
    assert queued.state == TrialState.WAITING
    run = ("run", "--budget", "2000", "--epochs", "30", "--dataset", "digits", "--no-confirm")
    done = old(*run, "--study", "interrupted", "--trials", "8", "--workers", "1")
    assert done.code == 0, done.err
    trial = old.study("interrupted").trials[8]
    assert trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
    assert TrialRecord.read(trial).repeats == 7


def test_every_trial_of_it_counts_and_a_copy_of_another_study_does_not(old: Command) -> None:
    finished, interrupted = old.study("finished"), old.study("interrupted")
    assert not any(map(is_foreign, (*trials_of(finished), *trials_of(interrupted))))
    finished.add_trials(interrupted.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED)))
    twin, liar = finished.trials[0], finished.trials[0]
    liar.user_attrs["parameter_count"] = 1
    finished.add_trials([twin, liar])  # nothing tells the first from its original
    assert [is_foreign(trial) for trial in trials_of(finished)[20:]] == [True] * 7 + [False, True]
    assert old("best", "--study", "finished", "--json").json["trial"] == WINNER


def test_a_trial_whose_search_died_before_it_said_whose_it_is_is_queued_again_once(
    old: Command,
) -> None:
    """A search of this version says it from the first moment: what does not is no search's."""
    study, url = old.study("finished"), f"sqlite:///{old.database}"
    study.ask()  # as version 0.1.0 made it
    request = SearchRequest(1200, 2, 20, dataset="digits", storage=url, study="finished")
    plan = plan_search(check_request(request))

    with begin_search(plan) as search:
        assert search.n_requeued == 1
    assert [t.state for t in study.trials[20:]] == [TrialState.FAIL, TrialState.WAITING]
    for _ in range(2):  # it takes what was queued, and makes another
        study.ask()
    with begin_search(plan) as search:
        assert search.n_requeued == 0
    assert [t.state for t in study.trials[21:]] == [TrialState.RUNNING] * 2


def test_its_weights_are_loaded(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(DATA / "weights", tmp_path / "weights"))
    data = search.load_dataset("digits")
    for seed in (1, 2):
        network = search.load(folder, seed=seed)
        with torch.inference_mode():
            right = network(data.test.images).argmax(dim=1) == data.test.labels
        assert float(right.float().mean()) > 0.4  # two epochs of 1,072 parameters
