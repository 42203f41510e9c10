"""What a person sees while a search runs: a live view in a terminal, lines elsewhere."""

from __future__ import annotations

import math
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol

from optuna.trial import TrialState
from rich.console import Console, ConsoleRenderable, Group, RenderableType, RenderHook
from rich.control import Control
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from search.study.summary import Tally
from search.tuner.events import SearchEvent, TrialEnded, TrialEpoch, TrialStarted
from search.wording import duration, percent

_BAR_WIDTH = 60
_BLOCKS = "▁▂▃▄▅▆▇█"
_CURVE_WIDTH = 20
_WIDTH_FOR_CURVES = 72  # columns of the terminal
_LEAST_ERROR = 1e-4  # of a curve: 100 % has no logarithm
_N_ENDS = 100  # trials that ended, of which those are shown that the terminal has room for
_N_NOTICES = 3  # the last ones printed
_WIDTH_FOR_HINT = 90  # columns of the terminal
_LEAVE_SCREEN, _ENTER_SCREEN = b"\x1b[?1049l\x1b[?25h", b"\x1b[?1049h\x1b[?25l"  # and its cursor


@dataclass(frozen=True, slots=True)
class Best:
    """The best complete trial so far."""

    number: int
    value: float
    parameter_count: int | None


@dataclass(slots=True)
class _Row:
    """A trial that runs; where its worker dies before it has begun, another one takes it over."""

    number: int
    worker: int
    parameter_count: int
    accuracies: list[float] = field(default_factory=list)  # one an epoch

    @property
    def epoch(self) -> int:
        return len(self.accuracies)

    @property
    def accuracy(self) -> float | None:
        return self.accuracies[-1] if self.accuracies else None


class Progress:
    """Keeps count of a search from its events, beginning with what the study already had."""

    def __init__(
        self, *, before: Tally, best: Best | None, n_trials: int, timeout_seconds: float | None
    ) -> None:
        self.n_trials = n_trials
        self.n_trained = before.n_trained
        self.n_pruned = before.n_pruned
        self.n_failed = before.n_failed
        self.n_redraws = before.n_redraws
        self.best = best
        self.running: dict[int, _Row] = {}  # by the trial's number
        self.lowest, self.highest = 1.0, 0.0  # accuracy after any epoch of this run
        self._n_before = before.n_trained
        self._timeout_seconds = timeout_seconds
        self._started = time.monotonic()

    @property
    def elapsed_seconds(self) -> float:
        return time.monotonic() - self._started

    @property
    def seconds_left(self) -> float | None:
        """An estimate from the trials of this run; None while there is none to go by."""
        n_done = self.n_trained - self._n_before
        if n_done == 0:
            return None
        left = self.elapsed_seconds / n_done * (self.n_trials - self.n_trained)
        if self._timeout_seconds is not None:
            left = min(left, self._timeout_seconds - self.elapsed_seconds)
        return max(0.0, left)

    def take(self, event: SearchEvent) -> bool:
        """Counts an event; true where it brought a new best trial."""
        match event:
            case TrialStarted():
                self.n_redraws += event.n_redraws
                row = _Row(event.number, event.worker, event.parameter_count)
                self.running[event.number] = row
            case TrialEpoch(number=number, worker=worker, result=result):
                self.running[number].worker = worker
                self.running[number].accuracies.append(result.accuracy)
                self.lowest = min(self.lowest, result.accuracy)
                self.highest = max(self.highest, result.accuracy)
            case TrialEnded():
                return self._end(event)
        return False

    def _end(self, event: TrialEnded) -> bool:
        is_trained = event.n_epochs > 0
        self.n_trained += is_trained and event.state in (TrialState.COMPLETE, TrialState.PRUNED)
        self.n_pruned += is_trained and event.state == TrialState.PRUNED
        self.n_failed += event.state == TrialState.FAIL
        self.running.pop(event.number, None)
        if event.value is None or (self.best is not None and event.value <= self.best.value):
            return False
        self.best = Best(event.number, event.value, event.parameter_count)
        return True


