"""The capped sampler: nothing over the cap becomes a trial, and the inner sampler stays whole."""

from __future__ import annotations

import math
import statistics
import warnings
from collections.abc import Sequence
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from search.exceptions import InputError
from search.space.space import Space
from search.tuner.sampler import SAMPLERS, CappedSampler, Draw, make_sampler
from tests.support.made_studies import record
from tests.support.spaces import under

_SMALLEST = 702


def _study(sampler: BaseSampler) -> Study:
    return optuna.create_study(direction="maximize", sampler=sampler)


def _capped(study: Study) -> CappedSampler:
    assert isinstance(study.sampler, CappedSampler)
    return study.sampler


def _counts(study: Study, space: Space, n_trials: int) -> tuple[list[int], list[Draw]]:
    """Asks for trials and tells them; the parameter count and the draw of each."""
    counts, draws = [], []
    for _ in range(n_trials):
        trial = study.ask()
        recipe = space.suggest(trial)
        counts.append(recipe.spec.parameter_count)
        draws.append(_capped(study).take_draw())
        value = (recipe.learning_rate + recipe.momentum) / 2
        for key, attribute in record(value).items():
            trial.set_user_attr(key, attribute)
        study.tell(trial, value)
    return counts, draws


def _values(study: Study, space: Space, n_trials: int) -> list[dict[str, Any]]:
    _counts(study, space, n_trials)
    return [trial.params for trial in study.trials]


@pytest.fixture(autouse=True)
def _no_experimental_warnings() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


