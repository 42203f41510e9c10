"""What a person sees while a search runs, rendered as a terminal would."""

from __future__ import annotations

import csv
import gzip
import heapq
import io
import random
from dataclasses import dataclass
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from rich.console import Console

from search.cli.progress import Best, Progress
from search.cli.time_left import Forecast, TimeLeft
from search.cli.view import LiveView, make_view, sparkline
from search.results.folds import Folds
from search.results.race_length import RacedTrial
from search.study.history import StudyLength
from search.study.length import Stagnation
from search.study.summary import Tally
from search.training.epochs import EpochResult
from search.tuner.events import SearchEvent, TrialEnded, TrialEpoch, TrialStarted
from search.tuner.final_race import RaceLimits, race_seconds
from search.tuner.pruners import make_pruner
from search.wording import counted, duration, percent

DATA = Path(__file__).parents[1] / "data"
EPOCHS = 15  # of the recorded trainings

EVENTS: list[SearchEvent] = [
    TrialStarted(4, worker=0, parameter_count=7258, n_redraws=3),
    TrialStarted(5, worker=1, parameter_count=4030, n_redraws=1),
    TrialEpoch(4, 0, EpochResult(1, 0.9, 0.71, 0.05, 0.8, 0.7342, 1.0)),
    TrialEpoch(4, 0, EpochResult(2, 0.3, 0.91, 0.05, 0.2, 0.9342, 1.0)),
    TrialEnded(5, TrialState.FAIL, 4030, reason="its worker died", is_requeued=True),
    TrialEpoch(4, 0, EpochResult(3, 0.2, 0.95, 0.01, 0.1, 0.9711, 1.0)),
]


def progress() -> Progress:
    before = Tally(n_trained=3, n_pruned=1, n_redraws=10)
    return Progress(
        before=before,
        best=Best(2, 0.95, 6000),
        length=StudyLength(10),
        stagnation=Stagnation(1_000),
        timeout_seconds=None,
    )


def shown(width: int, events: list[SearchEvent]) -> str:
    """The live view's last picture, in a terminal of that width."""
    console = Console(
        force_terminal=True, color_system=None, width=width, height=24, file=io.StringIO()
    )
    view = LiveView(
        progress(), console, epochs=15, title="digits-8000x15", metric="balanced accuracy"
    )
    with view as listener:
        for event in events:
            listener(event)
    with console.capture() as capture:
        console.print(view.render())
    return " ".join(capture.get().split())


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_live_view_shows_counts_workers_best_and_the_last_event(width: int) -> None:
    text = shown(width, EVENTS)
    for part in (
        *(["▁▅█"] if width > 70 else []),
        *("3 of 10 trained", "1 of them pruned", "1 failed", "7 to go", "14 redrawn"),
        *("estimating the time left", "balanced", "accuracy", "7,258", "3/15", "97.11 %"),
        *("best so far: 95.00 % with 6,000 parameters (trial 2)", "trial 5"),
    ):
        assert part in text
    assert "4,030 1/15" not in text


def test_the_workers_are_in_sight_in_ten_lines_whatever_the_name_is() -> None:
    console = Console(
        force_terminal=True, color_system=None, width=40, height=10, file=io.StringIO()
    )
    view = LiveView(progress(), console, epochs=15, title="手写数字识别" * 9, metric="accuracy")
    with view as listener:
        for event in EVENTS:
            listener(event)
    with console.capture() as capture:
        console.print(view.render())
    seen = capture.get().splitlines()[:10]
    assert any("parameters" in line and "accuracy" in line for line in seen)
    assert any("7,258" in line and "97.11 %" in line for line in seen)


def test_a_trial_that_another_worker_took_over_goes_on_in_its_row() -> None:
    """As where the worker that it was given to died before it had begun."""
    events: list[SearchEvent] = [
        TrialStarted(4, worker=0, parameter_count=7258, n_redraws=0),
        TrialStarted(5, worker=0, parameter_count=4030, n_redraws=0),
        TrialEpoch(4, 1, EpochResult(1, 0.9, 0.71, 0.05, 0.8, 0.7342, 1.0)),
        TrialEpoch(5, 0, EpochResult(1, 0.9, 0.71, 0.05, 0.8, 0.6123, 1.0)),
    ]
    text = shown(80, events)
    assert "0 5 4,030 1/15 61.23 %" in text
    assert "1 4 7,258 1/15 73.42 %" in text


