"""`search ablate`: its changes, its statistics, and the real command on real data."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import statistics
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from search.data.load import load_dataset
from search.data.parts import fold
from search.results.ablate import Ablation
from search.results.ablation import Difference, Row, make_row, variants
from search.results.folds import Folds
from search.space.hyperparameters import (
    Augmentation,
    Constant,
    Cosine,
    Hyperparameters,
    OneCycle,
    StepDecay,
)
from search.space.space import Space
from search.study.findings import Findings
from search.study.open import rebuild
from search.study.record import TrialRecord
from search.study.settings import StudySettings
from search.study.summary import ABLATES, repeats_name
from search.training.epochs import last_epochs_mean
from search.training.train import train
from search_models.spec import ModelSpec
from tests.conftest import Command, Result, run_here
from tests.support.made_studies import add_as_ours
from tests.support.prepared import PreparedProcess

NAME = "digits-3000x3"
FULL = Hyperparameters(
    spec=ModelSpec.parse("c3 8, drop 0.1, pool, c3+hs 12, drop 0.1, c3+bias 7, out+bias, gap"),
    learning_rate=0.1,
    weight_decay=1e-4,
    augmentation=Augmentation(10, 0.1, 0.05, 5, 0.02, 0.5),
    label_smoothing=0.1,
    ema_epochs=1.0,
    final_augmentation=0.5,
)
# With a learning rate r and a weight decay d, a step multiplies weights by 1 - r d: over two
# times the inverse they grow. A schedule that soon leaves its peak keeps them finite.
UNSTABLE = """\
topology = "c3 8, pool, c3 20, c1 2, gap, out"
learning_rate = 0.26
weight_decay = 10.0
momentum = { low = 0.0, high = 0.01 }
rotation_degrees = 5
translation = 0
scale = 0
shear_degrees = 0
batch_size = 16
"""


def flat(recipe: Hyperparameters) -> dict[str, Any]:
    values = {**recipe.to_dict(), **asdict(recipe.augmentation)}
    del values["augmentation"]
    return values


def changed_names(recipe: Hyperparameters) -> dict[str, set[str]]:
    """The names of the hyperparameters in which each change differs from the recipe."""
    before = flat(recipe)
    return {
        change: {name for name, value in flat(changed).items() if value != before[name]}
        for change, changed in variants(recipe)
    }


def networks(network: str) -> dict[str, str]:
    """The changes of a network's layers alone, by name."""
    recipe = replace(FULL, spec=ModelSpec.parse(network))
    return {
        name: str(changed.spec) for name, changed in variants(recipe) if changed.spec != recipe.spec
    }


def test_each_change_is_of_one_thing() -> None:
    ranges = {"rotation_degrees", "translation", "scale", "shear_degrees", "elastic", "flip"}
    assert changed_names(FULL) == {
        "no augmentation": ranges,
        "only rotation": ranges - {"rotation_degrees"},
        "only translation": ranges - {"translation"},
        "only scale": ranges - {"scale"},
        "only shear": ranges - {"shear_degrees"},
        "only elastic": ranges - {"elastic"},
        "only flip": ranges - {"flip"},
        "no elastic distortion": {"elastic"},
        "no mirroring": {"flip"},
        "augmentation to the end": {"final_augmentation"},
        "no momentum": {"momentum"},
        "no weight decay": {"weight_decay"},
        "no dropout": {"spec"},
        "ReLU instead of hard swish": {"spec"},
        "no label smoothing": {"label_smoothing"},
        "no weight averaging": {"ema_epochs"},
        "step schedule": {"schedule"},
        "cosine schedule": {"schedule"},
        "constant schedule": {"schedule"},
        "half the width": {"spec"},
        "without conv 3": {"spec"},
    }


def test_what_would_change_nothing_is_left_out() -> None:
    bare = Hyperparameters(
        spec=ModelSpec.parse("c3 1, drop 0.0, gap, out"),
        learning_rate=0.1,
        momentum=0.0,
        augmentation=Augmentation(scale=0.1),  # the only kind: alone it is the recipe itself
        schedule=Constant(),
    )
    names = {"no augmentation", "one-cycle schedule", "step schedule", "cosine schedule"}
    assert set(changed_names(bare)) == names


