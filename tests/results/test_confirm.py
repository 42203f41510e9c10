"""The race over fresh seeds: who gets how many runs, what it tells, and what is kept of it."""

from __future__ import annotations

import json
import math
import random
import re
import shutil
import signal
import sqlite3
import statistics
from contextlib import closing
from pathlib import Path

import optuna
import pytest
from scipy.special import ndtri

from scripts.experiments.race_coverage import SIZES, race
from search.results.confirm import ConfirmationRun
from search.results.race import SeedRace, mean_interval, share_interval
from search.study.findings import store_confirmation
from search.study.repeat_runs import RepeatStore
from search.study.settings import StudySettings
from search.study.summary import CONFIRMS, chosen_trial, repeats_name
from tests.conftest import DIGITS_RUN, Command, run_here, wait_until
from tests.support.made_studies import MadeTrial, confirmation, make_study, record

SEEDS = (11, 12, 13, 14, 15)
STUDY = "digits-3000x3"


def raced(means: dict[int, float], *, std: float, seed: int) -> SeedRace:
    """A race of candidates with those true means, run to its end one run after another."""
    noise = random.Random(seed)
    race = SeedRace(list(means), SEEDS)
    while (following := race.next()) is not None:
        candidate, run_seed = following
        race.add(candidate, run_seed, noise.gauss(means[candidate], std))
    return race


def test_every_candidate_is_run_once_before_any_is_run_twice() -> None:
    race = SeedRace([5, 2, 9], SEEDS)
    order = []
    while (following := race.next()) is not None:
        order.append(following)
        race.add(*following, 0.99)
    assert order == [(candidate, seed) for seed in SEEDS for candidate in (5, 2, 9)]


def test_what_runs_already_is_not_given_out_again() -> None:
    race = SeedRace([5, 2], SEEDS[:1])
    first = race.next()
    assert first == (5, 11)
    assert race.next({first}) == (2, 11)
    assert race.next({first, (2, 11)}) is None


def test_a_candidate_without_a_chance_gets_no_more_seeds_and_the_leader_all() -> None:
    race = raced({0: 0.990, 1: 0.994, 2: 0.9935}, std=0.0003, seed=0)
    standings = {standing.candidate: standing for standing in race.standings()}
    assert standings[0].is_out
    assert len(standings[0].values) < len(SEEDS)
    assert len(standings[1].values) == len(SEEDS)
    assert [standing.candidate for standing in race.standings()][-1] == 0


def test_races_find_the_best_as_often_as_full_repetition_with_fewer_runs() -> None:
    means = {0: 0.9940, 1: 0.9936, 2: 0.9930, 3: 0.9925, 4: 0.9920}
    n_races, wins, full_wins, n_runs = 400, 0, 0, 0
    for seed in range(n_races):
        standings = raced(means, std=0.0004, seed=seed).standings()
        wins += standings[0].candidate == 0
        n_runs += sum(len(standing.values) for standing in standings)
        noise = random.Random(seed)
        full = {
            candidate: statistics.fmean(noise.gauss(mean, 0.0004) for _ in SEEDS)
            for candidate, mean in means.items()
        }
        full_wins += max(full, key=lambda candidate: full[candidate]) == 0
    assert wins / n_races > full_wins / n_races - 0.05
    assert n_runs / n_races < 0.75 * len(means) * len(SEEDS)


def test_the_interval_of_shares_ends_at_one() -> None:
    values = (0.9990, 0.9999, 0.9999)
    interval = mean_interval(values)
    assert interval is not None
    assert interval[1] > 1
    assert share_interval(values) == (interval[0], 1.0)
    assert share_interval((0.5,)) is None


@pytest.mark.parametrize(("n_candidates", "n_seeds"), SIZES)
@pytest.mark.parametrize("distance", [0.0, 1.0])
def test_the_interval_of_a_winner_holds_its_mean_as_often_as_it_says(
    n_candidates: int, n_seeds: int, distance: float
) -> None:
    """Not that of a candidate picked beforehand: that one would hold its mean without any care."""
    noise = random.Random(5)
    told = [race(n_candidates, n_seeds, distance, noise) for _ in range(400)]
    deviation = math.sqrt(0.95 * 0.05 / len(told))
    assert statistics.fmean(one.holds for one in told) > 0.95 - 2 * deviation
    width = statistics.fmean(one.width for one in told)
    assert width < 1.4 * statistics.fmean(one.plain_width for one in told)
    excess = statistics.fmean(one.excess for one in told)
    assert excess < statistics.fmean(one.luck for one in told) + 0.1  # as much as is said, or less


