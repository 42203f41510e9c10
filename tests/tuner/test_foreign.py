"""Trials that other programs wrote into a study: shown as foreign, and nothing else is done."""

from __future__ import annotations

import contextlib
import math
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import event

from search.exceptions import SpaceError, StudyError
from search.space.space import Space
from search.study.findings import Findings
from search.study.history import StudyLength, run_records
from search.study.news import TrialNews
from search.study.record import is_foreign
from search.study.settings import StudySettings
from search.study.summary import tally
from search.study.trials import trials_of
from search.tuner.coordinator import Coordinator
from search.tuner.options import SearchRequest
from search.tuner.plan import plan_search
from search.tuner.pruners import PRUNERS, make_pruner
from search.tuner.pruning import AccuracyPruning
from search.tuner.request import check_request
from search.tuner.sampler import SAMPLERS, make_sampler
from search.tuner.session import begin_search
from search.tuner.warm_start import queue_rest
from search.workers.jobs import Event, Job
from tests.conftest import DIGITS_RUN, Command, run_here
from tests.support.made_studies import MadeTrial, add_as_ours, make_study, record
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
    for queued in (5, "x", [1], None):
        entry = {"fixed_params": queued}  # where Optuna keeps values by name
        study.add_trial(optuna.create_trial(state=TrialState.WAITING, system_attrs=entry))

    done = finished(*DIGITS_RUN, "--pruner", "halving", "--trials", "6", "--workers", "1")

    assert done.code == 0, done.err
    assert done.out.count("it was queued with something else than values by name") == 4
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


def _next_like(study: Study, trial: FrozenTrial, **changes: Any) -> FrozenTrial:
    """What a person makes of a trial of the study: the next one, with all that tells of it."""
    attributes = {**trial.user_attrs, "number": len(study.trials), **changes.pop("attributes", {})}
    kept = {key: value for key, value in attributes.items() if value is not None}
    options = {"value": trial.value, "params": trial.params, "distributions": trial.distributions}
    return optuna.create_trial(user_attrs=kept, **{**options, **changes})


def _distributions(trial: FrozenTrial, name: str, distribution: Any) -> dict[str, Any]:
    return {"distributions": {**trial.distributions, name: distribution}}


WITHOUT: dict[str, Callable[[FrozenTrial], dict[str, Any]]] = {
    "another number": lambda trial: {"attributes": {"number": trial.number}},
    "no number": lambda trial: {"attributes": {"number": None}},
    "no study": lambda trial: {"attributes": {"study": None}},
    "another study": lambda trial: {"attributes": {"study": "0" * 32}},
}
IMPOSSIBLE: dict[str, Callable[[FrozenTrial], dict[str, Any]]] = {
    "a name too few": lambda trial: {
        "params": {"momentum": trial.params["momentum"]},
        "distributions": {"momentum": trial.distributions["momentum"]},
    },
    "a name too many": lambda trial: {
        "params": {**trial.params, "x": 0.5},
        **_distributions(trial, "x", FloatDistribution(0, 1)),
    },
    "a value outside": lambda trial: {
        "params": {**trial.params, "learning_rate": 3.0},
        **_distributions(trial, "learning_rate", FloatDistribution(0.01, 5, log=True)),
    },
    "a count as large as the cap": lambda trial: {"attributes": {"parameter_count": 3000}},
    "a count of another network": lambda trial: {"attributes": {"parameter_count": 2000}},
    "fewer epochs": lambda trial: {
        "attributes": record(0.99, **{"parameter_count": trial.user_attrs["parameter_count"]}),
        "value": 0.99,
    },
}


@pytest.mark.parametrize("kind", [*WITHOUT, *IMPOSSIBLE])
def test_what_only_looks_like_a_trial_of_the_study_is_foreign(finished: Command, kind: str) -> None:
    study = finished.study(STUDY)
    best, trial = finished("best", "--json").json, study.best_trial
    study.add_trial(_next_like(study, trial))  # nothing tells this from one of a search
    study.add_trial(_next_like(study, trial, **{**WITHOUT, **IMPOSSIBLE}[kind](trial)))

    news = TrialNews().take_new(finished.study(STUDY)).finished
    for trials in (trials_of(finished.study(STUDY)), news):
        assert [is_foreign(each) for each in trials] == [False] * 5 + [True]
        assert tally(trials).n_trained == 5
    assert finished("best", "--json").json == best


def test_copies_of_trials_of_another_study_are_foreign_whatever_their_numbers(
    finished: Command,
) -> None:
    """The best of a study whose cap, epochs or data are others is none of this one."""
    study, url = finished.study(STUDY), f"sqlite:///{finished.database}"
    best = finished("best", "--study", STUDY, "--json").json
    made = [MadeTrial([0.5, 0.6, 0.97 + 0.001 * number]) for number in range(6)]
    other = make_study(url, "of other data", made)
    study.add_trials(other.trials[4:])  # their numbers are theirs here, too
    study.add_trials([*other.trials, *study.trials])

    assert [is_foreign(trial) for trial in trials_of(study)] == [False] * 4 + [True] * 14
    assert finished("best", "--study", STUDY, "--json").json == best


def test_a_study_that_is_copied_whole_has_its_trials(finished: Command) -> None:
    url = f"sqlite:///{finished.database}"
    optuna.copy_study(from_study_name=STUDY, from_storage=url, to_storage=url, to_study_name="copy")
    copy = finished.study("copy")
    assert not any(map(is_foreign, trials_of(copy)))
    done = finished(*DIGITS_RUN, "--study", "copy", "--trials", "5", "--workers", "1")
    assert done.code == 0, done.err
    assert tally(trials_of(finished.study("copy"))).n_trained == 5