def test_other_schedules_have_the_parameters_of_the_standard_space() -> None:
    table = Space.load("standard").table
    schedules = {
        name: changed.schedule
        for recipe in (FULL, replace(FULL, schedule=Constant()))
        for name, changed in variants(recipe)
        if changed.schedule != recipe.schedule
    }
    assert schedules == {
        "one-cycle schedule": OneCycle(warmup_share=table["warmup_share"]),
        "step schedule": StepDecay(table["step_share"], gamma=table["step_gamma"]),
        "cosine schedule": Cosine(),
        "constant schedule": Constant(),
    }


def test_no_momentum_means_none_from_the_schedule_either() -> None:
    cycle = OneCycle(cycle_momentum=True)
    changed = dict(variants(replace(FULL, schedule=cycle)))["no momentum"]
    assert changed.momentum == 0
    assert changed.schedule == replace(cycle, cycle_momentum=False)


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (
            "c3 8, pool, c3 5, c1 1, out, gap",
            {
                "half the width": "c3 4, pool, c3 2, c1 1, out, gap",
                "without conv 3": "c3 8, pool, c3 5, out, gap",
            },
        ),
        (  # the logits keep their channels, and their convolution stays
            "c3 8, drop 0.2, pool, c3p1 6, c3 10, gap",
            {
                "no dropout": "c3 8, pool, c3p1 6, c3 10, gap",
                "half the width": "c3 4, drop 0.2, pool, c3p1 3, c3 10, gap",
                "without conv 2": "c3 8, drop 0.2, pool, c3 10, gap",
            },
        ),
        (  # the one before the logits has as many channels
            "c3 8, c3 10, c3 10, gap",
            {
                "half the width": "c3 4, c3 5, c3 10, gap",
                "without conv 3": "c3 8, c3 10, gap",
            },
        ),
        (  # depthwise convolutions have the width of their input, and stay
            "c3 8, d3, c1 10, d3p1, gap",
            {
                "half the width": "c3 4, d3, c1 10, d3p1, gap",
                "without conv 1": "d3, c1 10, d3p1, gap",
            },
        ),
        ("c3 10, gap", {}),
    ],
)
def test_half_the_width_and_the_next_simpler_topology(
    network: str, expected: dict[str, str]
) -> None:
    assert networks(network) == expected


def test_differences_of_one_part_count_as_one() -> None:
    """More seeds on the same images do not make it surer what a change does on others."""
    one_each = Difference.of([0.01, 0.02, 0.03], [1, 2, 3])
    many = [*[0.01] * 9, *[0.02] * 9, *[0.03] * 9]
    nine_each = Difference.of(many, [part for part in (1, 2, 3) for _ in range(9)])
    assert nine_each.mean == pytest.approx(one_each.mean)
    assert nine_each.interval == pytest.approx(one_each.interval)
    assert Difference.of(many, [0] * 27).interval == Difference.of(many).interval  # of seeds alone


def test_the_interval_is_students() -> None:
    # By hand: mean 0.01, standard deviation 0.01, n = 5; t(0.975, 4) = 2.776445 in any table.
    values = [0.01 + 0.01 * z for z in (-1.0, -1.0, 0.0, 1.0, 1.0)]
    found = Difference.of(values)
    half = 2.776445 * 0.01 / math.sqrt(5)
    assert found.interval == pytest.approx((0.01 - half, 0.01 + half), abs=1e-8)


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        ([0.02, 0.03, 0.025], "better"),
        ([-0.02, -0.03, -0.025], "worse"),
        ([0.02, -0.03, 0.025], "within noise"),
        ([0.0, 0.0, 0.0], "within noise"),
        ([0.5, 0.5], None),
    ],
)
def test_the_verdict_follows_the_interval(differences: list[float], verdict: str | None) -> None:
    assert Difference.of(differences).verdict == verdict


def test_rows_are_compared_over_the_seeds_that_both_have() -> None:
    def row(
        *accuracies: float | None, reference: Row | None = None, is_diverged: bool = False
    ) -> Row:
        return make_row("a", 9, accuracies, is_diverged=is_diverged, reference=reference)

    reference = row(0.5, 0.75, None)
    assert reference == Row("a", 9, [0.5, 0.75, None], mean=0.625)
    both = row(0.25, None, 1.0, reference=reference)
    assert (both.mean, both.difference, both.interval) == (0.625, -0.25, None)
    diverged = row(0.25, None, 1.0, reference=reference, is_diverged=True)
    assert (diverged.mean, diverged.difference, diverged.verdict) == (None, None, "diverged")
    alone = row(0.25, 0.5, 1.0, reference=row(0.5, None, 0.5, is_diverged=True))
    assert alone.mean == pytest.approx(1.75 / 3)
    assert (alone.difference, alone.verdict) == (None, None)


