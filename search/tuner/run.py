"""A whole search: `search run` and `search.run_search` in Python call the same function."""

from __future__ import annotations

from dataclasses import dataclass

from search.results.confirm import ConfirmationRun
from search.results.target import smallest
from search.storage.open import opened_storage
from search.study.history import make_last_used
from search.study.open import open_study
from search.tuner.events import Outcome
from search.tuner.plan import SearchPlan, plan_search
from search.tuner.request import CheckedRequest, check_request
from search.tuner.session import Search, begin_search
from search.tuner.target_search import TargetSearch
from search.tuner.watcher import SearchWatcher, ShouldStop
from search.workers.ray_cluster import connected_cluster


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What came of a search.

    Args:
        study: its name; under a target, that of the smallest network that reached it or, where none
            did, of the last cap.
        is_interrupted: whether it was stopped before it had ended.
    """

    study: str
    is_interrupted: bool


def run_search(checked: CheckedRequest, watcher: SearchWatcher) -> SearchResult:
    """Searches, races the best trials, and under a target does so for lower and lower caps.

    Raises:
        InputError: if anything asked for is wrong; nothing was written then.
        StorageError: if the storage cannot be opened.
        StudyError: if the study was made with other settings, or is being searched already.
        StudyDeletedError: if somebody deletes the study meanwhile.
        TrainingError: if workers cannot be started, or trial after trial fails.
        ArtifactError: if curves or weights of trials cannot be written.
    """
    request = checked.asked
    with connected_cluster(checked.resources, request.ray_address, n_workers=request.n_workers):
        plan = _plan(checked, watcher)
        with watcher.until_stopped() as should_stop:
            if request.target is None:
                return _search_one_cap(plan, watcher, should_stop)
            return _search_for_target(plan, watcher, should_stop)


def _plan(checked: CheckedRequest, watcher: SearchWatcher) -> SearchPlan:
    with watcher.loading():
        return plan_search(checked)


def _search_one_cap(
    plan: SearchPlan, watcher: SearchWatcher, should_stop: ShouldStop
) -> SearchResult:
    with begin_search(plan, watcher.waiting(should_stop)) as search:
        outcome = _train_trials(search, watcher, should_stop)
        if outcome is not Outcome.INTERRUPTED:
            _race(search, outcome, watcher, should_stop)
        is_interrupted = outcome is Outcome.INTERRUPTED or should_stop()
        return SearchResult(plan.study_name, is_interrupted=is_interrupted)


def _search_for_target(
    plan: SearchPlan, watcher: SearchWatcher, should_stop: ShouldStop
) -> SearchResult:
    target = TargetSearch()
    while True:
        with begin_search(plan, watcher.waiting(should_stop)) as search:
            outcome = _train_trials(search, watcher, should_stop)
            if outcome is Outcome.INTERRUPTED:
                return SearchResult(plan.study_name, is_interrupted=True)
            race = _race(search, outcome, watcher, should_stop)
            if should_stop():
                return SearchResult(plan.study_name, is_interrupted=True)
            following = target.next_request(search, outcome, race)
        if following is None:
            break
        plan = _plan(check_request(following), watcher)
    found = smallest(target.steps)
    if found is not None:
        waiting = watcher.waiting(should_stop)
        with opened_storage(plan.request.storage, write=True, waiting=waiting) as storage:
            make_last_used(open_study(storage, found.study))
    watcher.target_ends(plan, target.steps, is_timed_out=target.is_timed_out)
    name = plan.study_name if found is None else found.study
    return SearchResult(name, is_interrupted=False)


def _train_trials(search: Search, watcher: SearchWatcher, should_stop: ShouldStop) -> Outcome:
    watcher.begins(search)
    outcome = search.over()
    if outcome is None:
        with watcher.listening(search) as listener:
            outcome = search.run(listener, should_stop=should_stop)
    watcher.ends(search, outcome)
    return outcome


def _race(
    search: Search, outcome: Outcome, watcher: SearchWatcher, should_stop: ShouldStop
) -> ConfirmationRun | None:
    """The race at the search's end; None where there is none to run, or another host runs it."""
    with search.hold_race(should_stop) as race:
        if race.run is not None:
            watcher.race_begins(race.run)
            with watcher.racing(search, race.run):
                search.confirm(race.run, watcher.race_goes_on, should_stop=should_stop)
            watcher.race_ends(search, race.run.finish(), is_stopped=should_stop())
    if race.is_elsewhere and not should_stop():
        watcher.race_is_elsewhere()
    watcher.judged(search, outcome, is_stopped=should_stop())
    return race.run
