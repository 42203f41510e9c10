"""The smallest network that reaches a target: what is judged, and the real command."""

from __future__ import annotations

import itertools
import random
import re
from pathlib import Path
from typing import cast

import optuna
import pytest

from search.results.confirm import ConfirmationRun
from search.results.folds import Folds
from search.results.race import SeedRace
from search.results.target import Step, Verdict, judge
from search.study.summary import CONFIRMS, repeats_name
from search.tuner.options import SearchRequest, Target
from search.tuner.plan import plan_search
from search.tuner.request import check_request
from search.tuner.session import begin_search
from search.tuner.target_search import lower_request
from tests.conftest import Command, run_here
from tests.support.made_studies import MadeTrial, add_as_ours

RUN = (
    *("run", "--dataset", "digits", "--budget", "3000", "--epochs", "3", "--trials", "3"),
    *("--workers", "2", "--pruner", "none"),
)
RUNS = Folds(6, 10_000).runs(5, first_seed=0)


def test_bounds_are_one_sided_and_widen_with_the_confidence() -> None:
    race = SeedRace([0], RUNS)
    for run, value in zip(RUNS, (0.990, 0.992, 0.991, 0.993, 0.989), strict=True):
        race.add(0, run, value)
    bounds = race.bounds(0, 0.95)
    wider = race.bounds(0, 0.99)
    assert bounds is not None
    assert wider is not None
    # t of 4 degrees of freedom at 0.95 is 2.132; the deviation is 0.001581.
    assert bounds[0] == pytest.approx(0.991 - 2.132 * 0.001581 / 5**0.5, abs=1e-6)
    assert wider[0] < bounds[0] < 0.991 < bounds[1] < wider[1]


class _Raced:
    """A race that is over, as `judge` asks for it."""

    def __init__(self, race: SeedRace) -> None:
        self.race = race
        self.study = optuna.create_study()
        self.parameter_counts = {candidate: 100 + candidate for candidate in race.candidates}


def test_networks_at_the_target_pass_no_more_often_than_the_confidence_says() -> None:
    n, n_reached = 300, 0
    for seed in range(n):
        noise = random.Random(seed)
        race = SeedRace([0, 1, 2], RUNS)
        while (following := race.next()) is not None:
            race.add(*following, noise.gauss(0.99, 0.0005))
        raced = cast(ConfirmationRun, _Raced(race))
        step = judge(raced, cap=1000, target=0.99, confidence=0.9)
        n_reached += step is not None and step.verdict is Verdict.REACHED
    assert n_reached / n < 0.1 + 3 * (0.1 * 0.9 / n) ** 0.5


def test_the_smallest_of_those_that_reach_a_target_is_chosen() -> None:
    race = SeedRace([3, 2, 1], RUNS[:3])
    for candidate, mean in ((3, 0.995), (2, 0.994), (1, 0.980)):
        for run in RUNS[:3]:
            race.add(candidate, run, mean + run.seed * 1e-5)
    step = judge(cast(ConfirmationRun, _Raced(race)), cap=1000, target=0.99, confidence=0.95)
    assert step is not None
    assert (step.trial, step.verdict, step.next_cap) == (2, Verdict.REACHED, int(0.85 * 102))
    missed = judge(cast(ConfirmationRun, _Raced(race)), cap=1000, target=0.999, confidence=0.95)
    assert missed is not None
    assert missed.verdict is Verdict.MISSED


