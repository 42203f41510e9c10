"""Trials that other programs wrote into a study: shown as foreign, and nothing else is done."""

from __future__ import annotations

import math
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from search.exceptions import SpaceError, StudyError
from search.space.space import Space
from search.study.findings import Findings
from search.study.record import is_foreign
from search.study.settings import StudySettings
from search.study.summary import tally
from search.tuner.pruners import PRUNERS, make_pruner
from search.tuner.pruning import AccuracyPruning
from search.tuner.sampler import SAMPLERS, make_sampler
from tests.conftest import DIGITS_RUN, Command
from tests.support.made_studies import record
from tests.support.spaces import under

STUDY = "digits-3000x3"
N_FOREIGN = 6 * (3 * 5 + 4) + 1
VALUES = (0.9, 88.5, math.inf, -math.inf, -1.0, 1.0)


def _foreign(space: Space, value: float, *, is_first: bool) -> list[FrozenTrial]:
    """What plain Optuna may have written: our hyperparameters or others, any attribute.

    Where a study has trials, Optuna itself refuses another kind of range under one name.
    """
    ours = {"params": space.first(), "distributions": space.distributions}
    log = FloatDistribution(0.01, 5, log=True)
    odd: dict[str, Any] = {
        "params": {"learning_rate": 3.0, "x": 0.5},
        "distributions": {"learning_rate": log, "x": FloatDistribution(0, 1)},
    }
    if is_first:
        ours = odd
        odd["params"]["learning_rate"] = "high"
        odd["distributions"]["learning_rate"] = CategoricalDistribution(["low", "high"])
    # As our own of another value has it, with a number in a list's place, and as no epoch is.
    attributes: tuple[dict[str, Any], ...] = (
        {},
        record(0.5),
        {"epochs": 15},
        {"epochs": [{"accuracy": value}], "parameter_count": 7, "seconds": -1.0},
        {"owner": 3, "from_study": "a/b", "redraws": 10**9, "seconds": math.nan},
    )
    return [
        optuna.create_trial(value=value, user_attrs=each, intermediate_values={1: value}, **what)
        for what in (ours, odd, {})
        for each in attributes
    ] + [
        optuna.create_trial(state=state, intermediate_values={1: value}, user_attrs=each, **odd)
        for state in (TrialState.PRUNED, TrialState.FAIL)
        for each in ({}, {"epochs": 15})
    ]


def _add_all(study: Study, *, is_first: bool = False) -> int:
    """Adds what plain Optuna may write; returns how many that is."""
    space = Space.load("standard", parameter_cap=3000)
    foreign = [trial for value in VALUES for trial in _foreign(space, value, is_first=is_first)]
    study.add_trials(foreign)
    study.tell(study.ask(), 0.9)
    return len(foreign) + 1


def test_a_search_goes_its_way_beside_foreign_trials(finished: Command) -> None:
    study = finished.study(STUDY)
    before = finished("best", "--json").json
    n_foreign = _add_all(study)
    assert sum(map(is_foreign, study.trials)) == n_foreign
    assert tally(study.trials).n_trained == 4
    assert finished("best", "--json").json == before

    done = finished(*DIGITS_RUN[:-1], "halving", "--trials", "6", "--workers", "1")

    assert done.code == 0, done.err
    assert f"{n_foreign} by other programs" in done.out
    assert tally(finished.study(STUDY).trials).n_trained == 6
    assert f"{n_foreign} by other programs" in _note(finished.study(STUDY))


def test_a_search_begins_in_a_study_that_has_foreign_trials_alone(finished: Command) -> None:
    run = (*DIGITS_RUN, "--study", "new", "--workers", "1")
    assert finished(*run, "--trials", "0").code == 2
    url = f"sqlite:///{finished.database}"
    settings = finished.study(STUDY).user_attrs["settings"]
    study = optuna.create_study(study_name="new", storage=url, direction="maximize")
    study.set_user_attr("settings", settings)
    n_foreign = _add_all(study, is_first=True)

    done = finished(*run, "--trials", "2", "--sampler", "tpe")

    assert done.code == 0, done.err
    assert tally(finished.study("new").trials).n_trained == 2
    assert tally(finished.study("new").trials).n_foreign == n_foreign


