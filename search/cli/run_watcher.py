"""What `search run` shows while it searches: lines, a live display, JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

from rich.console import Console

from search.cli.confirm import print_confirmation, print_steps, repeat_printer, shown_racing
from search.cli.events import (
    make_emit,
    race_ends,
    run_of_race,
    search_begins,
    search_ends,
)
from search.cli.output import (
    artifact_words,
    data_words,
    heard_interrupts,
    how_to_go_on,
    shown_waiting,
    stop_signals,
)
from search.cli.progress import Progress
from search.cli.run_options import Display
from search.cli.run_output import (
    best_so_far,
    echo_chosen,
    print_next,
    print_plan,
    print_result,
    why_no_lower,
)
from search.cli.time_left import Forecast
from search.cli.view import make_view
from search.results.confirm import ConfirmationRun, RepeatEnded
from search.results.confirmation import Confirmation
from search.results.folds import Folds
from search.results.target import Step
from search.storage.retry import Waiting
from search.study.length import Stagnation
from search.study.trials import trials_of
from search.training.metrics import metric_words
from search.tuner.events import Outcome, SearchEvent, event_values
from search.tuner.final_race import race_limits
from search.tuner.plan import SearchPlan
from search.tuner.session import Search
from search.tuner.trackers import make_log_folder, tracking
from search.tuner.watcher import Listener, SearchWatcher, ShouldStop
from search.wording import counted, duration


class TerminalWatcher(SearchWatcher):
    """Shows a search to who gave the command."""

    def __init__(self, console: Console, display: Display) -> None:
        self._console = console
        self._display = display
        self._emit = make_emit(as_json=display.as_json)
        self._show_repeat = repeat_printer(console)
        self._has_begun = False

    @contextmanager
    def loading(self) -> Iterator[None]:
        if self._has_begun:
            self._console.print()  # before the plan of a lower cap
        status = self._console.status("Loading the data, which may be downloaded")
        with heard_interrupts(), status:
            yield
            if self._display.log is not None:  # nothing is written before, should that be refused
                make_log_folder(self._display.log)

    def until_stopped(self) -> AbstractContextManager[ShouldStop]:
        return stop_signals()

    def waiting(self, should_stop: ShouldStop) -> Waiting:
        return shown_waiting(self._console, should_stop)

    def begins(self, search: Search) -> None:
        self._has_begun = True
        print_plan(self._console, search)
        self._emit(search_begins(search))

    @contextmanager
    def listening(self, search: Search) -> Iterator[Listener]:
        plan, request = search.plan, search.plan.request
        title = (
            f"{plan.study_name}: {plan.dataset.info.name}, fewer than {request.budget:,} "
            f"parameters, {counted(request.epochs, 'epoch')}"
        )
        progress = Progress(
            before=search.before,
            best=best_so_far(search),
            length=plan.length,
            stagnation=Stagnation.of(trials_of(search.study), search.n_validation),
            timeout_seconds=request.timeout_seconds,
            forecast=_forecast(search),
        )
        with (
            tracking(self._display.log, search.study) as track,
            make_view(
                progress,
                self._console,
                epochs=request.epochs,
                title=title,
                metric=metric_words(plan.checked.metric),
            ) as view,
        ):

            def listener(event: SearchEvent) -> None:
                view(event)
                track(event)
                self._emit(event_values(event))

            yield listener

    def ends(self, search: Search, outcome: Outcome) -> None:
        print_result(self._console, search, outcome)
        self._emit(search_ends(search, outcome))

    def race_begins(self, run: ConfirmationRun) -> None:
        candidates = run.race.candidates
        n_best = min(run.top, len(candidates))
        best = "best trial" if n_best == 1 else f"best {n_best} trials"
        if len(candidates) > n_best:  # the best come first
            others = " and ".join(f"trial {number}" for number in candidates[n_best:])
            best += f" and {others}"
        limit = ""
        if run.limit_seconds is not None:
            longest = duration(run.limit_seconds)
            limit = f", for at most {longest} of training (--no-confirm leaves it out)"
        parts = " and other parts of the data" if run.folds.n_parts > 1 else ""
        self._console.print(f"\nConfirming the {best} over fresh seeds{parts}{limit}:")

    def racing(self, search: Search, run: ConfirmationRun) -> AbstractContextManager[object]:
        def seconds_left() -> float | None:
            left = run.seconds_left
            return None if left is None else min(left, search.seconds_allowed)

        return shown_racing(self._console, seconds_left)

    def race_goes_on(self, event: RepeatEnded) -> None:
        self._show_repeat(event)
        self._emit(run_of_race(event))

    def race_ends(
        self, search: Search, confirmation: Confirmation | None, *, is_stopped: bool
    ) -> None:
        request, info = search.plan.request, search.plan.dataset.info
        print_confirmation(
            self._console,
            search.study,
            confirmation,
            storage=request.storage,
            data=[*data_words(info.name, request.data_dir), *artifact_words(request.artifacts)],
        )
        if confirmation is not None:
            self._emit(race_ends(confirmation))
        if is_stopped:
            self._console.print(
                f"Interrupted. The runs above are kept. {how_to_go_on()}", soft_wrap=True
            )

    def race_is_elsewhere(self) -> None:
        self._console.print(
            "\nAnother host races the best trials over fresh seeds; 'search best' will know who "
            "won."
        )

    def judged(self, search: Search, outcome: Outcome, *, is_stopped: bool) -> None:
        if self._display.quiet and not self._display.as_json:  # JSON has it in its own words
            echo_chosen(search)
        if not is_stopped and search.plan.request.target is None:
            print_next(self._console, search)

    def target_ends(self, plan: SearchPlan, steps: Sequence[Step], *, is_timed_out: bool) -> None:
        request = plan.request
        assert request.target is not None
        print_steps(
            self._console,
            steps,
            request.target,
            ended=why_no_lower(steps, plan, is_timed_out=is_timed_out),
            storage=request.storage,
            data=data_words(plan.dataset.info.name, request.data_dir),
            network=() if request.network is None else ("--network", str(request.network)),
        )


def _forecast(search: Search) -> Forecast:
    """What is known of a search's length as it begins."""
    request, info = search.plan.request, search.plan.dataset.info
    folds = Folds.of(info, search.plan.checked.metric)
    return Forecast(
        epochs=request.epochs,
        pruner=request.pruner,
        n_workers=search.n_workers,
        race=race_limits(request, search.plan.length.n_trials, folds),
    )
