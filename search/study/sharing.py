"""What a search knows of other searches on its study: none on a file, any number on PostgreSQL.

A SQLite study is searched by one process at a time. On PostgreSQL searches on any number of hosts
share one. Whoever starts a trial, or queues one again, waits for a lock, so that the total of
trials is exact and no configuration is trained twice. Each records again and again which of its
trials live (Optuna's heartbeats, by the server's clock), and those of a host that fell silent are
queued again by another. A host that only slept finds its trial ended, and drops it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from search.exceptions import StudyError
from search.storage.retrying import RetryingStorage
from search.storage.server_locks import ServerLock
from search.storage.urls import sqlite_path
from search.study.locks import check_no_owner_alive, locked_file
from search.study.owners import is_owner_dead
from search.study.record import TrialRecord, is_foreign
from search.study.repair import requeue_left
from search.study.trials import trials_of
from search.wording import duration

_RETRY_SECONDS = 0.5  # while another races
_HEARTBEATS = 4  # within the time after which a host is taken for lost
_MISSED = 1.5  # heartbeats after which it is said that a host is silent


class Sharing(Protocol):
    """How a search shares its study."""

    @property
    def is_shared(self) -> bool:
        """Whether others may search the study at the same time."""

    def lock(self, should_stop: Callable[[], bool]) -> AbstractContextManager[bool]:
        """Lets one search at a time start trials or requeue them; false where it is to stop."""

    def n_elsewhere(self, trials: Collection[FrozenTrial], own: Collection[int]) -> int:
        """How many trials of others run now, where `own` are the numbers of this search's."""

    def record_start(self, trial_id: int) -> None:
        """Records that a trial has just begun, under the lock under which it did."""

    def record_heartbeats(self, trial_ids: Collection[int]) -> None:
        """Records that trials live. May be called as often as one likes."""

    def reclaim_lost(self, should_stop: Callable[[], bool]) -> Sequence[FrozenTrial]:
        """Queues the trials of lost hosts again; returns them, as they were.

        May be called as often as one likes.
        """

    def requeue_orphans(self) -> Sequence[FrozenTrial]:
        """Queues again what nobody runs any more, under the lock; returns it, as it was."""

    def lock_race(self, should_wait: Callable[[], bool]) -> AbstractContextManager[bool]:
        """Lets one search at a time race the study's trials; false where another does, and this
        one is not to wait any longer."""


class Alone:
    """A search that has its study to itself."""

    is_shared = False

    def __init__(self, study: Study) -> None:
        self._study = study

    def lock(self, should_stop: Callable[[], bool]) -> AbstractContextManager[bool]:
        return nullcontext(True)

    def n_elsewhere(self, trials: Collection[FrozenTrial], own: Collection[int]) -> int:
        return 0

    def record_start(self, trial_id: int) -> None:
        pass

    def record_heartbeats(self, trial_ids: Collection[int]) -> None:
        pass

    def reclaim_lost(self, should_stop: Callable[[], bool]) -> Sequence[FrozenTrial]:
        return ()

    def requeue_orphans(self) -> Sequence[FrozenTrial]:
        return requeue_left(self._study, trials_of(self._study))

    def lock_race(self, should_wait: Callable[[], bool]) -> AbstractContextManager[bool]:
        return nullcontext(True)


