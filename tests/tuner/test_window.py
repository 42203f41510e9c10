"""What a sampler learns from in a long study."""

from __future__ import annotations

import math

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.samplers import TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from search.space.space import Space
from search.study.news import TrialNews
from search.study.owners import owner_of_this_process
from search.study.record import TrialRecord
from search.tuner.sampler import make_sampler
from search.tuner.window import N_BEST, N_LATEST, HistoryWindow
from tests.support.made_studies import record
from tests.support.spaces import under

SPACE: dict[str, BaseDistribution] = {"x": FloatDistribution(0.0, 1.0)}


def made(value: float | None, x: float = 0.5, steps: int = 1) -> FrozenTrial:
    """A trial that is complete where it has a value, else pruned after so many steps."""
    return optuna.create_trial(
        state=TrialState.PRUNED if value is None else TrialState.COMPLETE,
        value=value,
        params={"x": x},
        distributions=SPACE,
        user_attrs=record(value or 0.0),
        intermediate_values=dict.fromkeys(range(1, steps + 1), 0.1 * x),
    )


def _share(i: int) -> float:
    return 0.5 + 0.5 * math.sin(i)


def remembered(study: Study) -> list[FrozenTrial]:
    window = HistoryWindow()
    news = TrialNews().take_new(study)
    window.add(news.finished)
    return window.view(study, news.open).get_trials(deepcopy=False)


def test_a_short_study_is_remembered_whole() -> None:
    study = optuna.create_study(direction="maximize")
    study.add_trials([made(0.001 * i) for i in range(N_LATEST)])
    TrialRecord(owner=owner_of_this_process()).write(study, study.ask()._trial_id)
    assert remembered(study) == study.trials


def test_of_a_long_study_the_best_and_the_latest_stay() -> None:
    study = optuna.create_study(direction="maximize")
    n_trials = 3 * (N_BEST + N_LATEST)
    study.add_trials([made(_share(i)) for i in range(n_trials)])
    study.tell(study.ask(), state=TrialState.FAIL)
    running = study.ask()
    TrialRecord(owner=owner_of_this_process()).write(study, running._trial_id)
    numbers = [trial.number for trial in remembered(study)]
    by_value = sorted(range(n_trials), key=lambda i: -_share(i))
    latest = range(n_trials - N_LATEST, n_trials)
    assert numbers == sorted({*by_value[:N_BEST], *latest, running.number})
    assert len(numbers) <= N_BEST + N_LATEST + 1


def test_among_the_pruned_those_that_came_furthest_are_best() -> None:
    study = optuna.create_study(direction="maximize")
    study.add_trials([made(None, steps=3), made(None, x=0.1, steps=5), made(None, x=0.2, steps=5)])
    study.add_trials([made(None, steps=1)] * (N_BEST + N_LATEST))
    study.add_trial(made(0.0))
    numbers = [trial.number for trial in remembered(study)]
    assert numbers[:3] == [0, 1, 2]
    assert len(numbers) <= N_BEST + N_LATEST


def test_tpe_takes_the_same_for_good_as_from_all_trials() -> None:
    """The best of what is remembered are the best of all, as many as TPE ever takes."""
    study = optuna.create_study(direction="maximize", sampler=TPESampler(seed=0))
    study.add_trials([made(_share(7 * i), x=(i % 100) / 100) for i in range(1500)])
    kept = sorted(remembered(study), key=lambda trial: -(trial.value or 0.0))
    all_trials = sorted(study.trials, key=lambda trial: -(trial.value or 0.0))
    assert kept[:25] == all_trials[:25]


def test_a_draw_of_tpe_is_shown_what_is_remembered() -> None:
    space = Space.load("standard", parameter_cap=3000)
    sampler = make_sampler("tpe", under(3000, space), seed=0, n_trials=0)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    values = under(3000, space).first()
    study.add_trials(
        optuna.create_trial(
            value=0.1,
            user_attrs=record(0.1),
            params={**values, "learning_rate": 0.03 + 1e-5 * i},
            distributions=space.distributions,
        )
        for i in range(N_BEST + N_LATEST + 200)
    )
    trial = study.ask()
    space.suggest(trial)
    shown = sampler._history.view(study, []).get_trials(deepcopy=False)
    assert N_LATEST <= len(shown) <= N_BEST + N_LATEST


def test_hyperband_keeps_its_brackets_apart() -> None:
    study = optuna.create_study(
        direction="maximize", pruner=optuna.pruners.HyperbandPruner(1, 9, 3)
    )
    study.add_trials([made(0.1)] * 10)
    study.add_trial(optuna.create_trial(value=88.5))  # by another program
    bracket = optuna.pruners._filter_study(study, study.trials[0])
    assert bracket is not study
    shown = HistoryWindow().view(bracket, [])
    assert shown.get_trials(deepcopy=False) == bracket.get_trials(deepcopy=False)[:10]
