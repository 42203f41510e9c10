"""A study that starts from an earlier one: the nearest values, and the real command."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.study import Study
from optuna.trial import TrialState

from search.space.space import Space
from search.space.transfer import transfer_values
from search.study.open import rebuild
from search.study.record import queued_values
from search.study.repair import requeue
from search.tuner.options import SearchRequest
from search.tuner.plan import SearchPlan, plan_search
from search.tuner.request import check_request
from search.tuner.session import begin_search
from search.tuner.warm_start import WarmStart
from tests.conftest import Command
from tests.support.made_studies import MadeTrial, make_study
from tests.support.spaces import under

_STANDARD = Space.load("standard")
_OTHER_TOPOLOGY = "c3p1, c3, drop, pool, c3, gap, out"
_LARGE = 10**6


def _space(cap: int | None = None, **changed: Any) -> Space:
    return Space("changed", {**_STANDARD.table, **changed}, parameter_cap=cap)


def _drawn(space: Space, seed: int = 0) -> dict[str, Any]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return dict(study.ask(space.distributions).params)


def _nearest(values: dict[str, Any], old: Space, new: Space, cap: int = _LARGE) -> dict[str, Any]:
    found = transfer_values(values, old, under(cap, new))
    assert found is not None
    assert new.invalid_reason(found) is None
    return found


def test_in_the_same_space_nothing_changes() -> None:
    for space in (_STANDARD, Space.load("wide")):
        values = _drawn(space)

        found = _nearest(values, space, space)
        assert space.hyperparameters(found) == space.hyperparameters(values)


def test_from_standard_to_wide_the_recipe_stays() -> None:
    values = {**_drawn(_STANDARD), "width_2": 24}
    wide = Space.load("wide")

    found = _nearest(values, _STANDARD, wide)

    assert wide.hyperparameters_or_none(found) == _STANDARD.hyperparameters_or_none(values)
    assert found.keys() == wide.distributions.keys()


def test_from_wide_to_standard_what_is_fixed_there_is_taken() -> None:
    wide = Space.load("wide")
    values = {**_drawn(wide), "topology": _STANDARD.table["topology"], "optimizer": "adamw"}
    values = {**values, "learning_rate": 0.04, "momentum": 0.9, "batch_size": 512}

    found = _nearest(values, wide, _STANDARD)

    recipe = _STANDARD.hyperparameters(found)
    assert found.keys() == _STANDARD.distributions.keys()
    assert (recipe.optimizer, recipe.batch_size) == ("nesterov", 128)
    assert (recipe.learning_rate, recipe.momentum) == (0.04, 0.9)
    assert recipe.spec == wide.spec(values)


@pytest.mark.parametrize(
    ("changed", "value", "nearest"),
    [
        ({"momentum": {"low": 0.5, "high": 0.6}}, {"momentum": 0.9}, {"momentum": 0.6}),
        ({"momentum": {"low": 0.95, "high": 0.99}}, {"momentum": 0.9}, {"momentum": 0.95}),
        ({"width_3": {"low": 40, "high": 50}}, {"width_3": 8}, {"width_3": 40}),
        ({"width_3": [4, 12, 32]}, {"width_3": 13}, {"width_3": 12}),
        ({"batch_size": [16, 128, 512]}, {}, {"batch_size": 128}),
        ({"batch_size": [16, 100]}, {}, {"batch_size": 100}),
        ({"warmup_share": {"low": 0.1, "high": 0.4}}, {}, {"warmup_share": 0.2}),
        ({"optimizer": ["adamw", "nesterov"]}, {}, {"optimizer": "nesterov"}),
    ],
)
def test_numbers_go_to_the_nearest_that_there_is(
    changed: dict[str, Any], value: dict[str, Any], nearest: dict[str, Any]
) -> None:
    found = _nearest({**_drawn(_STANDARD), **value}, _STANDARD, _space(**changed))

    assert {name: found[name] for name in nearest} == nearest


@pytest.mark.parametrize(
    ("sizes", "found"),
    [([16, 256], 16), ({"low": 8, "high": 400}, 200), ([256, 512], None), ([64, 128], 128)],
)
def test_no_batch_is_larger_than_the_new_training_set(sizes: Any, found: int | None) -> None:
    new = under(_LARGE, _space(batch_size=sizes))
    values = {**_drawn(_STANDARD), "batch_size": 400}

    near = transfer_values(values, _STANDARD, new, largest_batch=200)

    assert near is not None
    assert near.get("batch_size") == found


def test_a_text_that_is_no_choice_is_left_to_the_sampler() -> None:
    found = _nearest(_drawn(_STANDARD), _STANDARD, _space(optimizer=["adam", "sgd"]))

    assert "optimizer" not in found


def test_a_topology_that_the_space_does_not_have_is_left_out() -> None:
    new = _space(topology=_OTHER_TOPOLOGY)

    assert transfer_values(_drawn(_STANDARD), _STANDARD, under(_LARGE, new)) is None


def test_blanks_make_no_other_topology() -> None:
    written = _STANDARD.table["topology"].replace(", ", ",  ")
    new = _space(topology=[_OTHER_TOPOLOGY, written])

    assert _nearest(_drawn(_STANDARD), _STANDARD, new)["topology"] == written


@pytest.mark.parametrize("seed", range(4))
def test_a_network_over_the_new_cap_is_scaled_down(seed: int) -> None:
    widest = {"width_1": 20, "width_2": 28, "width_3": 32, "width_4": 32, "width_5": 32}
    values = {**_drawn(_STANDARD, seed), **widest}

    found = _nearest(values, _STANDARD, _STANDARD, cap=4_000)

    assert 3_000 < _STANDARD.spec(found).parameter_count < 4_000
    assert {n: v for n, v in found.items() if n not in widest} == {
        n: v for n, v in values.items() if n not in widest
    }


def test_a_topology_too_large_for_the_new_cap_is_left_out() -> None:
    smallest = _STANDARD.smallest_count()

    assert transfer_values(_drawn(_STANDARD), _STANDARD, under(smallest, _STANDARD)) is None
    assert transfer_values(_drawn(_STANDARD), _STANDARD, under(smallest + 1, _STANDARD)) is not None


def test_a_design_with_too_many_blocks_for_the_new_cap_is_left_out() -> None:
    old, new = (Space.load("adaptive", parameter_cap=cap) for cap in (8000, 100))
    few = {**old.first(), "blocks_1": 0, "blocks_2": 1, "blocks_3": 1, "blocks_4": 1}
    many = {**old.first(), "blocks_2": 3, "blocks_3": 3}
    assert transfer_values(few, old, new) is not None
    assert transfer_values(many, old, new) is None


def test_widths_that_were_scaled_arrive_as_channels() -> None:
    old = _space(3_000, budget_share={"low": 0.5, "high": 1.0})
    values = _drawn(old)
    assert old.spec(values) != _space().spec(values)
    tall: dict[str, Any] = {f"width_{i}": {"low": 1, "high": 100} for i in range(1, 6)}

    found = _nearest(values, old, _space(**tall))

    assert _space(**tall).spec(found) == old.spec(values)


def test_channels_arrive_as_widths_to_scale_with_their_share_of_the_cap() -> None:
    new = _space(20_000, budget_share={"low": 0.01, "high": 1.0})
    values = _drawn(_STANDARD)

    found = _nearest(values, _STANDARD, new, cap=20_000)

    assert found["budget_share"] == pytest.approx(
        _STANDARD.spec(values).parameter_count / 20_000, abs=1e-3
    )
    assert new.spec(found) == _STANDARD.spec(values)


def test_between_spaces_that_scale_the_share_stays() -> None:
    share = {"low": 0.5, "high": 1.0}
    old, new = _space(3_000, budget_share=share), _space(6_000, budget_share=share)
    values = {**_drawn(old), "budget_share": 0.9}

    found = _nearest(values, old, new, cap=6_000)

    assert found == values
    assert new.spec(found).parameter_count > 4_500


def test_an_interrupted_trial_keeps_where_it_came_from() -> None:
    study = optuna.create_study(direction="maximize")
    study.enqueue_trial({"momentum": 0.9}, user_attrs={"from_study": "old/3"})
    study.ask().suggest_float("momentum", 0, 1)

    requeue(study, study.trials[0])

    assert study.trials[1].user_attrs["from_study"] == "old/3"


NEW = ("run", "--dataset", "digits", "--epochs", "1", "--budget", "1500", "--study", "new")


def test_a_study_starts_from_the_best_of_an_earlier_one(finished: Command) -> None:
    old = finished.study("digits-3000x3")
    best = sorted(old.trials, key=lambda trial: -trial.values[0])
    options = (*NEW, "--from-study", "digits-3000x3", "--workers", "1")

    done = finished(*options, "--trials", "2")

    assert done.code == 0, done.err
    assert "starts from digits-3000x3: 4 of its best trials queued" in done.out
    new = finished.study("new")
    assert [trial.state for trial in new.trials] == [TrialState.COMPLETE] * 2 + [
        TrialState.WAITING
    ] * 2
    origins = [trial.user_attrs["from_study"] for trial in new.trials]
    assert origins == [f"digits-3000x3/{trial.number}" for trial in best]
    for earlier, trial in zip(best, new.trials[:2], strict=False):
        assert trial.user_attrs["parameter_count"] < 1500
        assert trial.params["learning_rate"] == earlier.params["learning_rate"]
        assert rebuild(new, trial).augmentation == rebuild(old, earlier).augmentation

    optuna.delete_study(study_name="digits-3000x3", storage=f"sqlite:///{finished.database}")
    again = finished(*options, "--trials", "3")
    assert again.code == 0, again.err
    assert "--from-study digits-3000x3 is ignored: the study has trials already" in again.out
    assert len(finished.study("new").trials) == 4


@pytest.mark.parametrize("space", [_STANDARD, _space(momentum=0.9)])
def test_a_study_of_sizes_that_starts_from_another_has_networks_of_all_sizes(
    tmp_path: Path, space: Space
) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    make_study(url, "old", [MadeTrial((0.5,) * 3)], space=replace(space, parameter_cap=3000))

    plan = _plan_from("old", url, objective="accuracy,size")

    assert plan.space.distributions.keys() - space.distributions.keys() == {"budget_share"}
    assert plan.warm_start is not None
    assert len(plan.warm_start.configurations) == 1


def test_a_study_of_accuracy_that_starts_from_one_of_sizes_fills_its_budget(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    trials = [MadeTrial((0.5,) * 3, values={"budget_share": 0.5})]
    make_study(url, "old", trials, objective="accuracy,size")

    plan = _plan_from("old", url)

    assert plan.space.table == _STANDARD.table
    assert plan.space.parameter_cap == 2000


def test_a_study_that_finds_nothing_to_start_from_begins_as_its_space_says(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    make_study(url, "old", [MadeTrial((0.5,) * 3)])
    file = tmp_path / "designs.toml"
    file.write_text('base = "adaptive"\n')

    plan = _plan_from("old", url, space=str(file))
    with begin_search(plan) as search:
        begun = search.study.get_trials()

    assert plan.warm_start is not None
    assert not plan.warm_start.configurations
    assert [queued_values(trial) for trial in begun] == [plan.space.first()]


@pytest.mark.parametrize(("dataset", "flip"), [("digits", 0.5), ("folder:/photos", 0.0)])
def test_mirroring_is_taken_over_to_the_same_images_alone(
    command: Command, dataset: str, flip: float
) -> None:
    url = f"sqlite:///{command.database}"
    trials = [MadeTrial((0.5 + 0.1 * n,) * 3, values={"flip": 0.5}) for n in range(2)]
    space = Space.load("adaptive", parameter_cap=3000, n_training=1079, epochs=3)
    make_study(url, "old", trials, dataset=dataset, space=space)

    done = command(*NEW, "--from-study", "old", "--workers", "1", "--trials", "1")

    assert done.code == 0, done.err
    assert command.study("new").trials[0].params["flip"] == flip
    is_said = "not their flip, as the images are others" in " ".join(done.out.split())
    assert is_said == (dataset != "digits")


def _plan_from(name: str, url: str, **options: Any) -> SearchPlan:
    request = SearchRequest(2000, 3, dataset="digits", storage=url, from_study=name)
    return plan_search(check_request(replace(request, **options)))


class _KilledAfterTwo(WarmStart):
    """One whose process is killed, as by `kill -9`, between the second trial and the third."""

    def queue(self, study: Study) -> None:
        super().queue(_DeadlyStudy(study.study_name, study._storage))


class _DeadlyStudy(Study):
    def enqueue_trial(self, *arguments: Any, **options: Any) -> None:
        if len(self.trials) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        super().enqueue_trial(*arguments, **options)


def test_a_start_that_was_killed_half_way_is_made_whole_by_the_next(finished: Command) -> None:
    old = finished.study("digits-3000x3")
    best = sorted(old.trials, key=lambda trial: -trial.values[0])
    request = SearchRequest(
        budget=1500,
        epochs=1,
        dataset="digits",
        study="new",
        storage=f"sqlite:///{finished.database}",
        from_study="digits-3000x3",
    )
    plan = plan_search(check_request(request))
    assert plan.warm_start is not None
    deadly = _KilledAfterTwo(plan.warm_start.study, plan.warm_start.configurations)
    child = os.fork()
    if child == 0:
        try:
            with begin_search(replace(plan, warm_start=deadly)):
                pass
        finally:
            os._exit(0)  # not reached
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert [trial.state for trial in finished.study("new").trials] == [TrialState.WAITING] * 2
    # The next start needs the earlier study no more.
    optuna.delete_study(study_name="digits-3000x3", storage=request.storage)

    done = finished(*NEW, "--from-study", "digits-3000x3", "--workers", "1", "--trials", "4")

    assert done.code == 0, done.err
    assert "starts from digits-3000x3: 2 more of its best trials queued" in done.out
    trials = finished.study("new").trials
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 4
    origins = [trial.user_attrs["from_study"] for trial in trials]
    assert origins == [f"digits-3000x3/{trial.number}" for trial in best]
    with begin_search(plan_search(check_request(request))) as search:
        assert search.queued is None
        assert len(search.study.trials) == 4


def test_trials_that_do_not_fit_are_left_out(finished: Command) -> None:
    (finished.folder / "other.toml").write_text(f'topology = "{_OTHER_TOPOLOGY}"\n')
    done = finished(*NEW, "--from-study", "digits-3000x3", "--space", "other.toml", "--trials", "1")

    assert done.code == 0, done.err
    assert "0 of its best trials queued, because none has a topology that fits" in done.out
    assert len(finished.study("new").trials) == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nobody", "which has digits-3000x3, but there is no 'nobody'."),
        ("new", "must start from another one, but --from-study names 'new' itself"),
        ("empty", "must have a complete trial, but 'empty' has none yet"),
        ("foreign", "must have been made by 'search run', but 'foreign'"),
    ],
)
def test_a_study_that_nothing_can_start_from_is_refused(
    finished: Command, name: str, message: str
) -> None:
    url = f"sqlite:///{finished.database}"
    if name in ("empty", "foreign"):
        made = optuna.create_study(study_name=name, storage=url, direction="maximize")
        if name == "empty":
            settings = finished.study("digits-3000x3").user_attrs["settings"]
            made.set_user_attr("settings", settings)
    names = optuna.get_all_study_names(url)

    done = finished(*NEW, "--from-study", name)

    assert done.code == 2
    assert message in " ".join(done.err.split())
    assert optuna.get_all_study_names(url) == names


def test_without_a_database_there_is_nothing_to_start_from(command: Command) -> None:
    done = command(*NEW, "--from-study", "old")

    assert done.code == 2
    assert "There is no database" in done.err
    assert not command.database.exists()