@pytest.mark.parametrize(
    ("length", "race", "may_take_longer"),
    [
        (StudyLength(10), RaceLimits(), False),
        (StudyLength(10, patience=8), RaceLimits(), False),  # 10 trials come before that is over
        (StudyLength(10, patience=2), RaceLimits(), True),
        (StudyLength(10), None, True),
    ],
)
def test_a_time_left_that_a_better_trial_or_a_race_would_add_to_is_the_least(
    length: StudyLength, race: RaceLimits | None, may_take_longer: bool
) -> None:
    count = Progress(
        before=Tally(n_trained=3),
        best=None,
        length=length,
        stagnation=Stagnation(1_000, reference=0.9, n_without=1),
        timeout_seconds=None,
        forecast=Forecast(race=race),
        clock=lambda: 0.0,
    )
    count.take(TrialStarted(4, 0, 5000, 0))
    count.take(TrialEpoch(4, 0, EpochResult(1, 0, 0, 0, 0, 0.5, 60.0)))
    count.take(TrialEnded(4, TrialState.COMPLETE, value=0.91, n_epochs=1))
    count.take(TrialStarted(5, 0, 5000, 0))
    console = Console(width=80, height=24, file=io.StringIO())
    view = LiveView(count, console, epochs=1, title="", metric="accuracy")
    with console.capture() as capture:
        console.print(view.render())
    assert (" left, or more" in capture.get()) == may_take_longer
    assert " left" in capture.get()


def test_a_curve_tells_small_errors_apart() -> None:
    errors = [0.3, 0.1, 0.03, 0.02, 0.01, 0.007, 0.005]
    assert sparkline([1 - error for error in errors], 0.7, 0.995) == "▁▃▅▆▇▇█"
    assert sparkline([0.5, 1.0], 0.5, 1.0) == "▁█"
    assert sparkline([0.9], 0.9, 0.9) == ""
    assert len(sparkline([0.5 + k / 1000 for k in range(400)], 0.5, 0.9)) == 20


def test_a_better_trial_becomes_the_best_and_gives_an_estimate() -> None:
    done = TrialEnded(4, TrialState.COMPLETE, 7258, value=0.9711, n_epochs=15)
    text = shown(100, [*EVENTS, done])
    assert "4 of 10 trained" in text
    assert "best so far: 97.11 % with 7,258 parameters (trial 4)" in text
    assert "left" in text


def test_lines_take_the_place_of_the_live_view_where_there_is_no_terminal() -> None:
    file = io.StringIO()
    with make_view(
        progress(), Console(file=file, width=80), epochs=15, title="", metric="accuracy"
    ) as listener:
        for event in EVENTS:
            listener(event)
    assert file.getvalue() == (
        "[3/10] trial 5, 4,030 parameters: failed: its worker died (queued again)\n"
    )


def test_what_is_printed_meanwhile_is_shown_in_the_picture_and_kept_behind_it() -> None:
    file = io.StringIO()
    console = Console(force_terminal=True, color_system=None, width=80, height=24, file=file)
    view = LiveView(progress(), console, epochs=15, title="", metric="accuracy")
    with view:
        console.print("The database server is away.")
        assert "server is away" not in file.getvalue()
    with console.capture() as capture:
        console.print(view.render())
    assert "server is away" in capture.get()
    other_screen, left = file.getvalue().split("\x1b[?1049l")
    assert "\x1b[?1049h" in other_screen
    assert "The database server is away." in left


def test_figures_are_written_as_people_read_them() -> None:
    assert (percent(0.99424), percent(None)) == ("99.42 %", "–")
    assert (duration(45), duration(200), duration(7500)) == ("45 s", "3 min 20 s", "2 h 05 min")
    assert (counted(1, "epoch"), counted(1500, "epoch")) == ("1 epoch", "1,500 epochs")


