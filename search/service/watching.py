"""The events of one search, of a job or of a command, until it is over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, TypeAlias

from search.exceptions import InputError, UnknownJobError
from search.service.feed import StudyFeed
from search.service.jobs import ENDED, Job, JobState
from search.service.queue import JobQueue
from search.storage.retrying import RetryingStorage
from search.storage.studies import study_names
from search.study.locks import is_searched
from search.study.open import open_study
from search.tuner.events import event_values

# `job` is a job that has changed, `study` how the study stands; after that come the events of its
# trials. None comes where nothing is new: whoever asks may wait, or leave.
Watched: TypeAlias = Iterator[dict[str, Any] | None]
Look: TypeAlias = Callable[[int], Job]


def watch_search(queue: JobQueue, name: str, *, look: Look | None = None) -> Watched:
    """What happens in a search, as values that JSON knows, until it is over.

    Args:
        name: the number of a job, or the name of a study.
        look: gives a job as it is now; by default, the queue.

    Raises:
        UnknownJobError, UnknownStudyError: if there is neither.
    """
    try:
        job = queue.find(name)
    except UnknownJobError:
        if name.isdecimal() and name not in study_names(queue.storage):
            raise
    else:
        if str(job.number) == name:
            return watch_job(queue, job, look=look)
    return watch_study(queue, name, look=look)


def watch_job(queue: JobQueue, job: Job, *, look: Look | None = None) -> Watched:
    """As `watch_search`, of a job."""
    return _watch(queue, job, job.study, look or queue.job)


def watch_study(queue: JobQueue, name: str, *, look: Look | None = None) -> Watched:
    """As `watch_search`, of a study: by its job, unless a command searches it now.

    Raises:
        UnknownStudyError: if there is neither a study nor a job of that name.
    """
    job: Job | None = None
    with suppress(UnknownJobError):
        job = queue.of_study(name)
    if job is not None and job.state in ENDED and _is_searched(queue.storage, name):
        job = None
    if job is None:
        open_study(queue.storage, name)  # says what studies there are
    return _watch(queue, job, name, look or queue.job)


def _watch(queue: JobQueue, job: Job | None, name: str | None, look: Look) -> Watched:
    shown: Job | None = None
    feed: StudyFeed | None = None
    while True:
        if job is not None:
            job = look(job.number)
            if job != shown:
                shown = job
                yield {"event": "job", **job.to_json()}
        study = name if job is None else _begun(job)
        is_new = study is not None and (feed is None or feed.name != study)
        if is_new and study in study_names(queue.storage):
            feed = StudyFeed(queue.storage, study)
            yield feed.start().to_json()
        if feed is not None:
            for event in feed.read():
                yield event_values(event)
        if job.state in ENDED if job is not None else feed is None or feed.is_over():
            return
        yield None


def _is_searched(storage: RetryingStorage, name: str) -> bool:
    with suppress(InputError, KeyError):  # there is none yet, or it was deleted
        return name in study_names(storage) and is_searched(open_study(storage, name))
    return False


def _begun(job: Job) -> str | None:
    """The study of a job whose search has begun there; None before that."""
    is_begun = job.state is JobState.RUNNING and job.progress.n_trials is not None
    return job.study if is_begun or job.state in ENDED else None