@pytest.mark.parametrize(("n_candidates", "n_seeds"), SIZES)
def test_a_candidate_as_good_as_the_leader_is_dropped_as_seldom_as_it_says(
    n_candidates: int, n_seeds: int
) -> None:
    noise = random.Random(6)
    told = [race(n_candidates, n_seeds, 0.0, noise) for _ in range(400)]
    assert sum(one.n_dropped for one in told) <= 0.05 * (n_candidates - 1) * len(told)


def test_one_run_of_each_tells_nothing_about_chance() -> None:
    race = SeedRace([0, 1], SEEDS[:1])
    race.add(0, 11, 0.99)
    race.add(1, 11, 0.50)
    assert [(row.candidate, row.low, row.is_out) for row in race.standings()] == [
        (0, None, False),
        (1, None, False),
    ]


def test_a_candidate_whose_run_came_to_nothing_cannot_win() -> None:
    race = SeedRace([0, 1], SEEDS)
    race.add(0, 11, 0.99)
    race.add(1, 11, 0.98)
    race.disqualify(0)
    assert race.standings()[0].candidate == 1
    assert race.next() == (1, 12)


def test_confirm_keeps_each_run_names_a_winner_and_goes_on(finished: Command) -> None:
    done = finished("confirm", "--top", "2", "--seeds", "2", "--json")
    assert done.code == 0, done.err
    outcome = done.json
    runs = finished.study(repeats_name(STUDY, CONFIRMS)).get_trials()
    best_two = sorted(
        (trial for trial in finished.study(STUDY).get_trials() if trial.value is not None),
        key=lambda trial: -(trial.value or 0),
    )[:2]
    assert {run.user_attrs["candidate"] for run in runs} == {trial.number for trial in best_two}
    for run in runs:
        original = finished.study(STUDY).get_trials()[run.user_attrs["candidate"]]
        assert run.params == original.params
        assert run.user_attrs["training_seed"] != original.user_attrs["training_seed"]
        assert run.value == pytest.approx(
            statistics.fmean(epoch["accuracy"] for epoch in run.user_attrs["epochs"][-3:])
        )
    means = {
        trial.number: statistics.fmean(
            run.value or 0 for run in runs if run.user_attrs["candidate"] == trial.number
        )
        for trial in best_two
    }
    winner = max(means, key=lambda number: means[number])
    assert outcome["trial"] == winner
    assert outcome["mean"] == pytest.approx(means[winner])
    assert outcome["luck"] == pytest.approx((best_two[0].value or 0) - means[best_two[0].number])

    again = finished("confirm", "--top", "2", "--seeds", "2")
    assert f"{len(runs)} runs kept from before" in again.out
    assert len(finished.study(repeats_name(STUDY, CONFIRMS)).get_trials()) == len(runs)


