"""Two objectives: accuracy against size, pruned all the same, and the front they make."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from optuna.pruners import MedianPruner, SuccessiveHalvingPruner
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from search.space.space import Space
from search.study.findings import Findings
from search.study.summary import CONFIRMS, by_accuracy, front, repeats_name
from search.tuner.options import SearchRequest
from search.tuner.plan import plan_search
from search.tuner.pruning import AccuracyAmongNoLarger
from search.tuner.request import check_request
from search.tuner.session import begin_search
from tests.conftest import Command, Result, run_here
from tests.support.made_studies import MadeTrial, make_study, record

RUN = (
    *("run", "--dataset", "digits", "--budget", "3000", "--epochs", "3", "--workers", "2"),
    *("--objective", "accuracy,size", "--trials", "12"),
)
STUDY = "digits-3000x3-by-size"


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """A folder in which a search with two objectives ran, and what it printed."""
    folder = tmp_path_factory.mktemp("by-size")
    done = Command(folder)(*RUN)
    assert done.code == 0, done.err
    return folder, done


@pytest.fixture
def by_size(searched: tuple[Path, Result], command: Command) -> Command:
    """A copy of that folder, to do with as a test likes."""
    shutil.copytree(searched[0], command.folder, dirs_exist_ok=True)
    return command


def study_of_two() -> Study:
    return optuna.create_study(
        directions=["maximize", "minimize"], sampler=optuna.samplers.RandomSampler(seed=0)
    )


def is_stopped(
    pruning: AccuracyAmongNoLarger, trial: Trial, size: int, accuracy: float, *, epoch: int = 1
) -> bool:
    pruning.report(trial, size, epoch, accuracy)
    return pruning.should_prune(trial)


def test_a_small_network_is_judged_by_those_that_are_no_larger() -> None:
    study = study_of_two()
    pruning = AccuracyAmongNoLarger(MedianPruner(n_startup_trials=2, n_warmup_steps=0), [])
    for size, accuracy in ((5_000, 0.99), (6_000, 0.98), (1_000, 0.90), (1_100, 0.91)):
        trial = study.ask()
        assert not is_stopped(pruning, trial, size, accuracy) or size > 5_000
        pruning.end(trial.number, accuracy)
    small, weak, large = study.ask(), study.ask(), study.ask()
    assert not is_stopped(pruning, small, 1_200, 0.92)  # better than those of its size
    assert is_stopped(pruning, weak, 1_200, 0.80)
    assert is_stopped(pruning, large, 7_000, 0.93)  # better than the small ones, not than its own


def test_halving_keeps_a_third_of_those_that_are_no_larger() -> None:
    study = study_of_two()
    halving = SuccessiveHalvingPruner(min_resource=2, reduction_factor=3)
    pruning = AccuracyAmongNoLarger(halving, [])
    stopped = []
    for accuracy in (0.97, 0.96, 0.95, 0.98):
        trial = study.ask()
        assert not is_stopped(pruning, trial, 2_000, accuracy)
        stopped.append(is_stopped(pruning, trial, 2_000, accuracy, epoch=2))
    assert stopped == [False, True, True, False]
    tiny = study.ask()
    assert not is_stopped(pruning, tiny, 500, 0.5, epoch=2)


class CountingHalving(SuccessiveHalvingPruner):
    """Halving that counts the trials which it is shown."""

    n_shown = 0

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        self.n_shown += len(study.get_trials(deepcopy=False))
        return super().prune(study, trial)


def test_a_start_goes_through_each_epoch_once_and_judges_as_before() -> None:
    def trials() -> Iterator[FrozenTrial]:
        for number in range(200):
            accuracy = 0.5 + number / 1000
            made = optuna.create_trial(
                values=[accuracy, 1000], user_attrs=record(accuracy, count=1000)
            )
            made.number = number
            yield made

    halving = CountingHalving(min_resource=1, reduction_factor=3)
    pruning = AccuracyAmongNoLarger(halving, trials())
    assert halving.n_shown == 200  # and not its square
    study = study_of_two()
    study.add_trials(trials())
    assert is_stopped(pruning, study.ask(), 1000, 0.6)
    assert not is_stopped(pruning, study.ask(), 1000, 0.69)


def test_a_trial_that_diverged_is_no_rival_by_size_either() -> None:
    study = study_of_two()
    pruning = AccuracyAmongNoLarger(SuccessiveHalvingPruner(1, 3), [])
    diverged = study.ask()
    assert not is_stopped(pruning, diverged, 1000, 0.9)
    pruning.end(diverged.number, None, is_diverged=True)
    assert not is_stopped(pruning, study.ask(), 1000, 0.5)


def test_a_front_without_a_complete_trial_is_refused_as_the_best_is(command: Command) -> None:
    make_study(f"sqlite:///{command.database}", "made", [MadeTrial(state=TrialState.FAIL)])
    best, front = command("best"), command("best", "--front")
    assert (front.code, front.err) == (best.code, best.err)
    assert "must have a complete trial" in front.err


def test_a_search_by_size_prunes_and_shows_its_front(
    searched: tuple[Path, Result], by_size: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{by_size.database}"

    def best(*options: str) -> str:
        assert run_here("best", *options, "--storage", url) == 0
        return capsys.readouterr().out

    study = by_size.study(STUDY)
    trials = study.get_trials()
    assert len(trials) == 12
    assert {trial.state.name for trial in trials} == {"COMPLETE", "PRUNED"}
    for trial in study.get_trials(states=[optuna.trial.TrialState.COMPLETE]):
        assert trial.values[1] == trial.user_attrs["parameter_count"] < 3_000
    shown = json.loads(best("--front", "--json"))
    # Optuna's own front, but for networks of one size and one accuracy.
    expected = {(trial.values[1], trial.values[0]) for trial in study.best_trials}
    assert {(row["parameter_count"], row["value"]) for row in shown} == expected
    assert "no network is better than these" in best("--front")
    end = searched[1].out
    assert "Best:" not in end
    assert "No network that was found is better than these and no larger:" in end
    for row in shown:
        cells = (f"{row['parameter_count']:,}", f"{100 * row['value']:.2f} %", str(row["trial"]))
        assert re.search(" +".join(map(re.escape, (*cells, row["network"]))), end)
    assert "Confirming" not in end
    assert json.loads(best("--json"))["value"] == max(
        trial.values[0] for trial in trials if trial.values
    )

    # A search that goes on judges by what the study has.
    halving = SuccessiveHalvingPruner(min_resource=1, reduction_factor=3)
    weakest = min(trial.user_attrs["epochs"][0]["accuracy"] for trial in trials)
    fresh = study.ask()
    goes_on, is_new = AccuracyAmongNoLarger(halving, trials), AccuracyAmongNoLarger(halving, [])
    assert is_stopped(goes_on, fresh, 2_999, weakest - 0.01)
    assert not is_stopped(is_new, fresh, 2_999, weakest - 0.01)


def test_the_most_accurate_of_all_sizes_is_retrained_ablated_and_confirmed(
    by_size: Command,
) -> None:
    first, second = by_accuracy(by_size.study(STUDY).trials)[:2]

    retrained = by_size("retrain", "--seeds", "1", "--out", "weights")
    assert retrained.code == 0, retrained.err
    card = json.loads((by_size.folder / "weights" / "card.json").read_text())
    assert (card["trial"], card["parameter_count"]) == (first.number, first.values[1])

    ablated = by_size("ablate", "--seeds", "1", "--json")
    assert ablated.code == 0, ablated.err
    rows = {row["change"]: row for row in ablated.json}
    assert rows["unchanged"]["parameter_count"] == first.values[1]
    assert rows["half the width"]["parameter_count"] < first.values[1]

    confirmed = by_size("confirm", "--top", "2", "--seeds", "2", "--json")
    assert confirmed.code == 0, confirmed.err
    raced = {row["trial"]: row["search_value"] for row in confirmed.json["candidates"]}
    assert raced == {trial.number: trial.values[0] for trial in (first, second)}
    study = by_size.study(STUDY)
    assert study.user_attrs["confirmation"]["trial"] in raced
    assert Findings.read(study).test_looks == 1
    assert len(by_size.study(repeats_name(STUDY, CONFIRMS)).trials) >= 3


def test_studies_of_one_objective_and_of_two_start_from_each_other(by_size: Command) -> None:
    old = by_size.study(STUDY)
    best = by_accuracy(old.trials)[:5]
    new = ("run", "--dataset", "digits", "--budget", "1500", "--epochs", "1", "--workers", "1")
    done = by_size(*new, "--from-study", STUDY, "--trials", "2")
    assert done.code == 0, done.err
    # How many of the 12 were not stopped early is a matter of the workers' timing.
    assert len(best) >= 2
    assert f"starts from {STUDY}: {len(best)} of its best trials queued" in done.out
    study = by_size.study("digits-1500x1")
    origins = [trial.user_attrs["from_study"] for trial in study.trials]
    assert origins == [f"{STUDY}/{trial.number}" for trial in best]
    for earlier, trial in zip(best, study.trials[:2], strict=False):
        assert trial.state == TrialState.COMPLETE
        assert trial.params["learning_rate"] == earlier.params["learning_rate"]
        assert 1_300 < trial.user_attrs["parameter_count"] < 1_500  # one objective fills the budget

    request = SearchRequest(
        budget=1500,
        epochs=1,
        dataset="digits",
        objective="accuracy,size",
        storage=f"sqlite:///{by_size.database}",
        from_study="digits-1500x1",
    )
    with begin_search(plan_search(check_request(request))) as search:
        queued = search.study.trials
        assert search.study.study_name == "digits-1500x1-by-size"
    best = by_accuracy(study.trials)
    assert [trial.user_attrs["from_study"] for trial in queued] == [
        f"digits-1500x1/{trial.number}" for trial in best
    ]
    for earlier, trial in zip(best, queued, strict=True):
        assert trial.system_attrs["fixed_params"] == {**earlier.params, "budget_share": 1.0}


def test_a_front_leaves_out_what_is_larger_and_no_better() -> None:
    study = optuna.create_study(direction="maximize")
    for count, value in ((900, 0.97), (800, 0.98), (1_000, 0.98), (1_200, 0.99), (1_200, 0.985)):
        study.add_trial(optuna.create_trial(value=value, user_attrs=record(value, count=count)))
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
    tmp_path: Path,
    options: tuple[str, ...],
    rule: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = ("run", "--dataset", "digits", "--budget", "3000", "--epochs", "3")
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    assert run_here(*run, "--storage", url, *options) == 2
    assert rule in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_study_keeps_its_objective(
    finished_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{finished_folder / 'studies.db'}"
    assert run_here(*RUN, "--study", "digits-3000x3", "--storage", url) == 2
    assert "objective accuracy there and accuracy,size here" in capsys.readouterr().err


def test_a_space_whose_networks_fill_the_budget_opens_to_all_sizes() -> None:
    space = Space.load("standard", parameter_cap=8_000)
    filled = replace(space, table={**space.table, "budget_share": 1.0})
    assert "budget_share" not in filled.distributions
    assert "budget_share" in filled.with_open_size().distributions
