"""The smallest network that reaches a target: what is judged, and the real command."""

from __future__ import annotations

import itertools
import re

import optuna
import pytest

from search.race import Race
from search.summary import repeats_name
from tests.conftest import Command

RUN = (
    *("run", "--dataset", "digits", "--budget", "3000", "--epochs", "3", "--trials", "3"),
    *("--workers", "2", "--pruner", "none"),
)


def test_bounds_are_one_sided_and_widen_with_the_confidence() -> None:
    race = Race([0], range(5))
    for seed, value in enumerate((0.990, 0.992, 0.991, 0.993, 0.989)):
        race.add(0, seed, value)
    bounds = race.bounds(0, 0.95)
    wider = race.bounds(0, 0.99)
    assert bounds is not None
    assert wider is not None
    # t of 4 degrees of freedom at 0.95 is 2.132; the deviation is 0.001581.
    assert bounds[0] == pytest.approx(0.991 - 2.132 * 0.001581 / 5**0.5, abs=1e-6)
    assert wider[0] < bounds[0] < 0.991 < bounds[1] < wider[1]


def test_a_low_target_leads_to_lower_and_lower_caps_until_it_is_out_of_reach(
    command: Command,
) -> None:
    (command.folder / "space.toml").write_text("budget_share = 0", encoding="utf-8")
    low = ("--budget", "1200", "--space", "space.toml", "--target", "12", "--confidence", "0.6")
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
    assert caps[0] == 1200
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
        assert repeats_name(f"digits-{cap}x3") in names
    found = re.search(
        r"Smallest that reaches it: ([\d,]+) parameters, trial (\d+) of (\S+)", done.out
    )
    assert found is not None, done.out
    network = command.study(found[3]).get_trials()[int(found[2])]
    assert network.user_attrs["parameter_count"] == int(found[1].replace(",", ""))


def test_a_target_out_of_reach_says_so_and_lowers_no_cap(command: Command) -> None:
    done = command(*RUN, "--target", "99.9", "--study", "high")
    assert done.code == 0, done.err
    assert "No network under the budget reached the target." in done.out
    assert set(optuna.get_all_study_names(f"sqlite:///{command.database}")) == {
        "high",
        repeats_name("high"),
    }


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        (("--target", "0"), "above 0 % and below 100 %"),
        (("--target", "100"), "above 0 % and below 100 %"),
        (("--target", "nan"), "must be a number"),
        (("--target", "99.4", "--confidence", "1"), "at least 0.5 and below 1"),
        (("--target", "99.4", "--no-confirm"), "leave out"),
    ],
)
def test_a_target_that_is_none_is_refused_before_anything_is_written(
    command: Command, options: tuple[str, ...], rule: str
) -> None:
    refused = command(*RUN, *options)
    assert refused.code == 2
    assert rule in refused.err
    assert not command.database.exists()
