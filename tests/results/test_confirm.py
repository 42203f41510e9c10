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
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import optuna
import optuna_dashboard
import pytest
from optuna.trial import TrialState
from scipy.special import ndtri

from scripts.experiments.race_coverage import SIZES, race
from search.cli.confirm import print_confirmation
from search.cli.output import make_console
from search.report.outcomes import race_result
from search.results.confirm import ConfirmationRun, expected_seconds
from search.results.confirmation import Confirmation
from search.results.folds import Folds, Run, mean_over_parts, weights
from search.results.race import SeedRace, mean_interval, share_interval
from search.study.findings import store_confirmation
from search.study.record import TrialRecord
from search.study.repeat_runs import RepeatStore
from search.study.settings import StudySettings
from search.study.summary import CONFIRMS, chosen_trial, repeats_name
from search.study.trials import trials_of
from search.training.epochs import EpochResult
from search.tuner.final_race import race_at_the_end
from search.tuner.options import SearchRequest
from search.workers.jobs import Event, Job, JobDone, JobEpoch, JobFailed
from tests.conftest import DIGITS_RUN, Command, run_here, wait_until
from tests.support.image_folders import make_folder
from tests.support.made_studies import MadeTrial, confirmation, make_study, record

FOLDS = Folds(6, 10_000)
RUNS = FOLDS.runs(5, first_seed=11)
STUDY = "digits-3000x3"


def raced(means: dict[int, float], *, std: float, seed: int) -> SeedRace:
    """A race of candidates with those true means, run to its end one run after another."""
    noise = random.Random(seed)
    race = SeedRace(list(means), RUNS)
    while (following := race.next()) is not None:
        candidate, run = following
        race.add(candidate, run, noise.gauss(means[candidate], std))
    return race


def test_runs_take_turns_with_the_parts_and_come_last_to_the_one_that_chose_the_candidates() -> (
    None
):
    assert FOLDS.runs(8, first_seed=1001) == [
        *((1, 1001), (2, 1002), (3, 1003), (4, 1004), (5, 1005), (0, 1006)),
        *((1, 1007), (2, 1008)),
    ]
    assert Folds(1, 100).runs(2, first_seed=1) == [(0, 1), (0, 2)]


def test_each_part_counts_the_same_in_a_mean() -> None:
    assert weights([0, 0, 0, 2]) == pytest.approx([1 / 6, 1 / 6, 1 / 6, 1 / 2])
    assert mean_over_parts([0.9, 0.8, 0.7, 0.6], [0, 0, 0, 2]) == pytest.approx(0.7)


def test_every_candidate_is_run_once_before_any_is_run_twice() -> None:
    race = SeedRace([5, 2, 9], RUNS)
    order = []
    while (following := race.next()) is not None:
        order.append(following)
        race.add(*following, 0.99)
    assert order == [(candidate, run) for run in RUNS for candidate in (5, 2, 9)]


def test_what_runs_already_is_not_given_out_again() -> None:
    race = SeedRace([5, 2], RUNS[:1])
    assert race.next() == (5, RUNS[0])
    assert race.next({(5, RUNS[0])}) == (2, RUNS[0])
    assert race.next({(5, RUNS[0]), (2, RUNS[0])}) is None


def test_a_candidate_without_a_chance_gets_no_more_seeds_and_the_leader_all() -> None:
    race = raced({0: 0.990, 1: 0.994, 2: 0.9935}, std=0.0003, seed=0)
    standings = {standing.candidate: standing for standing in race.standings()}
    assert standings[0].is_out
    assert len(standings[0].values) < len(RUNS)
    assert len(standings[1].values) == len(RUNS)
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
            candidate: statistics.fmean(noise.gauss(mean, 0.0004) for _ in RUNS)
            for candidate, mean in means.items()
        }
        full_wins += max(full, key=lambda candidate: full[candidate]) == 0
    assert wins / n_races > full_wins / n_races - 0.05
    assert n_runs / n_races < 0.75 * len(means) * len(RUNS)


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
    told = [race(n_candidates, n_seeds, distance, noise) for _ in range(200)]
    deviation = math.sqrt(0.95 * 0.05 / len(told))
    assert statistics.fmean(one.holds for one in told) > 0.95 - 2 * deviation
    width = statistics.fmean(one.width for one in told)
    assert width < 1.4 * statistics.fmean(one.plain_width for one in told)
    excess = statistics.fmean(one.excess for one in told)
    assert excess < statistics.fmean(one.luck for one in told) + 0.1  # as much as is said, or less