@pytest.fixture(scope="module")
def ablated(
    finished_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Command, Result]:
    """A folder in which trial 1 was ablated with two seeds, and what that printed."""
    folder = tmp_path_factory.mktemp("ablated")
    shutil.copytree(finished_folder, folder, dirs_exist_ok=True)
    command = Command(folder)
    done = command("ablate", "--trial", "1", "--seeds", "2", "--workers", "2", "--json")
    assert done.code == 0, done.err
    return command, done


def test_it_prints_each_run_then_a_table_and_an_honest_remark(finished: Command) -> None:
    done = finished("ablate", "--seeds", "3", "--workers", "2")
    assert done.code == 0, done.err
    study = finished.study(NAME)
    changes = [name for name, _ in variants(rebuild(study, study.best_trial))]
    n_runs = 3 * (1 + len(changes))
    assert f"[{n_runs}/{n_runs}]" in done.out
    assert "1,079 images of digits train, 359 validate, each time another of 4 parts" in done.out
    progress, table = done.out.split("difference")
    for change in ("unchanged", *changes):
        assert f"] {change}, part 1, seed 1: " in progress
        assert f"] {change}, part 3, seed 3: " in progress
        assert f"\n{change} " in table
    assert f"{len(changes)} changes without any effect would give" in table
    (stored,) = (value for key, value in study.user_attrs.items() if key.startswith("ablation_"))
    n_worse = sum(row["verdict"] == "worse" for row in stored["rows"])
    assert len(re.findall(r" worse$", table, re.MULTILINE)) == n_worse


def test_the_rows_are_stored_with_the_study(ablated: tuple[Command, Result]) -> None:
    command, done = ablated
    attributes = command.study(NAME).user_attrs
    stored = attributes["ablation_1"]
    assert stored["rows"] == done.json
    assert (stored["seeds"], stored["epochs"], stored["complete"]) == ([1, 2], 3, True)
    assert stored["parts"] == [1, 2]
    assert "created" in stored
    assert "[1/" in done.err  # progress is not lost, and not in the way


def test_each_accuracy_is_on_the_images_of_a_part_after_training_on_all_others(
    ablated: tuple[Command, Result],
) -> None:
    command, done = ablated
    study = command.study(NAME)
    recipe = rebuild(study, study.trials[1])
    dataset = load_dataset("digits", command.folder)
    recipes = {"unchanged": recipe, **dict(variants(recipe))}
    rows = {row["change"]: row for row in done.json}
    assert list(rows) == list(recipes)
    for change in ("unchanged", "no momentum", "half the width"):
        for seed in (1, 2):
            split = fold(dataset.development, dataset.info, seed)  # the part of that number
            run = train(
                recipes[change],
                split.training,
                split.validation,
                dataset.info.normalization,
                places=split.places,
                epochs=3,
                seed=seed,
                device="cpu",
            )
            assert rows[change]["accuracies"][seed - 1] == last_epochs_mean(list(run))
        assert rows[change]["parameter_count"] == recipes[change].spec.parameter_count
    assert Findings.read(study).test_looks == 0


def test_differences_are_taken_seed_by_seed(ablated: tuple[Command, Result]) -> None:
    reference, *rows = ablated[1].json
    assert (reference["difference"], reference["verdict"]) == (None, None)
    for row in rows:
        pairs = zip(row["accuracies"], reference["accuracies"], strict=True)
        found = Difference.of([ours - theirs for ours, theirs in pairs])
        assert row["difference"] == found.mean
        assert row["difference"] == pytest.approx(row["mean"] - reference["mean"])
        assert row["mean"] == statistics.fmean(row["accuracies"])
        assert (row["interval"], row["verdict"]) == (None, None)


def again_here(command: Command, *arguments: str) -> int:
    """`search ablate` in this process, where all of its runs are kept, so that none is trained."""
    return run_here("ablate", *arguments, "--storage", f"sqlite:///{command.database}")