class Recorder(RandomSampler):
    """Draws at random, and remembers which joint samples were asked of it."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed=seed)
        self.n_joint = 0
        self.n_single = 0
        self.told: list[TrialState] = []

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        self.n_joint += 1
        return super().sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        self.n_single += 1
        return super().sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        self.told.append(state)


class CountingTPE(TPESampler):
    """TPE that counts how often it sampled single values, as it does while it starts up."""

    n_single = 0

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        self.n_single += 1
        return super().sample_independent(study, trial, param_name, param_distribution)


@pytest.mark.parametrize("cap", [8_000, 1_500, _SMALLEST + 1])
@pytest.mark.parametrize("space_name", ["standard", "wide"])
@pytest.mark.parametrize("name", ["tpe", "random", "qmc", "cmaes"])
def test_no_trial_is_over_the_cap(name: str, space_name: str, cap: int) -> None:
    space = Space.load(space_name)
    n_trials = 14 if cap == 8_000 else 4
    study = _study(make_sampler(name, under(cap, space), seed=1, n_trials=0))

    counts, _ = _counts(study, space, n_trials)

    assert len(counts) == n_trials
    assert max(counts) < cap


def _small_space() -> Space:
    """Three widths and a learning rate: quick for a Gaussian process, and often over 1,500."""
    table = {
        key: value["low"] if isinstance(value, dict) else value
        for key, value in Space.load("standard").table.items()
    }
    searched = {
        "width_2": {"low": 4, "high": 28},
        "width_3": {"low": 4, "high": 32},
        "width_4": {"low": 4, "high": 32},
        "learning_rate": {"low": 0.01, "high": 0.2, "log": True},
    }
    return Space("small", {**table, **searched})


def test_no_trial_of_the_gaussian_process_is_over_the_cap() -> None:
    space = _small_space()
    inner = GPSampler(seed=0, n_startup_trials=2, independent_sampler=RandomSampler(seed=0))
    study = _study(CappedSampler(inner, under(1_500, space), max_redraws=2))

    counts, _ = _counts(study, space, 4)

    assert max(counts) < 1_500


def test_the_gaussian_process_is_made_by_name() -> None:
    space = Space.load("standard")
    study = _study(make_sampler("gp", under(8_000, space), seed=0, n_trials=0))

    counts, _ = _counts(study, space, 3)

    assert max(counts) < 8_000


def test_tpe_models_jointly_as_soon_as_its_start_up_trials_are_told() -> None:
    space = Space.load("standard")
    inner = CountingTPE(seed=0, n_startup_trials=5)
    study = _study(CappedSampler(inner, under(8_000, space), max_redraws=100))
    _, starting = _counts(study, space, 5)
    n_single = inner.n_single

    _, modelled = _counts(study, space, 5)

    assert n_single == len(space.distributions) * (5 + sum(draw.n_redraws for draw in starting))
    assert inner.n_single == n_single, "a modelled candidate must be sampled jointly"
    assert len(modelled) == 5


def test_redraws_do_not_use_up_start_up_trials() -> None:
    space = Space.load("standard")
    inner = CountingTPE(seed=0, n_startup_trials=4)
    study = _study(CappedSampler(inner, under(3_000, space), max_redraws=100))

    _, draws = _counts(study, space, 3)
    before = inner.n_single
    _counts(study, space, 1)

    assert sum(draw.n_redraws for draw in draws) > 4
    assert inner.n_single > before, "the fourth trial is still drawn at random"


def test_redraws_make_no_trials() -> None:
    space = Space.load("standard")
    study = _study(make_sampler("random", under(3_000, space), seed=0, n_trials=0))

    _, draws = _counts(study, space, 5)

    assert sum(draw.n_redraws for draw in draws) > 0
    assert len(study.trials) == 5


def test_redraws_are_counted() -> None:
    space = Space.load("standard")
    recorder = Recorder(seed=0)
    study = _study(CappedSampler(recorder, under(4_000, space), max_redraws=200))

    _, draws = _counts(study, space, 6)

    n_redraws = sum(draw.n_redraws for draw in draws)
    assert n_redraws > 0
    assert recorder.n_joint == 6 + n_redraws
    assert recorder.n_single == recorder.n_joint * len(space.distributions)


def test_what_always_fits_is_drawn_once() -> None:
    space = Space.load("standard")
    study = _study(make_sampler("random", under(10**6, space), seed=0, n_trials=0))

    _, draws = _counts(study, space, 5)

    assert draws == [Draw()] * 5


def test_shrinking_is_flagged_after_the_last_redraw() -> None:
    space = Space.load("standard")
    study = _study(CappedSampler(RandomSampler(seed=0), under(1_000, space), max_redraws=3))

    counts, draws = _counts(study, space, 4)

    assert draws == [Draw(n_redraws=3, is_shrunk=True)] * 4
    assert max(counts) < 1_000


def test_a_draw_is_taken_once() -> None:
    space = Space.load("standard")
    study = _study(CappedSampler(RandomSampler(seed=0), under(1_000, space), max_redraws=3))
    space.suggest(study.ask())

    assert _capped(study).take_draw().is_shrunk
    assert _capped(study).take_draw() == Draw()


@pytest.mark.parametrize("name", ["tpe", "random", "qmc", "cmaes"])
def test_a_queued_wide_first_layer_makes_the_rest_fit(name: str) -> None:
    space = Space.load("standard")
    study = _study(make_sampler(name, under(5_000, space), seed=2, n_trials=0))
    for _ in range(5):
        study.enqueue_trial({"width_1": 20})

    counts, _ = _counts(study, space, 5)

    assert max(counts) < 5_000
    assert [trial.params["width_1"] for trial in study.trials] == [20] * 5


def test_the_rest_of_a_queued_trial_is_scaled_down_where_redrawing_finds_no_fit() -> None:
    space = Space.load("standard")
    study = _study(make_sampler("random", under(1_500, space), seed=2, n_trials=0))
    study.enqueue_trial({"width_1": 12})

    counts, _ = _counts(study, space, 1)

    assert study.trials[0].params["width_1"] == 12
    assert counts[0] < 1_500


def test_a_queued_network_over_the_cap_stays_as_it_was_asked_for() -> None:
    space = Space.load("standard")
    study = _study(CappedSampler(RandomSampler(seed=0), under(8_000, space), max_redraws=3))
    widest = {"width_1": 20, "width_2": 28, "width_3": 32, "width_4": 32, "width_5": 32}
    study.enqueue_trial(widest)

    counts, draws = _counts(study, space, 1)

    assert counts[0] >= 8_000
    assert not draws[0].is_shrunk
    assert widest.items() <= study.trials[0].params.items()


@pytest.mark.parametrize("name", ["tpe", "random", "qmc", "cmaes"])
def test_the_same_seed_draws_the_same(name: str) -> None:
    space = Space.load("wide")
    first, second = (
        _values(_study(make_sampler(name, under(8_000, space), seed=7, n_trials=0)), space, 12)
        for _ in range(2)
    )

    assert first == second


@pytest.mark.parametrize("name", ["tpe", "random", "qmc", "cmaes", "gp"])
@pytest.mark.parametrize(("seed", "n_trials"), [(7, 1), (8, 0)])
def test_another_seed_or_a_longer_study_draws_anew(name: str, seed: int, n_trials: int) -> None:
    space = Space.load("standard")
    first = _values(_study(make_sampler(name, under(8_000, space), seed=7, n_trials=0)), space, 1)
    other = _values(
        _study(make_sampler(name, under(8_000, space), seed=seed, n_trials=n_trials)), space, 1
    )

    assert first != other


@pytest.mark.parametrize("name", ["tpe", "random", "qmc", "cmaes"])
@pytest.mark.parametrize("cap", [8_000, 1_000])
def test_choices_of_a_single_value_are_kept(name: str, cap: int) -> None:
    single = {
        "topology": [Space.load("standard").table["topology"]],
        "width_1": [8],
        "batch_size": [64],
        "momentum": [0.9],
    }
    space = Space("single", {**Space.load("standard").table, **single})
    study = _study(make_sampler(name, under(cap, space), seed=0, n_trials=0))

    counts, _ = _counts(study, space, 4)

    assert max(counts) < cap
    for trial in study.trials:
        assert {key: trial.params[key] for key in single} == {
            key: values[0] for key, values in single.items()
        }


def test_half_of_the_first_trials_are_drawn_about_the_first_values() -> None:
    space = Space.load("adaptive", parameter_cap=8_000)
    first = math.log(space.first()["learning_rate"])
    width = math.log(16)  # of the range, a factor of 4 either way
    near = []
    for seed in range(60):
        study = _study(make_sampler("tpe", space, seed=seed, n_trials=0))
        for values in _values(study, space, 9):
            near.append(abs(math.log(values["learning_rate"]) - first) < 0.12 * width)
    # About the first, one standard deviation holds 68 %; drawn evenly, 24 %.
    assert 0.40 < statistics.fmean(near) < 0.52


def test_every_trial_has_all_names_from_the_first_on() -> None:
    space = Space.load("wide")
    study = _study(make_sampler("tpe", under(8_000, space), seed=0, n_trials=0))

    _counts(study, space, 12)

    for trial in study.trials:
        assert list(trial.distributions.items()) == list(space.distributions.items())


def test_the_inner_sampler_hears_how_a_trial_ended() -> None:
    space = Space.load("standard")
    recorder = Recorder(seed=0)
    study = _study(CappedSampler(recorder, under(8_000, space), max_redraws=50))

    for state in (TrialState.PRUNED, TrialState.FAIL):
        trial = study.ask()
        space.suggest(trial)
        study.tell(trial, state=state)

    assert recorder.told == [TrialState.PRUNED, TrialState.FAIL]


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    known = ", ".join(SAMPLERS)

    with pytest.raises(InputError, match=f"one of {known}, but got 'grid'"):
        make_sampler("grid", Space.load("standard"), seed=0, n_trials=0)
