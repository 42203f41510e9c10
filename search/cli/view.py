"""What a person sees while a search runs: a live view in a terminal, lines elsewhere."""

from __future__ import annotations

import math
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Protocol

from optuna.trial import TrialState
from rich.console import Console, ConsoleRenderable, Group, RenderableType, RenderHook
from rich.control import Control
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from search.cli.output import HINT
from search.cli.progress import Best, Progress, Row
from search.stops import last_act
from search.tuner.events import SearchEvent, TrialEnded
from search.tuner.words import describe_end
from search.wording import duration, percent

_BAR_WIDTH = 60
_BLOCKS = "▁▂▃▄▅▆▇█"
_CURVE_WIDTH = 20
_WIDTH_FOR_CURVES = 72  # columns of the terminal
_HEIGHT_FOR_ALL = 16  # lines of the terminal; of fewer none is left blank, and the title takes one
_LEAST_ERROR = 1e-4  # of a curve: 100 % has no logarithm
_N_ENDS = 100  # trials that ended, of which those are shown that the terminal has room for
_N_NOTICES = 3  # the last ones printed
_WIDTH_FOR_HINT = 78  # columns of the terminal, beside the times
_LEAVE_SCREEN, _ENTER_SCREEN = b"\x1b[?1049l\x1b[?25h", b"\x1b[?1049h\x1b[?25l"  # and its cursor


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
            count = f"{progress.n_trained}/{progress.n_expected}"
            line = describe_end(event)
            if is_best:
                line += "  (best so far)"
            self._console.print(f"[{count}] {line}", soft_wrap=True)


def _first(pair: tuple[int, Row | None]) -> int:
    return pair[0]


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
        hint: what Ctrl-C does.
    """

    def __init__(
        self,
        progress: Progress,
        console: Console,
        *,
        epochs: int,
        title: str,
        metric: str,
        hint: str = HINT,
    ) -> None:
        self._progress = progress
        self._hint = hint
        self._metric = metric
        self._epochs = epochs
        self._title = title
        self._ends: deque[Text] = deque(maxlen=_N_ENDS)  # the last one first
        self._console = console
        self._notices = _Notices()
        self._leaving = ExitStack()
        self._workers_seen = set(range(progress.forecast.n_workers))
        self._live = Live(
            console=console, refresh_per_second=4, get_renderable=self.render, screen=True
        )

    def __enter__(self) -> Callable[[SearchEvent], None]:
        self._console.push_render_hook(self._notices)
        self._leaving.enter_context(last_act(self._leave))
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
        self._leaving.close()
        self._leave()

    def _leave(self) -> None:
        """Gives the terminal back, with what was printed meanwhile."""
        self._live.stop()
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
            f"{progress.n_trained} of {progress.n_expected} trained, {progress.n_pruned} of them "
            f"pruned, {progress.n_failed} failed, "
            f"{progress.n_expected - progress.n_trained} to go, {progress.n_redraws} redrawn"
        )
        width = min(_BAR_WIDTH, self._console.width)
        is_low = self._console.height < _HEIGHT_FOR_ALL
        space = [] if is_low else [Text("")]
        bar = Table.grid()  # a bar alone does not end its line
        bar.add_row(
            ProgressBar(
                total=progress.n_expected,
                completed=progress.n_trained,
                width=width,
            )
        )
        return Group(
            Text(self._title, style="bold", overflow="ellipsis", no_wrap=is_low),
            bar,
            Text(counts),
            *self._times(),
            *space,
            self._workers(),
            self._best(),
            *self._notices.kept[-_N_NOTICES:],
            *space,
            *tuple(self._ends),  # at once: another thread adds to them
        )

    def _times(self) -> Iterator[RenderableType]:
        left = self._progress.seconds_left
        shown = "estimating the time left"
        if left is not None:
            more = ", or more" if self._progress.may_take_longer else ""
            shown = f"about {duration(left)} left{more}"
        times = f"{duration(self._progress.elapsed_seconds)} so far, {shown}"
        if self._console.width < _WIDTH_FOR_HINT:
            yield Text(times, style="dim")
            yield Text(self._hint, style="dim")
            return
        line = Table.grid(expand=True)
        line.add_column()
        line.add_column(justify="right", no_wrap=True)
        line.add_row(Text(times, style="dim"), Text(self._hint, style="dim"))
        yield line

    def _workers(self) -> Table:
        """A line a worker, also for one that waits, and columns that stay as wide as they are."""
        progress, has_room = self._progress, self._console.width >= _WIDTH_FOR_CURVES
        table = Table(box=None, padding=(0, 2 if has_room else 1, 0, 0), header_style="dim")
        for heading, widest in (
            ("worker", ""),
            ("trial", "1,000"),
            ("parameters", ""),
            ("epoch", f"{self._epochs}/{self._epochs}"),
            (self._metric, percent(1)),
        ):
            table.add_column(heading, justify="right", min_width=len(widest))
        if has_room:
            table.add_column("curve", no_wrap=True, min_width=min(self._epochs, _CURVE_WIDTH))
            table.add_column("this epoch", justify="right", no_wrap=True)
        rows = sorted(progress.running.values(), key=lambda row: row.worker)
        busy = {row.worker for row in rows}
        self._workers_seen |= busy
        waiting = [(worker, None) for worker in self._workers_seen - busy]
        for worker, row in sorted([*((row.worker, row) for row in rows), *waiting], key=_first):
            if row is None:
                table.add_row(str(worker), "–", "waits", style="dim")
                continue
            curve = sparkline(row.accuracies, progress.lowest, progress.highest)
            moving: list[str | Text] = [
                Text(curve, style="cyan"),
                duration(progress.seconds_since(row)),
            ]
            table.add_row(
                str(row.worker),
                str(row.number),
                f"{row.parameter_count:,}",
                f"{row.epoch}/{self._epochs}",
                percent(row.accuracy),
                *(moving if has_room else []),
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
    progress: Progress,
    console: Console,
    *,
    epochs: int,
    title: str,
    metric: str,
    hint: str = HINT,
) -> View:
    """The live view in a terminal, lines where the output goes elsewhere or under CI."""
    if console.is_interactive and not console.quiet and not os.environ.get("CI"):
        return LiveView(progress, console, epochs=epochs, title=title, metric=metric, hint=hint)
    return PlainView(progress, console)
