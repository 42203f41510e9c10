"""Trials that ended before their time: failed with a reason, queued again, repaired."""

from __future__ import annotations

from collections.abc import Sequence

from optuna.exceptions import UpdateFinishedTrialError
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from search.study.record import INTERRUPTED, TrialRecord, is_foreign, queued_values
from search.study.trials import judge_all, rules_of, trials_of

MAX_CRASHES = 2  # workers that one configuration may kill


def requeue_left(study: Study, left: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Requeues what is still RUNNING of the trials that were left; returns these.

    Only for who holds the lock of the study, as `Sharing` sees to.

    Args:
        left: trials of searches that died, or are taken for dead.
    """
    # What is known of a trial that runs elsewhere may be some seconds old.
    left = [study._storage.get_trial(trial._trial_id) for trial in left]
    judge_all(left, rules_of(study))
    left = [t for t in left if t.state == TrialState.RUNNING and not is_foreign(t)]
    repeated = {TrialRecord.read(trial).repeats for trial in trials_of(study)}
    for trial in left:
        # A search may have died between queueing and telling: then the repeat is there already.
        requeue(study, trial, queue=trial.number not in repeated)
    return left


def requeue(study: Study, trial: FrozenTrial, *, queue: bool = True) -> None:
    """Ends an interrupted trial and, with `queue`, queues its configuration again.

    A trial that somebody else has ended meanwhile stays as it is. One that has killed as many
    workers as it may, and whose search died before it could say so, is not queued.
    """
    if trial.state != TrialState.RUNNING:
        return
    n_crashes = TrialRecord.read(trial).crashes or 0
    if n_crashes >= MAX_CRASHES:
        fail(study, trial, f"it killed {n_crashes} workers")
        return
    if queue:
        _queue_repeat(study, trial, n_crashes)
    try:
        fail(study, trial, INTERRUPTED)
    except (UpdateFinishedTrialError, ValueError):
        if study._storage.get_trial(trial._trial_id).state == TrialState.RUNNING:
            raise  # the error is about something else
        # Its host only slept, and has ended it; the repeat is refused once it is started.


def fail_crashed(study: Study, trial: FrozenTrial, reason: str) -> bool:
    """Ends a trial that killed its worker; returns whether its configuration is queued again."""
    n_crashes = (TrialRecord.read(trial).crashes or 0) + 1
    # First of all, so that a death in between does not forget it.
    TrialRecord(crashes=n_crashes).write(study, trial._trial_id)
    is_requeued = n_crashes < MAX_CRASHES
    if is_requeued:
        _queue_repeat(study, trial, n_crashes)
    fail(study, trial, reason)
    return is_requeued


def fail(study: Study, trial: FrozenTrial, reason: str) -> None:
    """Ends a running trial as FAIL, with its reason."""
    TrialRecord(reason=reason).write(study, trial._trial_id)
    study.tell(trial.number, state=TrialState.FAIL)


def _queue_repeat(study: Study, trial: FrozenTrial, n_crashes: int) -> None:
    """Queues the configuration of a trial again.

    Before the trial itself is ended: a death in between leaves a trial RUNNING whose repeat is
    marked with its number, and `requeue_left` sees that.
    """
    before = TrialRecord.read(trial)
    repeat = TrialRecord(
        repeats=trial.number,
        crashes=n_crashes,
        training_seed=before.training_seed,
        from_study=before.from_study,
    )
    parameters = {**(queued_values(trial) or {}), **trial.params}
    study.enqueue_trial(parameters, user_attrs=repeat.to_attributes())