def test_a_worker_that_waits_keeps_its_line_and_nothing_jumps() -> None:
    def lines(events: list[SearchEvent]) -> list[str]:
        console = Console(
            force_terminal=True, color_system=None, width=80, height=24, file=io.StringIO()
        )
        count = Progress(
            before=Tally(),
            best=None,
            length=StudyLength(10),
            stagnation=Stagnation(1_000),
            timeout_seconds=None,
            forecast=Forecast(15, "halving", n_workers=2),
        )
        view = LiveView(count, console, epochs=15, title="study", metric="accuracy")
        for event in events:
            view._show(event)
        with console.capture() as capture:
            console.print(view.render())
        return capture.get().splitlines()

    pictures = [lines(EVENTS[:n]) for n in range(len(EVENTS) + 1)]
    titles = [next(i for i, line in enumerate(each) if "this epoch" in line) for each in pictures]
    assert len(set(titles)) == 1
    (place,) = set(titles)
    assert len({each[place] for each in pictures}) == 1  # each column where it was
    for each in pictures:
        assert [line.split()[0] for line in each[place + 1 : place + 3]] == ["0", "1"]
        assert max(map(len, each)) <= 80
        assert sum("Ctrl-C stops, and is safe" in line for line in each) == 1
    assert "waits" in pictures[0][place + 1]
    assert "waits" in pictures[-1][place + 2]  # its trial failed


def test_something_moves_within_an_epoch() -> None:
    now = [0.0]
    count = Progress(
        before=Tally(),
        best=None,
        length=StudyLength(3),
        stagnation=Stagnation(1_000),
        timeout_seconds=None,
        clock=lambda: now[0],
    )
    count.take(EVENTS[0])
    (row,) = count.running.values()
    now[0] = 700.0
    assert (count.elapsed_seconds, count.seconds_since(row)) == (700.0, 700.0)
    count.take(EVENTS[2])
    assert count.seconds_since(row) == 0.0


@dataclass(frozen=True)
class Curve:
    accuracies: list[float]
    epoch_seconds: float


def recorded_curves() -> list[Curve]:
    """Trainings on one kind of processor, of networks that fill their budget as a search's do."""
    text = gzip.decompress((DATA / "mnist_curves.csv.gz").read_bytes()).decode()
    return [
        Curve(
            [float(row[f"accuracy_{epoch}"]) for epoch in range(1, EPOCHS + 1)],
            float(row["seconds"]) / EPOCHS,
        )
        for row in csv.DictReader(text.splitlines())
        if (row["processor"], row["widths"]) == ("AMD EPYC, avx512", "scaled")
    ]


def estimates(
    curves: list[Curve], n_workers: int, race: RaceLimits
) -> tuple[list[tuple[int, float, float]], list[RacedTrial], float]:
    """A search of recorded curves, played by a clock of its own.

    Returns:
        as each trial ends, how many have, the time, and what was thought to be left; the complete
        trials, the best first; and what all have trained.
    """
    now, queue = [5.0], list(enumerate(curves))
    count = Progress(
        before=Tally(),
        best=None,
        length=StudyLength(len(curves)),
        stagnation=Stagnation(1_000),
        timeout_seconds=None,
        forecast=Forecast(EPOCHS, "halving", n_workers, race),
        clock=lambda: now[0],
    )
    study = optuna.create_study(direction="maximize", pruner=make_pruner("halving", epochs=EPOCHS))
    due: list[tuple[float, int, int, int]] = []  # when a trial ends an epoch, which, on what worker
    trials, trained = {}, 0.0
    found: list[tuple[int, float, float]] = []
    complete: list[RacedTrial] = []

    def start(worker: int) -> None:
        if queue:
            number, curve = queue.pop(0)
            trials[number] = study.ask()
            count.take(TrialStarted(number, worker, 5000, 0))
            heapq.heappush(due, (now[0] + curve.epoch_seconds, number, worker, 1))

    for worker in range(n_workers):
        start(worker)
    while due:
        now[0], number, worker, epoch = heapq.heappop(due)
        curve = curves[number]
        accuracy, seconds = curve.accuracies[epoch - 1], curve.epoch_seconds
        trained += seconds
        count.take(TrialEpoch(number, worker, EpochResult(epoch, 0, 0, 0, 0, accuracy, seconds)))
        trials[number].report(accuracy, epoch)
        is_pruned = trials[number].should_prune()
        if not is_pruned and epoch < EPOCHS:
            heapq.heappush(due, (now[0] + seconds, number, worker, epoch + 1))
            continue
        state = TrialState.PRUNED if is_pruned else TrialState.COMPLETE
        value = None if is_pruned else sum(curve.accuracies[-3:]) / 3
        study.tell(trials[number], value, state=state)
        count.take(TrialEnded(number, state, value=value, n_epochs=epoch))
        if value is not None:
            complete.append(RacedTrial(value, EPOCHS * seconds))
        left = count.seconds_left
        assert left is not None
        found.append((len(found) + 1, now[0], left))
        start(worker)
    return found, sorted(complete, key=lambda each: -each.value), trained