def sparkline(accuracies: Sequence[float], lowest: float, highest: float) -> str:
    """A learning curve of one character an epoch; of a long one, the last epochs.

    The scale is logarithmic in the error, so that 99.3 and 99.5 % differ to the eye, and runs from
    the `lowest` to the `highest` accuracy that there has been.
    """

    def level(accuracy: float) -> float:
        return -math.log(max(1 - accuracy, _LEAST_ERROR))

    low, high = level(lowest), level(highest)
    if high <= low:
        return ""
    top = len(_BLOCKS) - 1
    return "".join(
        _BLOCKS[round(top * (level(accuracy) - low) / (high - low))]
        for accuracy in accuracies[-_CURVE_WIDTH:]
    )


def describe_best(best: Best) -> str:
    """A trial's value, size and number."""
    size = "" if best.parameter_count is None else f" with {best.parameter_count:,} parameters"
    return f"{percent(best.value)}{size} (trial {best.number})"


class View(Protocol):
    """Shows a search while it runs; a context manager that takes its events."""

    def __enter__(self) -> Callable[[SearchEvent], None]: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class PlainView:
    """One line for each trial that ends: for pipes, logs and continuous integration."""

    def __init__(self, progress: Progress, console: Console) -> None:
        self._progress = progress
        self._console = console

    def __enter__(self) -> Callable[[SearchEvent], None]:
        return self._show

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass

    def _show(self, event: SearchEvent) -> None:
        is_best = self._progress.take(event)
        if isinstance(event, TrialEnded):
            progress = self._progress
            count = f"{progress.n_trained}/{progress.n_trials}"
            line = describe_end(event)
            if is_best:
                line += "  (best so far)"
            self._console.print(f"[{count}] {line}", soft_wrap=True)


def describe_end(event: TrialEnded) -> str:
    """A line on how a trial ended."""
    size = "" if event.parameter_count is None else f", {event.parameter_count:,} parameters"
    match event.state:
        case TrialState.COMPLETE:
            how = percent(event.value)
        case TrialState.PRUNED:
            how = f"pruned: {event.reason}"
        case TrialState.FAIL:
            how = f"failed: {event.reason}"
        case _:
            how = f"dropped: {event.reason}"
    if event.is_requeued:
        how += " (queued again)"
    where = "" if event.host is None else f" on {event.host}"
    return f"trial {event.number}{where}{size}: {how}"


class _Notices(RenderHook):
    """Keeps what is printed while the live view has the terminal and would paint over it."""

    def __init__(self) -> None:
        self.kept: list[ConsoleRenderable] = []

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        self.kept += [part for part in renderables if not isinstance(part, Control)]
        return [part for part in renderables if isinstance(part, Control)]