@pytest.mark.parametrize(("n_candidates", "n_seeds"), [(2, 2), (3, 2), *SIZES])
def test_the_luck_of_winning_on_one_part_is_told_whole(n_candidates: int, n_seeds: int) -> None:
    """What its images are for one candidate, no run of it shows."""
    noise = random.Random(6)
    told = [race(n_candidates, n_seeds, 0.0, noise, n_parts=1) for _ in range(400)]
    excess = [one.excess for one in told]
    said = statistics.fmean(one.luck for one in told)
    assert statistics.fmean(excess) < said + 2 * statistics.stdev(excess) / math.sqrt(len(told))


@pytest.mark.parametrize(("n_candidates", "n_seeds"), SIZES)
def test_a_candidate_as_good_as_the_leader_is_dropped_as_seldom_as_it_says(
    n_candidates: int, n_seeds: int
) -> None:
    noise = random.Random(6)
    told = [race(n_candidates, n_seeds, 0.0, noise) for _ in range(200)]
    n_rivals = (n_candidates - 1) * len(told)
    deviation = math.sqrt(0.05 * 0.95 / n_rivals)
    assert sum(one.n_dropped for one in told) / n_rivals < 0.05 + 2 * deviation


def test_one_run_of_each_tells_nothing_about_chance() -> None:
    race = SeedRace([0, 1], RUNS[:1])
    race.add(0, RUNS[0], 0.99)
    race.add(1, RUNS[0], 0.50)
    assert [(row.candidate, row.low, row.is_out) for row in race.standings()] == [
        (0, None, False),
        (1, None, False),
    ]


def test_a_candidate_whose_run_came_to_nothing_cannot_win() -> None:
    race = SeedRace([0, 1], RUNS)
    race.add(0, RUNS[0], 0.99)
    race.add(1, RUNS[0], 0.98)
    race.disqualify(0)
    assert race.standings()[0].candidate == 1
    assert race.next() == (1, RUNS[1])


def differing(difficulties: dict[Run, float]) -> SeedRace:
    """A race of two candidates that differ by 0.2 points, give or take 0.02, in runs like these."""
    race = SeedRace([0, 1], list(difficulties), 10_000)
    for index, (run, difficulty) in enumerate(difficulties.items()):
        race.add(0, run, 0.990 - difficulty)
        race.add(1, run, 0.988 - difficulty + (-1) ** index * 0.0002)
    return race


def test_the_difficulty_of_parts_does_not_hide_which_of_two_candidates_is_better() -> None:
    hard = dict(zip(RUNS, (0.0, 0.01, 0.02, 0.0, 0.01), strict=True))
    race = differing(hard)
    assert race.is_out(1)
    # How good the better one is, it makes uncertain.
    winner, even = race.standings()[0], differing(dict.fromkeys(RUNS, 0.008)).standings()[0]
    assert winner.mean == pytest.approx(even.mean)
    assert None not in (winner.low, winner.high, even.low, even.high)
    assert winner.high - winner.low > 3 * (even.high - even.low)  # type: ignore[operator]


def test_a_candidate_is_judged_by_the_runs_that_it_has_in_common_with_others() -> None:
    race = SeedRace([0, 1], RUNS)
    for candidate, values in {0: (0.99, 0.97, 0.97), 1: (0.985,)}.items():
        for run, value in zip(RUNS, values, strict=False):
            race.add(candidate, run, value)
    means = [(standing.candidate, standing.mean) for standing in race.standings()]
    assert means == [(0, pytest.approx(0.97666667)), (1, 0.985)]  # its one part was an easy one