@pytest.mark.parametrize("n_workers", [1, 2, 4, 8])
def test_the_time_left_is_near_the_truth_once_five_trials_have_ended(n_workers: int) -> None:
    """How long a trial takes that is still to be drawn nobody knows: so not at each moment."""
    curves, race = recorded_curves(), RaceLimits(7, 12, 1 / 3, 240.0, Folds(6, 10_000))
    ratios = []
    for seed in range(4):
        order = random.Random(seed).sample(curves, 40)
        found, complete, trained = estimates(order, n_workers, race)
        (_, end, _) = found[-1]
        end += race_seconds(race, complete, trained, n_workers=n_workers)
        ratios += [left / (end - now) for n_ended, now, left in found if n_ended >= 5]
    assert sum(2 / 3 <= ratio <= 4 / 3 for ratio in ratios) > 0.75 * len(ratios)
    assert min(ratios) > 1 / 2
    assert max(ratios) < 2


def test_the_race_of_trials_still_to_come_is_told_as_one_of_close_ones() -> None:
    """One that is far ahead of another early on tells nothing of the best seven of the end."""
    forecast = Forecast(EPOCHS, "halving", 2, RaceLimits(7, 12, 1 / 3, 240.0, Folds(6, 10_000)))

    def told(second: float, n_open: int) -> float:
        left = TimeLeft(forecast)
        for number, value in enumerate((0.98, second)):
            for _ in range(EPOCHS):
                left.add_epoch(number, 0.1)
            left.end(number, value=value, is_stopped=False)
        seconds = left.seconds(n_open)
        assert seconds is not None
        return seconds

    assert told(0.98, n_open=10) == told(0.6, n_open=10)
    assert told(0.98, n_open=0) > told(0.6, n_open=0)  # which leaves the race at once


@pytest.mark.parametrize("n_stopped", [0, 3])
@pytest.mark.parametrize("n_workers", [1, 2, 4, 12])
def test_as_many_trials_are_shown_as_there_will_be_if_nothing_better_comes(
    n_workers: int, n_stopped: int
) -> None:
    """When patience is over the other workers still train, and what they train is counted too.

    Args:
        n_stopped: trials that are stopped before the first comes to its end, which is progress.
    """
    patience, before, n_trained = 8, Stagnation(1_000), 0
    count = Progress(
        before=Tally(),
        best=None,
        length=StudyLength(100, patience),
        stagnation=Stagnation(1_000),
        timeout_seconds=None,
        forecast=Forecast(n_workers=n_workers),
    )
    running = list(range(n_workers))
    for number in running:
        count.take(TrialStarted(number, number, 5000, 0))
    expected = []
    while running:
        number = running.pop(0)
        value = None if number < n_stopped else 0.9  # none is better than the first
        state = TrialState.PRUNED if value is None else TrialState.COMPLETE
        before.add(value)
        count.take(TrialEnded(number, state, value=value, n_epochs=1))
        n_trained += 1
        if before.n_without < patience:
            following = number + n_workers
            count.take(TrialStarted(following, number % n_workers, 5000, 0))
            running.append(following)
        expected.append(count.n_expected)
    expected = expected[max(0, n_stopped - 1) :]  # from before the first that comes to its end
    assert expected == [n_trained] * len(expected)


def test_epochs_that_are_told_of_at_once_take_as_long_as_they_took() -> None:
    """As to who begins to watch a search in the middle of a trial."""
    now = [0.0]

    def left(seconds_between: float) -> float | None:
        count = Progress(
            before=Tally(),
            best=None,
            length=StudyLength(2),
            stagnation=Stagnation(1_000),
            timeout_seconds=None,
            forecast=Forecast(4),
            clock=lambda: now[0],
        )
        now[0] = 100.0
        count.take(TrialStarted(0, 0, 5000, 0))
        for epoch in range(1, 5):
            now[0] += seconds_between
            count.take(TrialEpoch(0, 0, EpochResult(epoch, 0, 0, 0, 0, 0.9, 10.0)))
        count.take(TrialEnded(0, TrialState.COMPLETE, value=0.9, n_epochs=4))
        return count.seconds_left

    assert left(10.0) == left(0.0) == 40.0