@pytest.mark.parametrize("seeds", ["1", "2"])
def test_fewer_than_three_seeds_give_neither_interval_nor_verdict(
    seeds: str,
    ablated: tuple[Command, Result],
    command: Command,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(ablated[0].folder, command.folder, dirs_exist_ok=True)
    assert again_here(command, "--trial", "1", "--seeds", seeds) == 0
    out = capsys.readouterr().out
    assert "All of its runs are kept from before." in out
    assert "Fewer than 3 seeds tell too little" in out
    assert "--seeds 3 goes on from these runs" in out
    assert "within noise" not in out
    assert "false alarms" not in out


def test_a_change_that_diverges_or_does_not_fit_leaves_the_others(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    (command.folder / "own.toml").write_text(UNSTABLE)
    options = ("--epochs", "3", "--trials", "1", "--workers", "1", "--space", "own.toml")
    done = command("run", "--dataset", "digits", "--budget", "1700", *options)
    assert done.code == 0, done.err
    done = command("ablate", "--seeds", "2", "--workers", "2")
    assert done.code == 0, done.err
    (stored,) = (
        value
        for key, value in command.study("digits-1700x3").user_attrs.items()
        if key.startswith("ablation_")
    )
    rows = {row["change"]: row for row in stored["rows"]}
    assert rows["unchanged"]["mean"] is not None
    assert rows["no weight decay"]["difference"] is not None
    diverged = rows["constant schedule"]
    assert (diverged["accuracies"], diverged["verdict"]) == ([None, None], "diverged")
    # Its last convolution narrows the network: without it there are more weights.
    larger = rows["without conv 3"]
    assert larger["parameter_count"] == 1768
    assert (larger["accuracies"], larger["verdict"]) == ([None, None], "over budget")
    table = done.out.split("difference")[1]
    for change in ("constant schedule", "without conv 3"):
        (line,) = (line for line in table.splitlines() if line.startswith(change))
        assert line.rstrip().endswith(rows[change]["verdict"])
    assert "constant schedule, part 2, seed 2: diverged" in done.out
    assert "without conv 3, part" not in done.out
    # What diverged is not trained again either.
    assert again_here(command, "--seeds", "2", "--json") == 0
    assert json.loads(capsys.readouterr().out) == stored["rows"]


def wait_for_runs(process: PreparedProcess, n: int) -> str:
    """What an ablation prints until `n` of its runs have ended."""
    seen = ""
    while f"[{n}/" not in seen:
        line = process.stdout.readline()
        assert line, seen
        seen += line
    return seen


def test_an_interrupted_ablation_keeps_and_prints_what_is_done(
    finished: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    process = finished.start("ablate", "--seeds", "500", "--workers", "2")
    wait_for_runs(process, 20)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of its processes
    rest, _ = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in rest
    assert "Ended early" in rest
    assert "\nunchanged " in rest.split("difference")[1]
    assert "The runs above are kept; the same command goes on." in rest
    best = finished.study(NAME).best_trial.number
    stored = finished.study(NAME).user_attrs[f"ablation_{best}"]
    assert stored["complete"] is False
    n_done = [sum(value is not None for value in row["accuracies"]) for row in stored["rows"]]
    assert sum(n_done) >= 20
    assert max(n_done) - min(n_done) <= 2  # all changes take turns
    assert sum(n_done) == len(finished.study(repeats_name(NAME, ABLATES)).trials)

    assert again_here(finished, "--seeds", "1", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["accuracies"] for row in rows] == [r["accuracies"][:1] for r in stored["rows"]]


def test_after_a_kill_only_what_is_missing_is_trained(
    finished: Command, ablated: tuple[Command, Result]
) -> None:
    process = finished.start("ablate", "--trial", "1", "--seeds", "1", "--workers", "2")
    wait_for_runs(process, 3)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    n_kept = len(finished.study(repeats_name(NAME, ABLATES)).trials)
    assert n_kept >= 3
    done = finished("ablate", "--trial", "1", "--seeds", "2", "--workers", "2", "--json")
    assert done.code == 0, done.err
    assert f"Going on: {n_kept} runs kept from before." in done.err
    assert done.json == ablated[1].json  # as if nothing had happened
    runs = finished.study(repeats_name(NAME, ABLATES)).trials
    places = {(run.user_attrs["change"], run.user_attrs["training_seed"]) for run in runs}
    assert len(runs) == len(places) == 2 * len(done.json)


def test_a_name_that_is_taken_costs_the_runs_and_a_part_never_replaces_a_whole(
    finished: Command,
) -> None:
    best = finished.study(NAME).best_trial.number
    whole = {"complete": True, "seeds": [], "rows": []}
    finished.study(NAME).set_user_attr(f"ablation_{best}", whole)
    name = repeats_name(NAME, ABLATES)
    other = optuna.create_study(study_name=name, storage=f"sqlite:///{finished.database}")
    other.add_trial(optuna.create_trial(value=1.0))
    process = finished.start("ablate", "--seeds", "500", "--workers", "2")
    seen = wait_for_runs(process, 1)
    process.send_signal(signal.SIGTERM)
    rest, _ = process.communicate()
    assert process.returncode == 130
    assert f"The name {name} is taken, so no run is kept" in seen
    assert rest.rstrip().endswith("Interrupted.")
    assert len(finished.study(name).trials) == 1
    assert finished.study(NAME).user_attrs[f"ablation_{best}"] == whole


def test_a_kept_run_counts_for_its_recipe_part_seed_and_settings_alone(
    ablated: tuple[Command, Result], finished: Command
) -> None:
    runs = ablated[0].study(repeats_name(NAME, ABLATES)).trials
    study = finished.study(NAME)
    url = f"sqlite:///{finished.database}"
    kept = optuna.create_study(study_name=repeats_name(NAME, ABLATES), storage=url)
    kept.set_user_attr(ABLATES, NAME)

    def n_kept(number: int = 1) -> int:
        return Ablation(study, study.trials[number], folds=Folds(4, 359), n_seeds=2).n_kept

    run = runs[0]
    recipe = {**run.user_attrs["recipe"], "momentum": 0.123}  # as another version changed it
    for differing in (
        {"recipe": recipe},
        {"training_seed": 3},
        {"part": 3},
        {"settings": "0" * 16},
    ):
        kept.add_trial(optuna.create_trial(value=0.5, user_attrs={**run.user_attrs, **differing}))
    before_parts = {key: value for key, value in run.user_attrs.items() if key != "part"}
    kept.add_trial(optuna.create_trial(value=0.5, user_attrs=before_parts))
    assert n_kept() == 0
    kept.add_trial(run)
    assert (n_kept(), n_kept(0)) == (1, 0)


def test_a_finished_table_is_shown_again_without_data_and_fewer_seeds_do_not_replace_it(
    ablated: tuple[Command, Result], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    command, _ = ablated
    stored = command.study(NAME).user_attrs["ablation_1"]
    where = ("--trial", "1", "--storage", f"sqlite:///{command.database}")
    assert run_here("ablate", "--seeds", "1", "--data-dir", str(tmp_path / "none"), *where) == 0
    assert "kept from before" in capsys.readouterr().out
    assert command.study(NAME).user_attrs["ablation_1"] == stored


def test_deleting_a_study_deletes_its_ablation(
    ablated: tuple[Command, Result], command: Command
) -> None:
    shutil.copytree(ablated[0].folder, command.folder, dirs_exist_ok=True)
    url = f"sqlite:///{command.database}"
    assert run_here("delete", NAME, "--yes", "--storage", url) == 0
    assert optuna.get_all_study_names(url) == []


def test_other_data_than_the_study_was_made_with_are_refused(
    finished: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    study = finished.study(NAME)
    settings = {**study.user_attrs["settings"], "data_fingerprint": "0" * 64}
    study.set_user_attr("settings", settings)
    assert run_here("ablate", "--storage", f"sqlite:///{finished.database}") == 2
    assert "The data must be those of the study" in capsys.readouterr().err
    assert not [key for key in finished.study(NAME).user_attrs if key.startswith("ablation_")]


def test_a_trial_over_the_budget_is_refused(
    finished: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    study = finished.study(NAME)
    settings = study.user_attrs["settings"]
    settings["space"]["budget_share"] = 0  # widths as they are drawn, whatever the budget
    study.set_user_attr("settings", settings)
    trial = study.trials[0]
    space = StudySettings.from_study(study).search_space()
    count = space.spec(trial.params).parameter_count
    study.set_user_attr("settings", {**settings, "budget": count})
    over = optuna.create_trial(
        state=TrialState.PRUNED,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs=TrialRecord(parameter_count=count).to_attributes(),
    )
    add_as_ours(study, [over])
    url = f"sqlite:///{finished.database}"
    assert run_here("ablate", "--trial", "4", "--storage", url) == 2
    err = " ".join(capsys.readouterr().err.split())
    assert f"the budget of {count:,}, but that of trial 4 has {count:,}" in err