class LiveView:
    """A view that redraws itself in place, for terminals.

    It has the terminal's other screen for itself, as an editor has: most terminals break the lines
    of their first one anew when they are resized, and a picture on it can no longer be found. What
    stood on the first screen is back when the view ends, and what was printed meanwhile behind it.

    Args:
        title: a line on what is searched.
        metric: what networks are judged by, in words.
    """

    def __init__(
        self, progress: Progress, console: Console, *, epochs: int, title: str, metric: str
    ) -> None:
        self._progress = progress
        self._metric = metric
        self._epochs = epochs
        self._title = title
        self._ends: deque[Text] = deque(maxlen=_N_ENDS)  # the last one first
        self._console = console
        self._notices = _Notices()
        self._live = Live(
            console=console, refresh_per_second=4, get_renderable=self.render, screen=True
        )

    def __enter__(self) -> Callable[[SearchEvent], None]:
        self._console.push_render_hook(self._notices)
        self._live.__enter__()
        if hasattr(signal, "SIGTSTP"):  # Windows has none
            signal.signal(signal.SIGTSTP, self._suspend)
        return self._show

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if hasattr(signal, "SIGTSTP"):
            signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        self._live.__exit__(kind, error, trace)
        self._console.pop_render_hook()
        for notice in self._notices.kept:
            self._console.print(notice, soft_wrap=True)

    def _suspend(self, number: int, frame: object) -> None:
        """Leaves the terminal to the shell for as long as Ctrl-Z stops the search.

        Not through the console, whose lock what the signal interrupted may hold.
        """
        output = self._console.file.fileno()
        os.write(output, _LEAVE_SCREEN)
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, self._suspend)
        os.write(output, _ENTER_SCREEN)

    def _show(self, event: SearchEvent) -> None:
        is_best = self._progress.take(event)
        if isinstance(event, TrialEnded):
            styles = {TrialState.COMPLETE: "green" if is_best else "", TrialState.FAIL: "red"}
            style = "dim" if event.state is None else styles.get(event.state, "dim")
            line = describe_end(event)
            self._ends.appendleft(Text(line, style=style, overflow="ellipsis", no_wrap=True))

    def render(self) -> RenderableType:
        """The picture of now: what must be seen comes first, for a terminal of a few lines."""
        progress = self._progress
        counts = (
            f"{progress.n_trained} of {progress.n_trials} trained, {progress.n_pruned} of them "
            f"pruned, {progress.n_failed} failed, "
            f"{max(0, progress.n_trials - progress.n_trained)} to go, {progress.n_redraws} redrawn"
        )
        width = min(_BAR_WIDTH, self._console.width)
        bar = Table.grid()  # a bar alone does not end its line
        bar.add_row(
            ProgressBar(
                total=progress.n_trials,
                completed=min(progress.n_trained, progress.n_trials),
                width=width,
            )
        )
        return Group(
            self._heading(),
            bar,
            Text(counts),
            self._times(),
            Text(""),
            self._workers(),
            self._best(),
            *self._notices.kept[-_N_NOTICES:],
            Text(""),
            *tuple(self._ends),  # at once: another thread adds to them
        )

    def _heading(self) -> Table:
        heading = Table.grid(expand=True)
        heading.add_column()
        heading.add_column(justify="right", no_wrap=True)
        hint = "Ctrl-C stops, and is safe" if self._console.width >= _WIDTH_FOR_HINT else ""
        heading.add_row(Text(self._title, style="bold"), Text(hint, style="dim"))
        return heading

    def _times(self) -> Text:
        left = self._progress.seconds_left
        shown = "estimating the time left" if left is None else f"about {duration(left)} left"
        return Text(f"{duration(self._progress.elapsed_seconds)} so far, {shown}", style="dim")

    def _workers(self) -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        for heading in ("worker", "trial", "parameters", "epoch", self._metric):
            table.add_column(heading, justify="right")
        progress, has_room = self._progress, self._console.width >= _WIDTH_FOR_CURVES
        if has_room:
            table.add_column("curve", no_wrap=True, min_width=min(self._epochs, _CURVE_WIDTH))
        for row in sorted(progress.running.values(), key=lambda row: row.worker):
            curve = sparkline(row.accuracies, progress.lowest, progress.highest)
            table.add_row(
                str(row.worker),
                str(row.number),
                f"{row.parameter_count:,}",
                f"{row.epoch}/{self._epochs}",
                percent(row.accuracy),
                *([Text(curve, style="cyan")] if has_room else []),
            )
        return table

    def _best(self) -> Text:
        best = self._progress.best
        if best is None:
            return Text("no trial is complete yet", style="dim")
        size = "" if best.parameter_count is None else f" with {best.parameter_count:,} parameters"
        return Text(
            f"best so far: {percent(best.value)}{size} (trial {best.number})", style="green"
        )


def make_view(
    progress: Progress, console: Console, *, epochs: int, title: str, metric: str
) -> View:
    """The live view in a terminal, lines where the output goes elsewhere or under CI."""
    if console.is_interactive and not console.quiet and not os.environ.get("CI"):
        return LiveView(progress, console, epochs=epochs, title=title, metric=metric)
    return PlainView(progress, console)