def test_a_low_target_leads_to_lower_and_lower_caps_until_it_is_out_of_reach(
    command: Command,
) -> None:
    # Networks of two sizes: one learns, and one has a single channel.
    (command.folder / "space.toml").write_text(
        'topology = ["c3 8, pool, c3 12, pool, c3 12, gap, out", "c3 1, c3 1, pool, gap, out"]\n'
        "budget_share = 0\nbatch_size = 32\n",
        encoding="utf-8",
    )
    low = ("--space", "space.toml", "--target", "40", "--confidence", "0.6")
    done = command(*RUN, *low)
    assert done.code == 0, done.err
    names = optuna.get_all_study_names(f"sqlite:///{command.database}")
    caps = sorted(
        (
            int(name.removeprefix("digits-").removesuffix("x3"))
            for name in names
            if not name.endswith("-confirmed")
        ),
        reverse=True,
    )
    assert caps[0] == 3000
    assert len(caps) > 1
    for cap, lower in itertools.pairwise(caps):
        winners = command.study(f"digits-{cap}x3").user_attrs["confirmation"]
        sizes = {
            trial.number: trial.user_attrs["parameter_count"]
            for trial in command.study(f"digits-{cap}x3").get_trials()
        }
        raced = {row["trial"] for row in winners["candidates"]}
        assert lower in {int(0.85 * sizes[number]) for number in raced}
        first = command.study(f"digits-{lower}x3").get_trials()[0]
        assert first.user_attrs["from_study"].startswith(f"digits-{cap}x3/")
        assert repeats_name(f"digits-{cap}x3", CONFIRMS) in names
    found = re.search(
        r"Smallest that reaches it: ([\d,]+) parameters, trial (\d+) of (\S+)", done.out
    )
    assert found is not None, done.out
    network = command.study(found[3]).get_trials()[int(found[2])]
    assert network.user_attrs["parameter_count"] == int(found[1].replace(",", ""))
    # Commands that name no study mean that one, and not the last cap, which failed.
    assert f"digits-{caps[-1]}x3" != found[3]
    assert command("best", "--json").json["study"] == found[3]


def test_a_target_out_of_reach_says_so_and_lowers_no_cap(command: Command) -> None:
    done = command(*RUN, "--space", "standard", "--target", "99.9", "--study", "high")
    assert done.code == 0, done.err
    assert "No network under the budget reached 99.90 % for certain. The best is trial " in done.out
    assert set(optuna.get_all_study_names(f"sqlite:///{command.database}")) == {
        "high",
        repeats_name("high", CONFIRMS),
    }


def test_time_that_ends_in_the_race_ends_the_search_for_a_target_on_the_same_data(
    finished: Command,
) -> None:
    url, data_dir = f"sqlite:///{finished.database}", finished.folder / "data"
    request = SearchRequest(
        budget=3000,
        epochs=4000,
        n_trials=1,
        storage=url,
        data_dir=data_dir,
        target=Target(0.12),
        timeout_seconds=60,
    )
    plan = plan_search(check_request(request))
    with begin_search(plan) as search:
        # A network that was found; each run of its race takes minutes.
        add_as_ours(search.study, [MadeTrial([0.5] * 4000).frozen(plan.space, 3000, 1)])
        step = Step(plan.study_name, 3000, 0, 2000, 0.5, 0.4, Verdict.REACHED)
        lower = lower_request(search, step)
    assert lower is not None
    assert (lower.budget, lower.dataset, lower.from_study) == (1700, "digits", plan.study_name)
    assert lower.timeout_seconds is not None
    assert 1 <= lower.timeout_seconds < 60
    names = optuna.get_all_study_names(url)

    # MNIST arrives meanwhile, but the search goes on with what it began with.
    raw = data_dir / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, kind in itertools.product(("train", "t10k"), ("images-idx3", "labels-idx1")):
        (raw / f"{part}-{kind}-ubyte").touch()
    done = finished(
        *("run", "--budget", "3000", "--epochs", "4000", "--trials", "1", "--target", "12"),
        *("--data-dir", "data", "--timeout", "3s"),
    )

    assert done.code == 0, done.err
    assert "that of digits-3000x4000, which goes on" in done.out
    assert "Confirming the best trial" in done.out
    assert "The time was over before a cap was too low" in done.out
    assert "No network" not in done.out
    assert optuna.get_all_study_names(url) == names


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        (("--target", "0.994"), "at least 1 % and below 100 %"),
        (("--target", "100"), "at least 1 % and below 100 %"),
        (("--target", "nan"), "must be a number"),
        (("--target", "99.4", "--confidence", "1"), "at least 0.5 and below 1"),
        (("--target", "99.4", "--confidence", "0"), "at least 0.5 and below 1"),
        (("--confidence", "0.9"), "got --confidence 0.9 without --target; add --target"),
        (("--target", "99.4", "--no-confirm"), "leave out"),
    ],
)
def test_a_target_that_is_none_is_refused_before_anything_is_written(
    tmp_path: Path,
    options: tuple[str, ...],
    rule: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    assert run_here(*RUN, "--storage", url, *options) == 2
    assert rule in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir())
