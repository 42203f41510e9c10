"""What optuna-dashboard shows of a study besides its trials, kept current: note, graphs, artifacts.

Written by the process that searches, and by it alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from optuna.study import Study
from optuna.trial import FrozenTrial
from optuna_dashboard import save_note, save_plotly_graph_object

from search.report.artifacts import StudyArtifacts
from search.report.facts import Report, read_report
from search.report.graphs import influence_graph, learning_graph, size_graph
from search.report.importance import influences
from search.report.loading import left_out, load_matplotlib
from search.report.note import note_text
from search.storage.retrying import RetryingStorage, WriteConflictError
from search.study.stored import is_count
from search.study.summary import is_trained
from search.study.trials import trials_of

_REST = 100  # times as long as an update took passes before the next
_LEAST_REST_SECONDS = 10.0
_N_TRIES = 3  # where others write between reading and writing; after them, it is left to the next
# To tell importance from chance takes 7 ms a trial: so not each time and, while workers or a person
# wait, only where there are not too many.
_GROWTH = 1.2
_MANY_TRIALS = 300
# Attributes of a study in which optuna-dashboard keeps its note: a number that is counted up with
# each change, and pieces of the text.
_NOTE_VERSION, _NOTE_PIECE = "dashboard:note_ver", "dashboard:note_str:"


@dataclass(frozen=True, slots=True)
class _Graph:
    """What optuna-dashboard takes for a figure of plotly's."""

    text: str

    def to_json(self) -> str:
        return self.text


class DashboardSync:
    """The note, the graphs and the artifacts of one study.

    Args:
        storage: that of the study.
        folder: of artifacts; None keeps none.
        lock: lets one search of the study at a time update it; false where that took too long.
        notice: told, once, that learning curves cannot be drawn, which ends nothing.

    Raises:
        ArtifactError: if the folder cannot be made.
    """

    def __init__(
        self,
        storage: RetryingStorage,
        study: Study,
        folder: Path | None,
        *,
        lock: Callable[[], AbstractContextManager[bool]] = lambda: nullcontext(True),
        notice: Callable[[str], None] = lambda _text: None,
    ) -> None:
        self._storage = storage
        self._study = study
        self._artifacts = None if folder is None else StudyArtifacts(study, folder)
        self._lock = lock
        self._notice = notice
        self._draws = True  # until a curve cannot be drawn
        self._due = 0.0  # by the monotonic clock
        self._n_judged = 0  # trials, when importance was judged last

    @property
    def weights_path(self) -> Callable[[int], Path] | None:
        """Where a trial's weights go, by its number; None where none are kept."""
        return None if self._artifacts is None else self._artifacts.weights_path

    def begin(self, *, is_alone: bool) -> None:
        """Updates it first, and clears away what a search that died left behind.

        Args:
            is_alone: whether no other search of the study may be writing files just now.

        Raises:
            ArtifactError: if a file cannot be written.
        """
        if self._artifacts is not None:
            self._artifacts.sweep_old()
        self.update()  # which copies what it needs of a study that is gone
        if self._artifacts is not None and is_alone:
            self._artifacts.sweep()

    def update_if_due(self) -> None:
        """Updates it, unless that would take more than a hundredth of the time.

        Raises:
            ArtifactError: if a file cannot be written.
        """
        started = time.monotonic()
        if started < self._due:
            return
        self.update()
        now = time.monotonic()
        self._due = now + max(_LEAST_REST_SECONDS, _REST * (now - started))

    def update(self, *, has_time: bool = False, is_leaving: bool = False) -> None:
        """Updates it. All that it writes to the database is written at once.

        Args:
            has_time: whether it may take more than two seconds, where there are many trials.
            is_leaving: whether this process is about to end its search of the study.

        Raises:
            ArtifactError: if a file cannot be written.
        """
        trials = trials_of(self._study)
        n_trained = sum(map(is_trained, trials))
        importance = None
        is_judged = self._is_to_judge(n_trained, has_time=has_time)
        if is_judged:  # before the lock: nobody is to wait for it
            importance = influence_graph(influences(trials))
        with self._lock() as is_locked:
            if not is_locked:
                return
            for _ in range(_N_TRIES):
                with suppress(WriteConflictError):
                    self._write(importance, is_leaving=is_leaving)
                    if is_judged:
                        self._n_judged = n_trained
                    return

    def _write(self, importance: str | None, *, is_leaving: bool) -> None:
        study = self._study
        report = read_report(study, with_influences=False, is_leaving=is_leaving)
        settlement = None
        if self._artifacts is not None:
            settlement = self._artifacts.settle(report.trials, partial(self._draw, report))
        graphs = {
            "size": size_graph(report),
            "learning": learning_graph(report),
            "importance": importance,
        }
        with self._storage.batch_study_attributes():
            if settlement is not None:
                for key, value in settlement.entries.items():
                    study._storage.set_study_system_attr(study._study_id, key, value)
            for name, graph in graphs.items():
                if graph is not None:
                    save_plotly_graph_object(study, _Graph(graph), graph_object_id=name)
            before = _read_note(study)
            note = note_text(report, before)
            if note != before:
                save_note(study, note)
        for path in settlement.outdated if settlement is not None else ():
            path.unlink(missing_ok=True)

    def _draw(self, report: Report, trial: FrozenTrial) -> bytes | None:
        """A trial's learning curve as PNG; None where it cannot be drawn."""
        if not self._draws:
            return None
        try:
            load_matplotlib()
            from search.report.figures import draw_curve

            return draw_curve(report, trial)
        except Exception as error:  # whatever a drawing library meets on a machine
            self._draws = False
            self._notice(left_out("The learning curve of a trial", error))
            return None

    def _is_to_judge(self, n_trained: int, *, has_time: bool) -> bool:
        if has_time:
            return n_trained > self._n_judged
        return n_trained <= _MANY_TRIALS and n_trained >= _GROWTH * self._n_judged


def _read_note(study: Study) -> str:
    """The note that a study has, without what other programs wrote there that is no text."""
    stored = study._storage.get_study_system_attrs(study._study_id)
    if not is_count(stored.get(_NOTE_VERSION, 0)):
        study._storage.set_study_system_attr(study._study_id, _NOTE_VERSION, 0)
    n_pieces = sum(key.startswith(_NOTE_PIECE) for key in stored)
    pieces = (stored.get(f"{_NOTE_PIECE}{number}") for number in range(n_pieces))
    return "".join(piece for piece in pieces if isinstance(piece, str))