def test_best_and_retrain_take_the_confirmed_winner(
    finished: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    study = finished.study(STUDY)
    first, second = sorted(study.get_trials(), key=lambda trial: -(trial.value or 0))[:2]
    # The runs of a race that the search's second wins by far.
    url = f"sqlite:///{finished.database}"
    runs = optuna.create_study(
        study_name=repeats_name(STUDY, CONFIRMS), storage=url, direction="maximize"
    )
    runs.set_user_attr("confirms", STUDY)
    for trial, value in ((first, 0.1), (second, 0.999)):
        for seed in (1001, 1002):
            attributes = {
                **record(value + seed / 1e7),
                "candidate": trial.number,
                "training_seed": seed,
                "seconds": 0.1,
                "settings": StudySettings.from_study(study).digest,
            }
            runs.add_trial(
                optuna.create_trial(
                    value=value + seed / 1e7,
                    params=trial.params,
                    distributions=trial.distributions,
                    user_attrs=attributes,
                )
            )
    confirmed = finished("confirm", "--top", "2", "--seeds", "2", "--json")
    assert confirmed.json["trial"] == second.number, confirmed.err
    assert len(finished.study(repeats_name(STUDY, CONFIRMS)).get_trials()) == 4
    assert run_here("best", "--json", "--storage", url) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["trial"] == second.number
    assert shown["confirmation"]["n_seeds"] == 2
    assert run_here("best", "--storage", url) == 0
    assert "confirmed  99.9" in capsys.readouterr().out
    assert run_here("studies", "--json", "--storage", url) == 0
    (listed,) = json.loads(capsys.readouterr().out)
    assert listed["best_trial"] == second.number
    assert f"Trial {second.number} of" in finished("retrain", "--seeds", "1").out


def test_a_study_that_was_renamed_keeps_the_runs_of_its_race(finished: Command) -> None:
    assert finished("confirm", "--top", "2", "--seeds", "1").code == 0
    with closing(sqlite3.connect(finished.database)) as database, database:
        database.execute("UPDATE studies SET study_name = 'new' WHERE study_name = ?", (STUDY,))
    store = RepeatStore(finished.study("new"), CONFIRMS)
    assert store.name == repeats_name(STUDY, CONFIRMS)
    assert len(store.runs()) == 2
    # Another study of the old name has no part in them, and room for its own.
    url = f"sqlite:///{finished.database}"
    other = make_study(url, STUDY, [MadeTrial((0.5, 0.6, 0.7))])
    store = RepeatStore(finished.study(STUDY), CONFIRMS)
    assert (store.name, store.is_name_taken, store.runs()) == (
        f"{repeats_name(STUDY, CONFIRMS)}-2",
        False,
        [],
    )
    # A copy has the same runs, which stay as long as one of the two does.
    optuna.copy_study(
        from_study_name="new", from_storage=url, to_storage=url, to_study_name="copied"
    )
    assert len(RepeatStore(finished.study("copied"), CONFIRMS).runs()) == 2
    assert finished("delete", "new", "--yes").code == 0
    assert len(RepeatStore(finished.study("copied"), CONFIRMS).runs()) == 2
    assert finished("delete", "copied", "--yes").code == 0
    assert optuna.get_all_study_names(url) == [other.study_name]


def test_deleting_a_study_deletes_the_runs_that_confirm_it(finished: Command) -> None:
    assert finished("confirm", "--top", "1", "--seeds", "1").code == 0
    url = f"sqlite:///{finished.database}"
    assert run_here("delete", STUDY, "--yes", "--storage", url) == 0
    assert optuna.get_all_study_names(url) == []


def test_deleting_a_study_spares_another_of_that_name(finished: Command) -> None:
    url = f"sqlite:///{finished.database}"
    optuna.create_study(study_name=repeats_name(STUDY, CONFIRMS), storage=url)
    assert run_here("delete", STUDY, "--yes", "--storage", url) == 0
    assert optuna.get_all_study_names(url) == [repeats_name(STUDY, CONFIRMS)]


def test_what_winning_may_have_added_is_told_wherever_a_confirmed_mean_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    url = "sqlite:///studies.db"
    trials = [MadeTrial((accuracy,) * 3) for accuracy in (0.97, 0.96)]
    raced = confirmation(0, {0: (0.9600, 0.9620), 1: (0.9570, 0.9590)})
    study = make_study(url, "made", trials)
    store_confirmation(study, raced)
    # Of two equal candidates the better one is 0.5 standard errors too high on average (Blom).
    luck = ndtri(1.625 / 2.25) * 0.001
    words = f"96.10 % (95 % interval {100 * raced['low']:.2f} % to "  # type: ignore[operator]
    points = f"up to {100 * luck:.2f} points of it"
    assert run_here("best") == 0
    shown = capsys.readouterr().out
    assert words in shown
    assert f"2 fresh seeds), {points} by the luck of winning" in shown
    assert run_here("studies") == 0
    assert f"{points} may be the luck of winning" in " ".join(capsys.readouterr().out.split())
    assert run_here() == 0
    assert points in " ".join(capsys.readouterr().out.split())

    # As it was stored before anybody made something of it, with an interval that is too narrow.
    older = {key: value for key, value in raced.items() if key != "luck_of_winning"}
    store_confirmation(study, {**older, "low": 0.9605, "high": 0.9615})
    assert run_here("best") == 0
    assert capsys.readouterr().out == shown


def test_a_winner_is_out_of_date_once_the_search_has_a_better_trial() -> None:
    study = optuna.create_study(direction="maximize")
    for value in (0.97, 0.98, 0.96):
        study.add_trial(optuna.create_trial(value=value, user_attrs=record(value)))
    store_confirmation(study, confirmation(1, {0: (0.97, 0.98), 1: (0.90, 0.91)}))
    chosen = chosen_trial(study, study.get_trials())
    assert chosen is not None
    assert chosen.number == 0
    study.add_trial(optuna.create_trial(value=0.99, user_attrs=record(0.99)))
    chosen = chosen_trial(study, study.get_trials())
    assert chosen is not None
    assert chosen.number == 3


def test_runs_of_a_study_that_was_deleted_do_not_count(finished: Command) -> None:
    url = f"sqlite:///{finished.database}"
    assert finished("confirm", "--top", "1", "--seeds", "1").code == 0
    settings = finished.study(STUDY).user_attrs["settings"]
    finished.study(STUDY).set_user_attr("settings", {**settings, "data_fingerprint": "others"})
    opened = optuna.load_study(study_name=STUDY, storage=url)
    assert ConfirmationRun(opened, top=1, n_seeds=1).n_kept == 0
    opened.set_user_attr("settings", settings)
    assert ConfirmationRun(opened, top=1, n_seeds=1).n_kept == 1


def test_a_study_of_somebody_else_is_not_written_to(
    finished: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    name, url = repeats_name(STUDY, CONFIRMS), f"sqlite:///{finished.database}"
    other = optuna.create_study(study_name=name, storage=url)
    other.add_trial(optuna.create_trial(value=1.0))
    assert run_here("confirm", "--storage", url) == 2
    assert f"'{name}', but that name is taken" in capsys.readouterr().err
    assert len(finished.study(name).get_trials()) == 1


def test_a_study_without_a_complete_trial_has_nothing_to_confirm(
    finished: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{finished.database}"
    study = optuna.create_study(study_name="empty", storage=url, direction="maximize")
    study.set_user_attr("settings", finished.study(STUDY).user_attrs["settings"])
    assert run_here("confirm", "--study", "empty", "--storage", url) == 2
    assert "must have a complete trial to confirm" in capsys.readouterr().err
    assert repeats_name("empty", CONFIRMS) not in optuna.get_all_study_names(url)


def test_an_interrupted_race_keeps_its_runs_and_goes_on(finished: Command) -> None:
    process = finished.start("confirm", "--top", "4", "--seeds", "40", "--workers", "1")
    runs = repeats_name(STUDY, CONFIRMS)

    def are_some_kept() -> bool:
        names = optuna.get_all_study_names(f"sqlite:///{finished.database}")
        return runs in names and len(finished.study(runs).get_trials()) >= 2

    wait_until(are_some_kept)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate()
    assert process.returncode == 130, out
    assert "the same command goes on" in out
    n_kept = len(finished.study(runs).get_trials())
    assert n_kept >= 2
    again = finished("confirm", "--top", "4", "--seeds", "1")
    assert f"{n_kept} runs kept from before" in again.out


@pytest.fixture(scope="module")
def twenty(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder in which a search of twenty trials ended, and what it printed."""
    folder = tmp_path_factory.mktemp("twenty")
    done = Command(folder)(*DIGITS_RUN, "--trials", "20", "--workers", "2")
    assert done.code == 0, done.err
    return folder, done.out


def test_a_search_of_twenty_trials_confirms_its_best_within_a_quarter_of_its_time(
    twenty: tuple[Path, str], command: Command
) -> None:
    folder, out = twenty
    shutil.copytree(folder, command.folder, dirs_exist_ok=True)
    assert "Confirmed: trial" in out
    assert ("too close to it to be told apart" in out) == bool(re.search(r" close\b", out))
    runs = command.study(repeats_name(STUDY, CONFIRMS)).get_trials()
    # When the last one began, all had ended but one on the other worker.
    ended, searched = (
        sum(trial.user_attrs["seconds"] for trial in trials)
        for trials in (runs[:-2], command.study(STUDY).get_trials())
    )
    assert 0 < len(runs) <= 9
    assert ended < 0.25 * searched
    assert len(command.study(STUDY).get_trials()) == 20

    again = command(*DIGITS_RUN, "--trials", "20", "--no-confirm")
    assert "Confirming" not in again.out


def test_a_short_search_confirms_nothing(finished_output: str) -> None:
    assert "Confirm" not in finished_output
