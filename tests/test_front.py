"""Two objectives: accuracy against size, pruned all the same, and the front they make."""

from __future__ import annotations

from dataclasses import replace

import optuna
import pytest
from optuna.pruners import MedianPruner, SuccessiveHalvingPruner
from optuna.study import Study

from search.pruning import AccuracyAmongNoLarger
from search.space import Space
from search.summary import front
from tests.conftest import Command

RUN = (
    *("run", "--dataset", "digits", "--budget", "3000", "--epochs", "3", "--workers", "2"),
    *("--objective", "accuracy,size", "--trials", "12"),
)
STUDY = "digits-3000x3-by-size"


def study_of_two() -> Study:
    return optuna.create_study(
        directions=["maximize", "minimize"], sampler=optuna.samplers.RandomSampler(seed=0)
    )


def test_a_small_network_is_judged_by_those_that_are_no_larger() -> None:
    study = study_of_two()
    pruning = AccuracyAmongNoLarger(MedianPruner(n_startup_trials=2, n_warmup_steps=0), [])
    for size, accuracy in ((5_000, 0.99), (6_000, 0.98), (1_000, 0.90), (1_100, 0.91)):
        trial = study.ask()
        assert not pruning.report(trial, size, 1, accuracy) or size > 5_000
        pruning.end(trial.number, accuracy)
    small, weak, large = study.ask(), study.ask(), study.ask()
    assert not pruning.report(small, 1_200, 1, 0.92)  # better than those of its size
    assert pruning.report(weak, 1_200, 1, 0.80)
    assert pruning.report(large, 7_000, 1, 0.93)  # better than the small ones, but not than its own


def test_halving_keeps_a_third_of_those_that_are_no_larger() -> None:
    study = study_of_two()
    halving = SuccessiveHalvingPruner(min_resource=2, reduction_factor=3)
    pruning = AccuracyAmongNoLarger(halving, [])
    stopped = []
    for accuracy in (0.97, 0.96, 0.95, 0.98):
        trial = study.ask()
        assert not pruning.report(trial, 2_000, 1, accuracy)
        stopped.append(pruning.report(trial, 2_000, 2, accuracy))
    assert stopped == [False, True, True, False]
    tiny = study.ask()
    assert not pruning.report(tiny, 500, 2, 0.5)


def test_a_search_by_size_prunes_and_shows_its_front(command: Command) -> None:
    done = command(*RUN)
    assert done.code == 0, done.err
    study = command.study(STUDY)
    trials = study.get_trials()
    assert len(trials) == 12
    assert {trial.state.name for trial in trials} == {"COMPLETE", "PRUNED"}
    for trial in study.get_trials(states=[optuna.trial.TrialState.COMPLETE]):
        assert trial.values[1] == trial.user_attrs["parameter_count"] < 3_000
    shown = command("best", "--front", "--json").json
    # Optuna's own front, but for networks of one size and one accuracy.
    expected = {(trial.values[1], trial.values[0]) for trial in study.best_trials}
    assert {(row["parameter_count"], row["value"]) for row in shown} == expected
    assert "no network is better than these" in command("best", "--front").out
    assert "Confirming" not in done.out
    assert command("best", "--json").json["value"] == max(
        trial.values[0] for trial in trials if trial.values
    )

    # A search that goes on judges by what the study has.
    halving = SuccessiveHalvingPruner(min_resource=1, reduction_factor=3)
    weakest = min(trial.user_attrs["epochs"][0]["accuracy"] for trial in trials)
    fresh = study.ask()
    assert AccuracyAmongNoLarger(halving, trials).report(fresh, 2_999, 1, weakest - 0.01)
    assert not AccuracyAmongNoLarger(halving, []).report(fresh, 2_999, 1, weakest - 0.01)


def test_a_front_leaves_out_what_is_larger_and_no_better() -> None:
    study = optuna.create_study(direction="maximize")
    for size, accuracy in ((900, 0.97), (800, 0.98), (1_000, 0.98), (1_200, 0.99), (1_200, 0.985)):
        study.add_trial(optuna.create_trial(value=accuracy, user_attrs={"parameter_count": size}))
    study.add_trial(optuna.create_trial(state=optuna.trial.TrialState.PRUNED))
    assert [trial.number for trial in front(study.get_trials())] == [1, 3]


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        (("--objective", "size"), "one of accuracy or accuracy,size"),
        (("--objective", "accuracy,size", "--sampler", "cmaes"), "must have one objective"),
        (("--objective", "accuracy,size", "--pruner", "hyperband"), "must have one objective"),
        (("--objective", "accuracy,size", "--patience", "3"), "must have one objective"),
        (("--objective", "accuracy,size", "--target", "99"), "objective accuracy"),
    ],
)
def test_what_two_objectives_cannot_do_is_refused_before_anything_is_written(
    command: Command, options: tuple[str, ...], rule: str
) -> None:
    refused = command("run", "--dataset", "digits", "--budget", "3000", "--epochs", "3", *options)
    assert refused.code == 2
    assert rule in refused.err
    assert not command.database.exists()


def test_a_study_keeps_its_objective(finished: Command) -> None:
    refused = finished(*RUN, "--study", "digits-3000x3")
    assert refused.code == 2
    assert "objective accuracy there and accuracy,size here" in refused.err


def test_a_space_whose_networks_fill_the_budget_opens_to_all_sizes() -> None:
    space = Space.load("standard", parameter_cap=8_000)
    filled = replace(space, table={**space.table, "budget_share": 1.0})
    assert "budget_share" not in filled.distributions
    assert "budget_share" in filled.with_open_size().distributions
