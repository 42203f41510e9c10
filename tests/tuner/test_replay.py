"""Searches replayed over a made-up table: wide networks and a middling learning rate are best."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from optuna.trial import TrialState

from scripts.experiments.comparisons import COLOURED, COMPARISONS
from scripts.experiments.measures import Paths, measure
from scripts.experiments.policies import REFERENCE, Search, make_policy, replay
from scripts.experiments.record_curves import CAP, EPOCHS, draw
from scripts.experiments.recorded import epoch_correlations, prune_recorded
from scripts.experiments.recorded_points import Point, points_of
from scripts.experiments.replay import run_policies
from scripts.experiments.replay_pictures import draw_pictures, styles
from scripts.experiments.surrogate import N_LAST, Cost, Surrogate
from search.report.palette import STOPPED
from search.space.hyperparameters import Hyperparameters
from search.study.record import is_foreign
from search.study.summary import is_trained
from search_models.network import in_notation

N_POINTS = 40


def made_up_point(number: int) -> Point:
    recipe = draw(number)
    error = 0.01 * math.exp(math.log(recipe.learning_rate / 0.05) ** 2 / 10)
    error *= (CAP / recipe.spec.parameter_count) ** 0.5
    errors = [min(0.9, error * (1 + 4 / epoch)) for epoch in range(1, EPOCHS + 1)]
    seconds = (
        EPOCHS * true_cost().epoch_seconds(in_notation(recipe.spec)) * (1, 2.5, 1, 0.9)[number % 4]
    )
    return Point(recipe, tuple(1 - error for error in errors), seconds, EPOCHS, "one")


def true_cost() -> Cost:
    return Cost(fixed=2.0, per_flop=1e-6)


@pytest.fixture(scope="module")
def surrogate() -> Surrogate:
    return Surrogate([made_up_point(number) for number in range(N_POINTS)], kinds=("isotropic",))


def final(accuracies: tuple[float, ...]) -> float:
    return float(np.mean(accuracies[-N_LAST:]))


def test_recorded_points_are_answered_near_what_was_recorded(surrogate: Surrogate) -> None:
    for point in surrogate.points:
        answer = surrogate.answer(point.recipe, seed=3)
        recorded = 1 - final(point.accuracies)
        assert 1 - answer.true_value == pytest.approx(recorded, rel=0.15)
        assert 1 - final(answer.accuracies) == pytest.approx(recorded, rel=0.5)


def test_noise_belongs_to_a_recipe_and_a_seed(surrogate: Surrogate) -> None:
    recipe = draw(N_POINTS)
    assert surrogate.answer(recipe, 1) == surrogate.answer(recipe, 1)
    assert surrogate.answer(recipe, 1).accuracies != surrogate.answer(recipe, 2).accuracies
    assert surrogate.answer(recipe, 1).true_value == surrogate.answer(recipe, 2).true_value


@pytest.mark.parametrize("kind", ["isotropic", "ard", "forest"])
def test_each_kind_of_model_ranks_points_that_it_has_not_seen(kind: str) -> None:
    points = [made_up_point(number) for number in range(N_POINTS)]
    assert Surrogate(points, kinds=(kind,)).scores[kind][0] > 0.5


def test_the_cost_is_found_though_every_fourth_point_was_disturbed(surrogate: Surrogate) -> None:
    spec = in_notation(draw(N_POINTS).spec)
    expected = true_cost().epoch_seconds(spec)
    assert surrogate.cost.epoch_seconds(spec) == pytest.approx(expected, rel=0.1)


def test_a_row_whose_loss_diverged_is_read_as_chance() -> None:
    row: dict[str, Any] = {
        "spec": "c3 4, gap, out",
        "learning_rate": "0.5",
        "momentum": "0.9",
        "weight_decay": "0",
        "optimizer": "adamw",
        "schedule": "StepDecay",
        "step_share": "0.3",
        "step_gamma": "0.1",
        "batch_size": "32",
        "seconds": "10.5",
        "processor": "one",
        **dict.fromkeys(("rotation_degrees", "translation", "scale", "shear_degrees"), "0"),
        **{f"accuracy_{epoch}": "" for epoch in range(1, EPOCHS + 1)},
        "accuracy_1": "0.4",
    }
    (point,) = points_of([row])
    assert point.accuracies == (0.4, *[0.1] * (EPOCHS - 1))
    assert point.n_epochs == 1


@pytest.mark.parametrize(
    "name",
    [
        "broad/tpe-5/halving-3-3",
        "broad-drawn/random/hyperband-5-3",
        "wide-drawn/qmc/median-0/baselines",
    ],
)
def test_a_replay_is_the_same_by_the_same_seed(surrogate: Surrogate, name: str) -> None:
    first = replay(make_policy(name), surrogate, 7, n_trials=12)
    assert first == replay(make_policy(name), surrogate, 7, n_trials=12)
    assert first != replay(make_policy(name), surrogate, 8, n_trials=12)


@pytest.mark.parametrize(
    "name",
    [
        "broad-drawn/tpe-5/none",
        "broad-drawn/random/none/baselines",
        "standard+width_1=8/cmaes/none",
        REFERENCE,
    ],
)
def test_no_trial_over_the_cap_is_trained(surrogate: Surrogate, name: str) -> None:
    search = replay(make_policy(name), surrogate, 0, n_trials=15)
    assert len(search.records) == 15
    assert all(record.parameter_count < CAP for record in search.records)


def test_only_the_reference_makes_trials_over_the_cap(surrogate: Surrogate) -> None:
    assert replay(make_policy(REFERENCE), surrogate, 0, n_trials=15).n_over > 0
    assert replay(make_policy("broad-drawn/tpe/none"), surrogate, 0, n_trials=15).n_over == 0


@pytest.mark.parametrize("name", ["standard/random/none", "broad/random/halving-3-3"])
def test_seconds_add_up(surrogate: Surrogate, name: str) -> None:
    search = replay(make_policy(name), surrogate, 0, n_trials=15)
    trained = sum(record.n_epochs * record.epoch_seconds for record in search.records)
    assert search.spent == pytest.approx(trained)
    assert search.records[-1].spent == search.spent
    assert [r.spent for r in search.records] == sorted(r.spent for r in search.records)


def test_a_search_may_go_on_until_it_has_trained_long_enough(surrogate: Surrogate) -> None:
    search = replay(make_policy("standard/random/none"), surrogate, 0, n_trials=2, seconds=1000)
    assert search.spent >= 1000
    assert len(search.records) > 2


def test_a_sampler_learns_of_each_trial_that_is_replayed(surrogate: Surrogate) -> None:
    search = Search(make_policy("standard/tpe/halving-5-3"), surrogate, 0, 9, 0.0)
    search.run()
    trials = search._study.get_trials()
    assert {trial.state for trial in trials} == {TrialState.COMPLETE, TrialState.PRUNED}
    assert all(is_trained(trial) and not is_foreign(trial) for trial in trials)


def test_hand_tuned_recipes_are_the_first_trials(surrogate: Surrogate) -> None:
    policy = make_policy("broad-drawn/random/none/baselines")
    asked: list[Hyperparameters] = []
    search = Search(policy, _Listener(surrogate, asked), 0, 3, 0.0)
    search.run()
    assert "c3 8, c3 10, drop 0.0, pool, c3 12, drop 0.0, pool, c3 16, c3 16" in str(asked[0].spec)
    assert asked[0].learning_rate == asked[1].learning_rate == 0.05


class _Listener(Surrogate):
    """Notes what it is asked."""

    def __init__(self, surrogate: Surrogate, asked: list[Hyperparameters]) -> None:
        self.__dict__.update(surrogate.__dict__)
        self._asked = asked

    def answer(self, recipe: Hyperparameters, seed: int) -> Any:
        self._asked.append(recipe)
        return super().answer(recipe, seed)


def test_what_is_measured_of_a_policy_that_prunes_and_of_one_that_does_not(
    surrogate: Surrogate,
) -> None:
    names = [REFERENCE, "standard/random/none"]
    results = run_policies(names, surrogate, n_replays=2, n_jobs=1, seconds=0)
    plain = measure(names[1], results[names[1]], results[REFERENCE])
    assert plain.saved_share == pytest.approx(0)
    assert plain.false_prune_rate == 0
    own = measure(REFERENCE, results[REFERENCE], results[REFERENCE])
    assert 0 < own.saved_share < 1
    assert own.over_cap > 0 == plain.over_cap


def test_a_path_names_the_best_value_and_tells_its_true_one(surrogate: Surrogate) -> None:
    search = replay(make_policy("standard/random/none"), surrogate, 0, n_trials=10)
    spent, named = search.named_best()
    best = max(search.records, key=lambda record: record.value or 0)
    assert named[-1] == best.true_value
    paths = Paths([search])
    assert paths.seconds_to(named[-1])[0] <= spent[-1]
    assert paths.seconds_to(1.0)[0] == math.inf
    assert list(paths.named_at(np.array([0.0, spent[-1]]))[0]) == [0.0, named[-1]]


def test_the_last_epochs_rank_as_the_final_value_does(surrogate: Surrogate) -> None:
    correlations = epoch_correlations(surrogate.points)
    assert all(row[-1] == pytest.approx(1) for row in correlations.values())


def test_a_comparison_and_the_epochs_are_drawn(surrogate: Surrogate, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    names = [REFERENCE, *COMPARISONS["pruners"][:2]]
    results = {name: [replay(make_policy(name), surrogate, 0, n_trials=4)] for name in names}
    draw_pictures(tmp_path, results, epoch_correlations(surrogate.points))
    assert {path.name for path in tmp_path.iterdir()} == {"pruners.png", "epochs.png"}


def test_a_policy_is_drawn_alike_in_all_pictures_and_like_no_other_in_one() -> None:
    drawn = {title: styles(title, [REFERENCE, *names]) for title, names in COMPARISONS.items()}
    for name in {name for style in drawn.values() for name in style}:
        looks = {tuple(style[name].items()) for style in drawn.values() if name in style}
        assert len(looks) == 1, name
    for title, style in drawn.items():
        coloured = [
            tuple(refresh.items())
            for name, refresh in style.items()
            if name in COLOURED.get(title, tuple(style))
        ]
        assert len(set(coloured)) == len(coloured) > 2, title
    greys = set(COMPARISONS["pruners"]) - set(COLOURED["pruners"])
    assert {drawn["pruners"][name]["color"] for name in greys} == {STOPPED}


def test_a_policy_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="no pruner"):
        make_policy("standard/tpe/best")


def test_a_pruner_that_stops_early_saves_epochs_of_recorded_trainings(surrogate: Surrogate) -> None:
    none, halving = (
        prune_recorded(surrogate.points, name, n_orders=3) for name in ("none", "halving-5-3")
    )
    assert none.saved == none.best_tenth == none.best_fifth == 0
    assert 0 < halving.saved < 10 / 15
    assert halving.best <= halving.all


def test_a_space_may_have_something_fixed() -> None:
    space = make_policy("wide+schedule=cosine+topology=2+batch_size=64/random/none").space
    free = make_policy("wide/random/none").space
    fixed = {"schedule", "topology", "batch_size"}
    of_other_schedules = {"warmup_share", "step_share", "step_gamma"}
    assert free.distributions.keys() - space.distributions.keys() == fixed | of_other_schedules