@pytest.mark.parametrize("state", [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL])
def test_a_trial_that_has_not_as_many_parameters_as_it_says_is_foreign_however_weak(
    state: TrialState, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    rates = [0.02 * 1.05**number for number in range(30)]
    made = [MadeTrial([0.9] * 3, values={"learning_rate": rate}) for rate in rates]
    study = make_study(url, "made", made)
    weak = MadeTrial([0.1] * 3, state=state)
    false = replace(weak, attributes={"parameter_count": 2000})
    space = Space.load("standard", parameter_cap=3000)
    add_as_ours(study, [each.frozen(space, 3000, 1) for each in (false, weak)])

    assert [is_foreign(trial) for trial in trials_of(study)] == [False] * 30 + [True, False]
    assert tally(trials_of(study)).n_foreign == 1
    assert run_here("show", "30", "--storage", url) == 0
    assert "2,000" not in capsys.readouterr().out
    assert run_here("retrain", "--trial", "30", "--storage", url) == 2
    assert "by another program" in capsys.readouterr().err


def test_a_trial_that_another_program_runs_is_left_alone(finished: Command) -> None:
    """Whether it has made it or has taken it from the queue."""
    study = finished.study(STUDY)
    made = study.ask()
    study.enqueue_trial({"momentum": 0.85})
    taken = study.ask()

    done = finished(*DIGITS_RUN, "--trials", "5", "--workers", "1")

    assert done.code == 0, done.err
    assert "2 by other programs" in done.out
    found = finished.study(STUDY).trials
    assert [found[trial.number].state for trial in (made, taken)] == [TrialState.RUNNING] * 2
    assert [trial.number for trial in found if trial.state == TrialState.COMPLETE][4:] == [6]
    study.tell(made, 0.9)  # it is not disturbed
    study.tell(taken, 0.9)


@pytest.mark.parametrize("is_log", [True, False])
def test_a_range_of_another_kind_is_of_another_space(finished: Command, is_log: bool) -> None:
    """Also where nothing tells whose a trial is, as in studies of earlier versions."""
    trial = finished.study(STUDY).best_trial
    study = optuna.create_study(direction="maximize")
    study.set_user_attr("settings", finished.study(STUDY).user_attrs["settings"])
    rates = _distributions(trial, "learning_rate", FloatDistribution(0.02, 0.3, log=is_log))
    study.add_trial(_next_like(study, trial, attributes={"study": None}, **rates))
    (added,) = trials_of(study)
    assert is_foreign(added) != is_log


class TwoWorkers:
    """Takes two jobs, and tells nothing of them."""

    n_idle = 2

    def submit(self, job: Job) -> int:
        self.n_idle -= 1
        return 0

    def events(self, timeout: float) -> Iterator[Event]:
        return iter(())

    def cancel(self, key: int) -> None:
        pass

    def kill_overdue(self, limit_seconds: float) -> None:
        pass


def test_a_trial_of_a_search_says_from_its_first_moment_whose_it_is(tmp_path: Path) -> None:
    """The first one is from the queue, and the second is new."""
    database = tmp_path / "studies.db"
    request = SearchRequest(
        3000, 3, 4, dataset="digits", space="standard", storage=f"sqlite:///{database}"
    )
    pool, n_seen = TwoWorkers(), Counter[int]()

    with begin_search(plan_search(check_request(request))) as search:
        engine = search.study._storage._database.engine  # type: ignore[attr-defined]

        @event.listens_for(engine, "before_cursor_execute")
        def look(*_arguments: object) -> None:
            with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as seen:
                names = ("owner", "study")
                n_named = "SELECT count(*) FROM trial_user_attributes WHERE key IN (?, ?) AND "
                query = f"SELECT number, ({n_named} trial_id = trials.trial_id) FROM trials"
                for number, n in seen.execute(f"{query} WHERE state = 'RUNNING'", names):
                    assert n == 2
                    n_seen[number] += 1

        Coordinator(
            search.study,
            pool,
            length=StudyLength(2),
            n_validation=search.n_validation,
            seed=0,
            device="cpu",
            listener=lambda event: None,
            should_stop=lambda: pool.n_idle == 0,
            is_time_over=lambda: False,
            sharing=search.sharing,
        ).run()

    assert n_seen.keys() == {0, 1}


def test_a_study_whose_settings_were_changed_is_refused_with_their_names(
    finished: Command,
) -> None:
    stored = finished.study(STUDY).user_attrs["settings"]
    study = optuna.create_study()
    texts = {"dataset", "data_fingerprint", "split_fingerprint", "space_name"}
    for value in (None, -1, True, "", [1], {"n": "x"}, 10**30):
        for key in stored:
            if (key, value) in (("split", None), ("network", None)) or (
                key in texts and value == ""
            ):
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


def test_what_only_begins_like_a_run_is_none(finished: Command) -> None:
    study = finished.study(STUDY)
    before = run_records(study)
    begins = {"started": "2026-01-01", "n_trials": 9}
    for key in ("run_id", "run_9"):
        wrong = ({"n_trials": "x"}, {"target": "x"}, {"target": 10**400}, {"patience": -1})
        for value in (7, "x", [1], {}, *({**begins, **each} for each in wrong)):
            study.set_user_attr(key, value)
            assert run_records(study) == before
        for words in (("best",), ("studies",), ("report",), ()):
            assert finished(*words).code == 0, words


def test_what_only_looks_like_a_queue_is_left_alone(finished: Command) -> None:
    study = finished.study(STUDY)
    for value in ("x", {"study": "x"}, {"study": "x", "configurations": {"x": {}}}):
        study.set_user_attr("warm_start", value)
        assert queue_rest(study) is None
        assert study.user_attrs["warm_start"] == value