def test_every_command_passes_over_foreign_trials(finished: Command) -> None:
    study = finished.study(STUDY)
    best = finished("best", "--json").json
    n_foreign = _add_all(study)
    wrong = str(len(study.trials) - 1)

    shown = finished("show", wrong)
    assert (shown.code, "foreign" in shown.out) == (0, True), shown.err
    assert finished("show", wrong, "--json").json["is_foreign"]
    assert finished("best", "--front", "--json").json[-1]["value"] == best["value"]
    (listed,) = finished("studies", "--json").json
    assert (listed["trials"]["n_foreign"], listed["best_value"]) == (n_foreign, best["value"])
    assert str(n_foreign) in finished("studies").out
    reported = finished("report", "--out", "report")
    assert reported.code == 0, reported.err
    page = (finished.folder / "report" / "report.html").read_text()
    assert "8850" not in page
    assert "foreign" in page
    for words in (("retrain", "--trial", wrong), ("ablate", "--trial", wrong)):
        refused = finished(*words, "--seeds", "1")
        assert refused.code == 2, refused.out
        assert "by another program" in refused.err
    raced = finished("confirm", "--top", "2", "--seeds", "1", "--json")
    assert raced.code == 0, raced.err
    new = ("run", "--dataset", "digits", "--budget", "2000", "--epochs", "1", "--trials", "1")
    started = finished(*new, "--from-study", STUDY, "--workers", "1")
    assert started.code == 0, started.err
    compared = finished("compare", STUDY, "digits-2000x1", "--json")
    assert compared.code == 0, compared.err
    assert str(best["value"]) in compared.out


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_draws_as_if_there_were_none(name: str) -> None:
    space = under(3000, Space.load("standard", parameter_cap=3000))

    def drawn(*, with_foreign: bool) -> dict[str, Any]:
        study = optuna.create_study(
            direction="maximize", sampler=make_sampler(name, space, seed=1, n_trials=0)
        )
        if with_foreign:
            n_foreign = _add_all(study, is_first=True)
            assert n_foreign == N_FOREIGN
        else:  # a draw may depend on the trial's number
            study.add_trials([optuna.create_trial(state=TrialState.FAIL)] * N_FOREIGN)
        for i in range(12):
            values = {**space.first(), "learning_rate": 0.03 + 0.01 * i}
            study.add_trial(
                optuna.create_trial(
                    value=0.9 - 0.01 * i,
                    params=values,
                    distributions=space.distributions,
                    user_attrs=record(0.9 - 0.01 * i),
                )
            )
        trial = study.ask()
        space.suggest(trial)
        return trial.params

    assert drawn(with_foreign=True) == drawn(with_foreign=False)


@pytest.mark.parametrize("name", PRUNERS)
def test_a_pruner_judges_as_if_there_were_none(name: str) -> None:
    def judged(*, with_foreign: bool) -> list[bool]:
        study = optuna.create_study(
            study_name="judged", direction="maximize", pruner=make_pruner(name, epochs=3)
        )
        pruning, verdicts = AccuracyPruning(), []
        for i in range(1, 13):
            trial = study.ask()
            pruning.report(trial, 1000, 1, 0.05 * i)
            verdicts.append(pruning.should_prune(trial))
            for key, value in record(0.05 * i).items():
                trial.set_user_attr(key, value)
            study.tell(trial, 0.05 * i)
            if with_foreign:
                rungs = {"completed_rung_0": 88.5, "completed_rung_1": 88.5}
                steps = {1: 88.5, 2: 88.5}
                foreign = optuna.create_trial(
                    value=88.5, system_attrs=rungs, intermediate_values=steps
                )
                for _ in range(14):  # so that the next of ours keeps its bracket
                    study.add_trial(foreign)
        return verdicts

    assert judged(with_foreign=True) == judged(with_foreign=False)


def _note(study: Study) -> str:
    from optuna_dashboard import get_note

    return str(get_note(study))


def test_copies_that_another_program_made_of_trials_of_searches_are_foreign(
    finished: Command,
) -> None:
    """The best of a study whose cap, epochs or data are others is none of this one."""
    study = finished.study(STUDY)
    best = finished("best", "--json").json
    of_other = study.best_trial
    of_other.user_attrs |= record(1.0, count=10**6)
    of_other.value = 1.0
    study.add_trials([*study.trials, of_other])

    assert [is_foreign(trial) for trial in study.trials] == [False] * 4 + [True] * 5
    assert finished("best", "--json").json == best


def test_a_study_whose_settings_were_changed_is_refused_with_their_names(
    finished: Command,
) -> None:
    stored = finished.study(STUDY).user_attrs["settings"]
    study = optuna.create_study()
    texts = {"dataset", "data_fingerprint", "split_fingerprint", "space_name"}
    for value in (None, -1, True, "", [1], {"n": "x"}, 10**30):
        for key in stored:
            if (key, value) == ("split", None) or (key in texts and value == ""):
                continue
            study.set_user_attr("settings", {**stored, key: value})
            with pytest.raises((StudyError, SpaceError), match=f"changed: {key};|unknown"):
                StudySettings.from_study(study).search_space()
        study.set_user_attr("settings", value)
        with pytest.raises(StudyError, match="must have been made by 'search run'"):
            StudySettings.from_study(study)
    finished.study(STUDY).set_user_attr("settings", {**stored, "budget": "many"})
    refused = finished("best")
    assert (refused.code, "were changed: budget" in refused.err) == (2, True), refused.err


def test_what_only_begins_like_a_look_or_a_race_is_none(finished: Command) -> None:
    study = finished.study(STUDY)
    before = Findings.read(study)
    for key in ("look_x", "test_looks", "retrain_x", "ablation_0", "confirmation"):
        for value in (None, -1, "x", [1], {"n": -1}, {"n": "x"}, {"candidates": [3]}):
            study.set_user_attr(key, value)
            found = Findings.read(study)
            assert found.test_looks == before.test_looks
            assert (found.confirmation, found.retrainings) == (before.confirmation, ())
        assert finished("best").code == 0