class Shared:
    """One of several searches on a study of a PostgreSQL database.

    Args:
        lost_after_seconds: how long a host may be silent before its trials are queued again. Time
            in which the server was away does not count.
        notice: is told of searches that are silent, with words.
    """

    is_shared = True

    def __init__(
        self,
        study: Study,
        url: str,
        lost_after_seconds: float,
        notice: Callable[[str], None] = lambda _text: None,
    ) -> None:
        self._study = study
        self._url = url
        self._storage = _retrying(study)
        self._lost_after_seconds = lost_after_seconds
        self._notice = notice
        self._silent_searches: set[str] = set()  # of which it is told
        self._next_heartbeat = self._next_reclaim = time.monotonic()

    def lock(self, should_stop: Callable[[], bool]) -> AbstractContextManager[bool]:
        return self._storage.lock(f"study {self._study._study_id}", should_stop)

    def n_elsewhere(self, trials: Collection[FrozenTrial], own: Collection[int]) -> int:
        running = {
            trial.number
            for trial in trials
            if trial.state == TrialState.RUNNING and not is_foreign(trial)
        }
        return len(running.difference(own))

    def record_start(self, trial_id: int) -> None:
        self._storage.record_heartbeat(trial_id)

    def record_heartbeats(self, trial_ids: Collection[int]) -> None:
        now = time.monotonic()
        if now < self._next_heartbeat:
            return
        self._next_heartbeat = now + self._lost_after_seconds / _HEARTBEATS
        for trial_id in trial_ids:
            self._storage.record_heartbeat(trial_id)

    def reclaim_lost(self, should_stop: Callable[[], bool]) -> Sequence[FrozenTrial]:
        now = time.monotonic()
        if now < self._next_reclaim:
            return ()
        self._next_reclaim = now + self._lost_after_seconds / _HEARTBEATS / 2
        # Whoever could not reach the server was not heard; all get the time to be heard again.
        if now < self._storage.returned_at + self._lost_after_seconds:
            return ()
        self._tell_silent()
        if not self._lost():
            return ()
        with self.lock(should_stop) as is_ours:
            return self.requeue_orphans() if is_ours else ()

    def requeue_orphans(self) -> Sequence[FrozenTrial]:
        # Read again, under the lock: another search may have been quicker.
        return requeue_left(self._study, self._lost())

    @contextmanager
    def lock_race(self, should_wait: Callable[[], bool]) -> Iterator[bool]:
        lock = ServerLock(self._url, self._study._study_id)
        try:
            while not (is_ours := self._storage.retry(lock.try_acquire)) and should_wait():
                time.sleep(_RETRY_SECONDS)
            yield is_ours
        finally:
            lock.release()

    def _tell_silent(self) -> None:
        """Says once of each search that has begun to be silent what will become of its trials."""
        seconds = _MISSED * self._lost_after_seconds / _HEARTBEATS
        silent = self._storage.silent_trials(self._study._study_id, seconds)
        running = trials_of(self._study, states=(TrialState.RUNNING,)) if silent else ()
        owners = [TrialRecord.read(trial).owner for trial in running if trial._trial_id in silent]
        found = {f"process {each.pid} on {each.host}" for each in owners if each is not None}
        for search in sorted(found - self._silent_searches):
            self._notice(
                f"Nothing was heard of {search} for {duration(seconds)} or longer; what it trains "
                f"is taken over after {duration(self._lost_after_seconds)} of silence."
            )
        self._silent_searches = found

    def _lost(self) -> list[FrozenTrial]:
        """The trials of hosts that fell silent, and of processes of this host that died."""
        silent = self._storage.silent_trials(self._study._study_id, self._lost_after_seconds)
        running = trials_of(self._study, states=(TrialState.RUNNING,))
        return [trial for trial in running if trial._trial_id in silent or is_owner_dead(trial)]


def lock_to_open(storage: BaseStorage, name: str) -> AbstractContextManager[object]:
    """Lets one process at a time make or open a study of that name, where several may come."""
    if isinstance(storage, RetryingStorage) and storage.has_locks:
        return storage.lock(f"open {name}", lambda: False)
    return nullcontext()


@contextmanager
def join_study(
    study: Study, url: str, *, lost_after_seconds: float, notice: Callable[[str], None]
) -> Iterator[Sharing]:
    """Lets a search onto the study as long as the context lasts: alone, or as one of several.

    Args:
        lost_after_seconds, notice: as those of `Shared`.

    Raises:
        StudyError: if another search is there, and the database lets only one.
        StorageError: if a SQLite file cannot be locked.
    """
    path = sqlite_path(url)
    if path is not None:
        with locked_file(path, study):
            yield Alone(study)
    elif _retrying(study).has_locks:
        yield Shared(study, url, lost_after_seconds, notice)
    else:  # a server without locks that we know
        check_no_owner_alive(study)
        yield Alone(study)


@contextmanager
def locked_race(study: Study, url: str) -> Iterator[None]:
    """Lets no other race of the study's trials run as long as the context lasts.

    Raises:
        StudyError: if another race runs, or on a SQLite file a search.
        StorageError, DatabaseError: if the lock cannot be taken at all.
    """
    path = sqlite_path(url)
    if path is not None:
        with locked_file(path, study):
            yield
        return
    lock = Shared(study, url, math.inf)  # it takes over nothing
    with lock.lock_race(lambda: False) as is_ours:
        if not is_ours:
            raise StudyError(
                f"One race at a time must run on a study, but another races the trials of "
                f"{study.study_name!r}; wait for it."
            )
        yield


def _retrying(study: Study) -> RetryingStorage:
    """The storage below Optuna's cache."""
    storage = study._storage
    backend = getattr(storage, "_backend", storage)
    assert isinstance(backend, RetryingStorage)
    return backend
