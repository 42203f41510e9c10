"""What a study has tried: nothing is drawn again, and a small space comes to its end."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from search.space.space import Space
from search.study.owners import owner_of_this_process
from search.study.record import TrialRecord
from search.tuner.dedup import SeenConfigurations
from search.tuner.sampler import CappedSampler, make_sampler
from tests.support.made_studies import record
from tests.support.spaces import under

_CAP = 100_000
_FIXED: dict[str, Any] = {
    key: value["low"] if isinstance(value, dict) else value
    for key, value in Space.load("standard").table.items()
}
_TWO_TOPOLOGIES = ["c3, pool, c3, gap, out", "c3, pool, c3, c3, gap, out"]


def _space(**searched: Any) -> Space:
    return Space("small", {**_FIXED, **searched})


def _grid() -> Space:
    """Six combinations, and as many recipes."""
    return _space(batch_size=[32, 64], width_1={"low": 4, "high": 6})


def _study(space: Space, sampler: str | BaseSampler = "random", *, cap: int = _CAP) -> Study:
    if isinstance(sampler, str):
        capped = make_sampler(sampler, under(cap, space), seed=3, n_trials=0)
    else:
        capped = CappedSampler(sampler, under(cap, space), max_redraws=5)
    return optuna.create_study(direction="maximize", sampler=capped)


def _ask(study: Study, space: Space) -> Trial:
    trial = study.ask()
    TrialRecord(owner=owner_of_this_process()).write(study, trial._trial_id)
    space.suggest(trial)
    return trial


def _train(study: Study, space: Space, values: dict[str, Any] | None = None) -> Trial:
    """A trial, of those values or drawn, that counts as trained."""
    if values is not None:
        study.enqueue_trial(values)
    trial = _ask(study, space)
    value = trial.params.get("learning_rate", 0.5)
    for key, attribute in record(value).items():
        trial.set_user_attr(key, attribute)
    study.tell(trial, value)
    return trial


def _seen(study: Study) -> SeenConfigurations:
    assert isinstance(study.sampler, CappedSampler)
    study.sampler.seen.update(study.trials)
    return study.sampler.seen


def _is_new(study: Study) -> bool:
    assert isinstance(study.sampler, CappedSampler)
    return study.sampler.take_draw().is_new


class Stubborn(RandomSampler):
    """Draws the same values again and again, and counts how often it was asked."""

    def __init__(self, values: dict[str, Any]) -> None:
        super().__init__(seed=0)
        self.values = values
        self.n_asked = 0

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: Any) -> Any:
        self.n_asked += 1
        return dict(self.values)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> Any:
        return {}


@pytest.mark.parametrize("name", ["tpe", "random", "qmc", "cmaes", "gp"])
def test_a_small_space_is_tried_to_its_end_without_a_repetition(name: str) -> None:
    space = _grid()
    study = _study(space, name)

    for _ in range(6):
        assert _seen(study).has_untried()
        _train(study, space)
        assert _is_new(study)

    assert len({space.suggest(trial) for trial in study.trials}) == 6
    assert not _seen(study).has_untried()


def test_what_is_drawn_when_nothing_is_left_is_marked() -> None:
    space = _grid()
    study = _study(space)
    for _ in range(6):
        _train(study, space)

    _ask(study, space)

    assert not _is_new(study)


def test_only_configurations_under_the_cap_are_waited_for() -> None:
    space = _grid()
    sizes = [
        space.spec({"batch_size": 32, "width_1": width}).parameter_count for width in (4, 5, 6)
    ]
    study = _study(space, cap=sizes[1] + 1)

    for _ in range(4):
        assert _seen(study).has_untried()
        _train(study, space)

    assert {trial.params["width_1"] for trial in study.trials} == {4, 5}
    assert not _seen(study).has_untried()


def test_a_sampler_that_insists_is_asked_up_to_its_limit_and_then_overruled() -> None:
    space = _space(learning_rate={"low": 0.01, "high": 0.1})
    sampler = Stubborn({"learning_rate": 0.05})
    study = _study(space, sampler)
    _train(study, space)

    for n_trials in (2, 3):
        _train(study, space)
        assert sampler.n_asked == 1 + 6 * (n_trials - 1)

    rates = [trial.params["learning_rate"] for trial in study.trials]
    assert rates[0] == 0.05
    assert len(set(rates)) == 3


def test_a_repetition_is_no_candidate_over_the_cap() -> None:
    space = _space(learning_rate={"low": 0.01, "high": 0.1})
    study = _study(space, Stubborn({"learning_rate": 0.05}))
    _train(study, space)
    _train(study, space)
    assert isinstance(study.sampler, CappedSampler)

    assert study.sampler.take_draw().n_redraws == 0


def test_a_scaled_down_candidate_is_not_repeated() -> None:
    space = _space(width_5={"low": 4, "high": 300}, learning_rate=[0.05])
    smallest = space.smallest_count()
    study = _study(space, Stubborn({"width_5": 300}), cap=smallest + 200)

    for _ in range(3):
        _train(study, space)

    counts = [space.suggest(trial).spec.parameter_count for trial in study.trials]
    assert len(set(counts)) == 3
    assert max(counts) < smallest + 200


@pytest.mark.parametrize(
    ("searched", "first", "second", "is_same"),
    [
        ({"width_1": [4, 5]}, {"width_1": 4}, {"width_1": 5}, False),
        (
            {"topology": _TWO_TOPOLOGIES, "width_3": [4, 5]},
            {"topology": _TWO_TOPOLOGIES[0], "width_3": 4},
            {"topology": _TWO_TOPOLOGIES[0], "width_3": 5},
            True,
        ),
        (
            {"topology": _TWO_TOPOLOGIES, "width_3": [4, 5]},
            {"topology": _TWO_TOPOLOGIES[1], "width_3": 4},
            {"topology": _TWO_TOPOLOGIES[1], "width_3": 5},
            False,
        ),
        (
            {"schedule": ["step", "cosine"], "step_gamma": [0.1, 0.2]},
            {"schedule": "cosine", "step_gamma": 0.1},
            {"schedule": "cosine", "step_gamma": 0.2},
            True,
        ),
        (
            {"dropout": {"low": 0.0, "high": 0.5}},
            {"dropout": 0.25},
            {"dropout": 0.25 + 1e-6},
            True,
        ),
    ],
)
def test_values_are_one_configuration_where_they_build_one_recipe(
    searched: dict[str, Any], first: dict[str, Any], second: dict[str, Any], is_same: bool
) -> None:
    space = _space(**searched)
    study = _study(space)
    _train(study, space, first)

    seen = _seen(study)

    assert first in seen
    assert seen.trained_by(first) == 0
    assert (second in seen) == is_same
    assert seen.trained_by(second) == (0 if is_same else None)


def test_widths_that_are_scaled_to_the_same_are_one_configuration() -> None:
    table = {**_grid().table, "batch_size": 32, "budget_share": 0.9}
    table["width_1"], table["width_2"] = [4, 8], [4, 8]
    for name in ("width_3", "width_4", "width_5"):
        table[name] = [4, 8]
    space = Space("scaled", table, parameter_cap=3_000)
    small, large = ({f"width_{i}": width for i in range(1, 6)} for width in (4, 8))
    assert space.hyperparameters_or_none(small) == space.hyperparameters_or_none(large)
    study = _study(space, cap=3_000)
    _train(study, space, small)

    assert _seen(study).trained_by(large) == 0


@pytest.mark.parametrize("state", ["running", "waiting", "failed", "interrupted", "untrained"])
def test_what_counts_as_tried(state: str) -> None:
    space = _grid()
    study = _study(space)
    values = {"batch_size": 32, "width_1": 5}
    study.enqueue_trial(values)
    if state != "waiting":
        trial = _ask(study, space)
    if state in ("failed", "interrupted"):
        trial.set_user_attr("reason", state)
        study.tell(trial, state=TrialState.FAIL)
    if state == "untrained":  # as a trial over the cap ends
        study.tell(trial, state=TrialState.PRUNED)

    seen = _seen(study)

    assert (values in seen) == (state in ("running", "waiting", "failed"))
    assert seen.trained_by(values) == (0 if state == "running" else None)
    untried = seen.untried()
    assert untried is not None
    assert (values in untried) == (values not in seen)


def test_what_ran_and_was_interrupted_can_be_drawn_again() -> None:
    space = _grid()
    study = _study(space)
    study.enqueue_trial({"batch_size": 32, "width_1": 5})
    trial = _ask(study, space)
    assert trial.params in _seen(study)

    trial.set_user_attr("reason", "interrupted")
    study.tell(trial, state=TrialState.FAIL)

    assert trial.params not in _seen(study)


def test_running_trials_are_not_drawn_a_second_time() -> None:
    space = _grid()
    study = _study(space)

    trials = [_ask(study, space) for _ in range(6)]

    assert len({tuple(trial.params.items()) for trial in trials}) == 6
    assert not _seen(study).has_untried()


def test_trials_of_every_bracket_of_hyperband_count() -> None:
    space = _grid()
    study = _study(space)
    study.pruner = optuna.pruners.HyperbandPruner(max_resource=9)
    study.pruner.prune(study, study.ask()._cached_frozen_trial)  # which makes its brackets
    study.tell(0, state=TrialState.FAIL)

    for _ in range(6):
        _train(study, space)

    assert len({space.suggest(trial) for trial in study.trials[1:]}) == 6


def test_a_repeat_from_the_queue_is_drawn_as_it_is() -> None:
    space = _space(learning_rate={"low": 0.01, "high": 0.1})
    study = _study(space, Stubborn({"learning_rate": 0.05}))
    _train(study, space)
    study.enqueue_trial({"learning_rate": 0.05}, user_attrs={"repeats": 0})

    trial = _ask(study, space)

    assert trial.params == {"learning_rate": 0.05}
    assert _is_new(study)


def test_the_rest_of_a_queued_trial_is_drawn_so_that_it_is_new() -> None:
    space = _grid()
    study = _study(space)
    for width in (4, 6):
        _train(study, space, {"batch_size": 64, "width_1": width})
    study.enqueue_trial({"batch_size": 64})

    trial = _ask(study, space)

    assert trial.params == {"batch_size": 64, "width_1": 5}


def test_hand_made_values_that_nothing_can_be_made_of_are_not_compared() -> None:
    space = _grid()
    study = _study(space)
    _train(study, space, {"batch_size": 64, "width_1": 5})
    study.enqueue_trial({"batch_size": [64], "momentun": 1})
    study.enqueue_trial({"batch_size": 7})

    untried = _seen(study).untried()

    assert untried is not None
    assert len(untried) == 5
    assert study.ask().number == 1


def test_a_space_with_too_much_to_list_is_not_listed() -> None:
    widths = {f"width_{i}": {"low": 4, "high": 13} for i in range(1, 6)}
    for space in (_space(**widths), Space.load("standard")):
        seen = SeenConfigurations(under(_CAP, space))
        assert seen.untried() is None
        assert seen.has_untried()


def test_a_space_of_one_recipe_has_one_trial() -> None:
    space = _space()
    study = _study(space)
    assert _seen(study).has_untried()

    _train(study, space)

    assert not _seen(study).has_untried()


def test_of_a_space_with_too_much_to_list_draws_tell_that_nothing_is_left() -> None:
    space = _space(**{f"width_{i}": {"low": 4, "high": 10} for i in range(1, 6)})
    cap = space.smallest_count() + 1  # under which a single network fits
    study = _study(space, cap=cap)
    assert isinstance(study.sampler, CappedSampler)
    assert _seen(study).untried() is None
    assert study.sampler.has_untried(study)

    _train(study, under(cap, space), {f"width_{i}": 4 for i in range(1, 6)})

    study.sampler.refresh(study)
    assert not study.sampler.has_untried(study)


def test_reading_many_trials_builds_no_recipe() -> None:
    """What 10,000 stored trials cost: to build a recipe of each would take seconds a draw."""

    class Counting(Space):
        n_built = 0

        def hyperparameters_or_none(self, values: Any) -> Any:
            type(self).n_built += 1
            return super().hyperparameters_or_none(values)

    standard = Space.load("standard")
    space = Counting(standard.name, standard.table)
    study = _study(space)
    for _ in range(30):
        _train(study, space)

    assert Counting.n_built == 0
    assert study.trials[7].params in _seen(study)
    assert Counting.n_built == 2