def test_an_interval_is_never_narrower_than_the_number_of_images_allows() -> None:
    """Not even where runs happen to agree; and more seeds on the same images say no more."""

    def half(runs: list[Run], n_images: int | None = 10_000) -> float:
        race = SeedRace([0], runs, n_images)
        for run in runs:
            race.add(0, run, 0.99)
        bounds = race.bounds(0, 0.975)
        assert bounds is not None
        return bounds[1] - 0.99

    of_one_part = 1.96 * math.sqrt(0.99 * 0.01 / 10_000)
    assert half(RUNS) > of_one_part / math.sqrt(5)
    for n in (5, 40):
        assert of_one_part < half(Folds(1, 10_000).runs(n, first_seed=1)) < 1.2 * of_one_part
    assert half(RUNS, None) == 0  # an earlier version's, which knows of no images
    # A few images that are all right are not all images there are.
    race = SeedRace([0], RUNS, 20)
    for run in RUNS:
        race.add(0, run, 1.0)
    assert 0.9 < (race.standings()[0].low or 0) < 0.99


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
    paired = {(run.user_attrs["part"], run.user_attrs["training_seed"]) for run in runs}
    assert paired == {(1, 1001), (2, 1002)}
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
        for part, seed in ((1, 1001), (2, 1002)):
            attributes = {
                **record(value + seed / 1e7),
                "candidate": trial.number,
                "training_seed": seed,
                "part": part,
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
    assert (shown["confirmation"]["n_seeds"], shown["confirmation"]["n_parts"]) == (2, 2)
    assert run_here("best", "--storage", url) == 0
    out = capsys.readouterr().out
    assert "confirmed  99.9" in out
    assert "2 fresh seeds and 2 parts of the data)" in out
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
    values = {0: (0.9600, 0.9620), 1: (0.9590, 0.9570)}
    raced = confirmation(0, values)
    study = make_study(url, "made", trials)
    store_confirmation(study, raced)
    # Of two equal candidates the better one is 0.6 standard errors too high on average (Blom);
    # 0.1 points are left over in each run, once candidates and runs have had theirs, in which one
    # degree of freedom shows √(2/π) of a scatter on average.
    luck = ndtri(1.625 / 2.25) * 0.002 / math.sqrt(2) / math.sqrt(2 / math.pi)
    words = f"96.10 % (95 % interval {100 * raced['low']:.2f} % to "  # type: ignore[operator]
    points = f"up to {100 * luck:.2f} points of it"
    assert run_here("best") == 0
    shown = capsys.readouterr().out
    assert words in shown
    assert f"2 fresh seeds and 2 parts of the data), {points} by the luck of winning" in shown
    assert run_here("studies") == 0
    assert f"{points} may be the luck of winning" in " ".join(capsys.readouterr().out.split())
    assert run_here() == 0
    assert points in " ".join(capsys.readouterr().out.split())

    # What another program has made of its runs is not believed.
    false = {"mean": 0.99, "low": 0.98, "high": 1.0, "n_seeds": 9, "luck": -3, "n_parts": 7}
    for luck_of_winning in (0.5, -0.5, "much", None):
        store_confirmation(study, {**raced, **false, "luck_of_winning": luck_of_winning})
        assert run_here("best") == 0
        assert capsys.readouterr().out == shown
        assert run_here("studies") == 0
        assert f"{points} may be the luck of winning" in " ".join(capsys.readouterr().out.split())
        assert run_here() == 0
        assert points in " ".join(capsys.readouterr().out.split())
        told = race_result(study, trials_of(study))
        assert told is not None
        assert told.luck == pytest.approx(0.95 - 0.961)
        assert told.luck_of_winning == pytest.approx(luck)

    # As it was stored before there were parts, with an interval for the seeds alone.
    older = confirmation(0, values, n_parts=1, n_images=None)
    del older["n_parts"], older["n_images"]
    for row in older["candidates"]:  # type: ignore[attr-defined]
        del row["parts"], row["seeds"]
    store_confirmation(study, older)
    assert run_here("best") == 0
    shown = capsys.readouterr().out
    assert f"2 fresh seeds), {points} by the luck of winning" in shown

    # And before anybody made something of its having won, with an interval that is too narrow.
    del older["luck_of_winning"]
    store_confirmation(study, {**older, "low": 0.9605, "high": 0.9615})
    assert run_here("best") == 0
    assert capsys.readouterr().out == shown


def test_the_race_that_is_advised_finds_its_database_and_its_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{tmp_path / 'other.db'}"
    study = make_study(url, "made", [MadeTrial((accuracy,) * 3) for accuracy in (0.97, 0.96)])
    run = ConfirmationRun(study, top=2, folds=FOLDS, n_seeds=2)
    for number, values in {0: (0.9600, 0.9620), 1: (0.9590, 0.9570)}.items():
        for each, value in zip(FOLDS.runs(2, first_seed=1001), values, strict=True):
            run.race.add(number, each, value)
    data = ["--data-dir", "images"]
    print_confirmation(make_console(), study, run.finish(), storage=url, data=data)
    advised = f"search confirm --study made --top 2 --seeds 4 --storage {url} --data-dir images\n"
    assert advised in capsys.readouterr().out


class PlayedWorkers:
    """Two workers, and the seconds that pass for each of their runs.

    Args:
        run_seconds: of each run, in two epochs.
        failing: the seed of runs that fail.
    """

    n_idle = 2

    def __init__(self, run_seconds: float, failing: int) -> None:
        self.now = 0.0
        self._epoch_seconds = run_seconds / 2
        self._failing = failing
        self._running: list[tuple[float, int, Job]] = []

    def clock(self) -> float:
        return self.now

    def submit(self, job: Job) -> int:
        self.n_idle -= 1
        self._running.append((self.now + self._epoch_seconds, 1, job))
        return 0

    def events(self, timeout: float) -> Iterator[Event]:
        end, epoch, job = min(self._running, key=lambda each: each[0])
        self._running.remove((end, epoch, job))
        self.now = end
        if epoch == 1:
            self._running.append((end + self._epoch_seconds, 2, job))
        else:
            self.n_idle += 1
        if epoch == 2 and job.seed == self._failing:
            yield JobFailed(job.key, 0, "a fault", worker_died=False)
            return
        accuracy = 0.97 + job.seed % 7 / 1000
        seconds = self._epoch_seconds
        yield JobEpoch(job.key, 0, EpochResult(epoch, 1.0, 0.5, 0.1, 0.1, accuracy, seconds))
        if epoch == 2:
            yield JobDone(job.key, 0, 2 * seconds)

    def cancel(self, key: int) -> None:
        pass

    def kill_overdue(self, limit_seconds: float) -> None:
        pass


@pytest.mark.parametrize(
    ("limit", "run_seconds", "failing", "length"),
    [
        (None, 10.0, 0, 120.0),  # six runs of each of four
        (100.0, 10.0, 0, 50.0),  # of which two workers train
        (None, 30.0, 0, 360.0),  # longer than their trials were
        (None, 5.0, 0, 60.0),
        (None, 10.0, 1001, 120.0),  # and the first of each fails
    ],
)
def test_the_time_left_of_a_race_is_that_until_its_end(
    limit: float | None, run_seconds: float, failing: int, length: float, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    made = [MadeTrial((0.97,) * 2, attributes={"seconds": 10.0}) for _ in range(4)]
    study = make_study(url, "made", made, epochs=2)
    workers, told = PlayedWorkers(run_seconds, failing), []
    run = ConfirmationRun(
        study,
        top=4,
        folds=Folds(1, 359),
        n_seeds=6,
        limit_seconds=limit,
        clock=workers.clock,
    )

    def should_stop() -> bool:
        told.append((workers.now, run.seconds_left))
        return False

    assert run.run(workers, device="cpu", listener=lambda event: None, should_stop=should_stop)
    assert told[0] == (0.0, None)
    assert workers.now == pytest.approx(length, abs=run_seconds)
    assert len(told) > 10
    for now, left in told[1:]:
        if now >= length / 4:
            within = max(run_seconds, (workers.now - now) / 3)
            assert left == pytest.approx(workers.now - now, abs=within)


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
    assert ConfirmationRun(opened, top=1, folds=FOLDS, n_seeds=1).n_kept == 0
    opened.set_user_attr("settings", settings)
    assert ConfirmationRun(opened, top=1, folds=FOLDS, n_seeds=1).n_kept == 1


def test_runs_of_before_there_were_parts_count_as_runs_of_the_part_that_validated_them(
    finished: Command,
) -> None:
    study = finished.study(STUDY)
    (best,) = sorted(study.get_trials(), key=lambda trial: -(trial.value or 0))[:1]
    for seed in (1001, 1002):
        RepeatStore(study, CONFIRMS).add(
            TrialRecord(
                candidate=best.number,
                training_seed=seed,
                parameter_count=best.user_attrs["parameter_count"],
                seconds=0.1,
                epochs=TrialRecord.read(best).epochs,
            ),
            params=best.params,
            distributions=best.distributions,
        )
    race = ConfirmationRun(study, top=1, folds=FOLDS, n_seeds=3)
    assert race.n_kept == 2
    assert race.next() == (best.number, (1, 1001))
    assert race.race.standings()[0].runs == ((0, 1001), (0, 1002))


def test_a_folder_that_brings_its_validation_images_is_raced_on_these_alone(
    command: Command,
) -> None:
    command.environment["XDG_CACHE_HOME"] = str(command.folder / "cache")
    for seed, part in enumerate(("train", "val")):
        make_folder(command.folder / "pets" / part, {"a": 10, "b": 10}, colour=False, seed=seed)
    (command.folder / "own.toml").write_text('topology = "c3 2, pool, gap, out"\nbatch_size = 4\n')
    run = ("run", "--dataset", "folder:pets", "--budget", "100", "--epochs", "1", "--trials", "1")
    assert command(*run, "--space", "own.toml", "--image-size", "8", "--workers", "1").code == 0
    done = command("confirm", "--top", "1", "--seeds", "2", "--workers", "1", "--json")
    assert done.code == 0, done.err
    assert "on the search's own split" in done.err
    assert "seed 1002: " in done.err
    assert "part" not in done.err
    (row,) = done.json["candidates"]
    assert (done.json["n_parts"], row["parts"], row["seeds"]) == (1, [0, 0], [1001, 1002])


@pytest.mark.parametrize("has", ["a trial", "an attribute", "a note"])
def test_a_study_of_somebody_else_is_not_written_to(
    finished: Command, capsys: pytest.CaptureFixture[str], has: str
) -> None:
    name, url = repeats_name(STUDY, CONFIRMS), f"sqlite:///{finished.database}"
    other = optuna.create_study(study_name=name, storage=url)
    match has:
        case "a trial":
            other.add_trial(optuna.create_trial(value=1.0))
        case "an attribute":
            other.set_user_attr("mine", 1)
        case _:
            optuna_dashboard.save_note(other, "what I want to try")
    assert run_here("confirm", "--storage", url) == 2
    assert f"'{name}', but that name is taken" in capsys.readouterr().err
    assert run_here("delete", STUDY, "--yes", "--storage", url) == 0
    assert optuna.get_all_study_names(url) == [name]
    assert len(finished.study(name).get_trials()) == (1 if has == "a trial" else 0)


def test_a_study_without_a_complete_trial_has_nothing_to_confirm(
    finished: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{finished.database}"
    study = optuna.create_study(study_name="empty", storage=url, direction="maximize")
    study.set_user_attr("settings", finished.study(STUDY).user_attrs["settings"])
    assert run_here("confirm", "--study", "empty", "--storage", url) == 2
    assert "must have a complete trial, but it has none yet" in capsys.readouterr().err
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


OF_TWENTY = ("--study", STUDY, "--epochs", "1", "--trials", "20")


@pytest.fixture(scope="module")
def twenty(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder in which a search of twenty trials ended, and what it printed."""
    folder = tmp_path_factory.mktemp("twenty")
    done = Command(folder)(*DIGITS_RUN, *OF_TWENTY, "--workers", "2")
    assert done.code == 0, done.err
    return folder, done.out


def test_a_search_of_twenty_trials_races_its_best_and_its_first(
    twenty: tuple[Path, str], command: Command
) -> None:
    folder, out = twenty
    shutil.copytree(folder, command.folder, dirs_exist_ok=True)
    assert "Confirmed: trial" in out
    assert ("too close to it to be told apart" in out) == bool(re.search(r" close\b", out))
    assert len(command.study(STUDY).get_trials()) == 20
    runs = map(TrialRecord.read, command.study(repeats_name(STUDY, CONFIRMS)).get_trials())
    pairs = [(run.candidate, run.part) for run in runs]
    best = sorted(
        (trial for trial in command.study(STUDY).get_trials() if trial.value is not None),
        key=lambda trial: trial.value or 0.0,
    )[-6:]
    assert {number for number, _ in pairs} == {0, *(trial.number for trial in best)}
    assert max(Counter(pairs).values()) == 2  # each part twice
    n_others = len({number for number, _ in pairs}) - 6
    assert f"Confirming the best 6 trials{' and trial 0' * n_others} over" in " ".join(out.split())
    winner = re.search(r"Confirmed: trial (\d+)", out)
    assert winner is not None
    assert {part for number, part in pairs if number == int(winner[1])} == {0, 1, 2, 3}

    again = command(*DIGITS_RUN, *OF_TWENTY, "--no-confirm")
    assert "Confirming" not in again.out


@pytest.mark.parametrize(
    ("seconds", "n_racing"),
    [
        (1.0, 7),  # in four minutes there is time for all
        (60.0, 3),  # of which each is run twice in a third of the time, and a fourth could not
    ],
)
def test_a_long_search_races_for_a_third_of_its_time(
    tmp_path: Path, seconds: float, n_racing: int
) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    lengths = [seconds, 3 * seconds, *[seconds] * 18]  # one that is slow and not good
    trials = [
        MadeTrial((0.5 + number / 100,) * 3, attributes={"seconds": length})
        for number, length in enumerate(lengths)
    ]
    study = make_study(url, "made", trials)
    request = SearchRequest(3000, 3, 20, dataset="digits", storage=url)

    run = race_at_the_end(study, request, Folds(4, 359))

    assert run is not None
    assert run.limit_seconds == pytest.approx(max(240.0, 22 * seconds / 3))
    best = list(range(19, 20 - n_racing, -1))
    assert [*run.race.candidates] == [*best, 0]


def test_the_best_and_the_first_race_however_long_they_take(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    weak = MadeTrial((0.1,), TrialState.PRUNED, attributes={"seconds": 10.0})
    first, best = (MadeTrial((value,) * 3, attributes={"seconds": 100.0}) for value in (0.8, 0.9))
    study = make_study(url, "made", [first, *[weak] * 18, best])

    run = race_at_the_end(study, SearchRequest(3000, 3, 20, dataset="digits"), Folds(4, 359))

    assert run is not None
    assert [*run.race.candidates] == [19, 0]
    assert run.limit_seconds == pytest.approx(4 * expected_seconds(study.get_trials()[0]))

    run.limit_seconds = 1.0  # as where the machine has become slower than it was for the trials
    runs: list[tuple[int, Run]] = []
    while (following := run.next(runs)) is not None:
        runs.append(following)
    assert sorted(number for number, _ in runs) == [0, 0, 19, 19]


@pytest.mark.parametrize(
    ("values", "is_conclusive"),
    [
        # Two that were out after a run are in again where later runs scatter.
        ([(0.865, 0.826, 0.828), (0.845, 0.798, 0.781), (0.84, 0.802, 0.685), (0.79,)], True),
        ([(0.865,), (0.845,)], False),
        ([(0.865, 0.826), (0.845, 0.798), ()], False),
    ],
)
def test_a_race_is_decided_once_all_have_run_and_the_winner_twice(
    values: list[tuple[float, ...]], is_conclusive: bool
) -> None:
    race = SeedRace(range(len(values)), [], 450)
    for candidate, found in enumerate(values):
        for run, value in zip(Folds(4, 450).runs(4, first_seed=1), found, strict=False):
            race.add(candidate, run, value)
    n_racing = sum(not race.is_out(candidate) for candidate in range(len(values)))
    told = Confirmation(tuple(race.standings()), {}, 0, n_racing, None, 450)
    assert n_racing == len(values)
    assert told.winner.candidate == 0
    assert told.is_conclusive == is_conclusive


def test_a_better_trial_is_run_twice_also_where_earlier_races_have_taken_the_time(
    tmp_path: Path,
) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    trials = [
        MadeTrial((0.5 + number / 100,) * 3, attributes={"seconds": 100.0}) for number in range(20)
    ]
    study = make_study(url, "made", trials)
    before = study.get_trials()[0]
    RepeatStore(study, CONFIRMS).add(
        TrialRecord(
            candidate=0,
            training_seed=1001,
            parameter_count=TrialRecord.read(before).parameter_count,
            seconds=5000.0,
            epochs=TrialRecord.read(before).epochs,
        ),
        params=before.params,
        distributions=before.distributions,
    )

    run = race_at_the_end(study, SearchRequest(3000, 3, 20, dataset="digits"), Folds(4, 359))

    assert run is not None
    n_lacking = 2 * len(run.race.candidates) - 1  # one of the first is kept
    assert run.limit_seconds == pytest.approx(5000 + n_lacking * expected_seconds(before))
    assert run.next() is not None


def test_a_first_trial_that_was_interrupted_races_as_its_repeat(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    interrupted = [
        MadeTrial(state=TrialState.FAIL),
        MadeTrial((0.9,) * 3),
        MadeTrial(state=TrialState.FAIL, attributes={"repeats": 0}),
        MadeTrial((0.1,) * 3, attributes={"repeats": 2}),
    ]
    others = [MadeTrial((0.5 + number / 100,) * 3) for number in range(20)]
    study = make_study(url, "made", interrupted + others)
    request = SearchRequest(3000, 3, 20, dataset="digits", storage=url)

    run = race_at_the_end(study, request, Folds(4, 359))

    assert run is not None
    assert run.race.candidates == [1, 23, 22, 21, 20, 19, 3]


def test_a_short_search_confirms_nothing(finished_output: str) -> None:
    assert "Confirm" not in finished_output
