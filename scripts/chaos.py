"""A study of short trials, searched while its processes are killed at random; then an audit.

    python scripts/chaos.py --seed 1 --minutes 30 --trials 200 --folder FOLDER

For so many minutes, workers and the server that forks them are killed every second or two, and the
coordinator every few, more slowly where a start takes long; the same command then goes on. It takes
longer until the coordinator and others have been killed as often as `--kills` says. A study that is
complete before that is over is asked for as many trials again. At last it is left to end in peace,
and its database is compared with the logs that the workers kept themselves. Trials lost, counted
twice or changed, and processes left behind must all be zero, as must starts that ended with an
error of their own; the exit code is 1 where one is not.

The seed decides who is killed and after how long; what that hits is up to the machine. FOLDER keeps
the database, the workers' logs and what the search printed; it must be new.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import psutil
from optuna.trial import FrozenTrial, TrialState

from search.storage.open import opened_storage
from search.study.open import open_study
from search.study.record import TrialRecord, is_foreign, queued_values
from search.study.repair import MAX_CRASHES
from search.study.summary import is_trained
from search.study.trials import trials_of

STUDY = "chaos"
_WORKER_LIFE_SECONDS = 1.5  # means, where a search trains within 6 s of its start
_COORDINATOR_LIFE_SECONDS = 6.0
_START_SECONDS = 6.0
_TRAINING_SHARE = 0.75  # of the starts are left in peace until a worker has trained an epoch
_LAST_SECONDS = 600.0  # within which the study must end once it is left in peace
_GONE_SECONDS = 60.0  # within which a killed coordinator's other processes must end, also busy
_FATAL = (signal.SIGKILL, signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT)
_CRASHES = ("its worker process", f"it killed {MAX_CRASHES} workers")

Log = Mapping[int, Sequence[tuple[int, float]]]  # a trial's epochs and accuracies, as written


@dataclass
class Audit:
    """What is wrong with a study, in words; all of it must be empty."""

    lost: list[str] = field(default_factory=list)
    counted_twice: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    left_behind: list[str] = field(default_factory=list)
    crashed: list[str] = field(default_factory=list)  # starts that ended with an error

    @property
    def is_clean(self) -> bool:
        return not any(vars(self).values())


def read_log(folder: Path) -> Log:
    """What the workers say that they have trained."""
    log: dict[int, list[tuple[int, float]]] = {}
    for path in sorted(folder.iterdir()):
        for line in path.read_text().splitlines():
            entry = json.loads(line)
            log.setdefault(entry["trial"], []).append((entry["epoch"], entry["accuracy"]))
    return log


def read_trials(url: str, name: str = STUDY) -> list[FrozenTrial]:
    with opened_storage(url) as storage:
        return trials_of(open_study(storage, name))


def check_study(audit: Audit, trials: Sequence[FrozenTrial], log: Log, *, n_trials: int) -> None:
    """Compares a study that has ended, and should have so many trained trials, with the logs."""
    trained = [trial for trial in trials if is_trained(trial)]
    if len(trained) < n_trials:
        audit.lost.append(f"{n_trials - len(trained)} of {n_trials} trained trials")
    if len(trained) > n_trials:
        audit.counted_twice.append(f"{len(trained)} trained trials, not {n_trials}")
    audit.changed += [f"trial {t.number} is no search's any more" for t in trials if is_foreign(t)]
    for trial in trained:
        _check_values(audit, trial, log.get(trial.number, ()))
    configurations = Counter(json.dumps(trial.params, sort_keys=True) for trial in trained)
    audit.counted_twice += [f"configuration {c}" for c, n in configurations.items() if n > 1]
    known = {trial.number for trial in trials}
    audit.lost += [f"trial {number} is in a log alone" for number in log if number not in known]
    _check_repeats(audit, trials)


def _check_values(audit: Audit, trial: FrozenTrial, logged: Sequence[tuple[int, float]]) -> None:
    stored = [(result.epoch, result.accuracy) for result in TrialRecord.read(trial).epochs]
    if len({epoch for epoch, _ in logged}) < len(logged):
        audit.counted_twice.append(f"trial {trial.number} was trained twice")
    # The worker of a pruned trial may have begun another epoch before it heard of that.
    expected = list(logged) if trial.state == TrialState.COMPLETE else list(logged[: len(stored)])
    if stored != expected:
        audit.changed.append(f"epochs of trial {trial.number}: {stored}, logged {logged}")
    if trial.intermediate_values != dict(stored):
        audit.changed.append(f"intermediate values of trial {trial.number}")
    mean = statistics.fmean(accuracy for _, accuracy in stored[-3:])
    if trial.state == TrialState.COMPLETE and trial.values != [mean]:
        audit.changed.append(f"value of trial {trial.number}")


def _check_repeats(audit: Audit, trials: Sequence[FrozenTrial]) -> None:
    """Each trial that was interrupted or killed has one repeat, and nothing is left open."""
    repeats: dict[int, list[FrozenTrial]] = {}
    for trial in trials:
        repeated = TrialRecord.read(trial).repeats
        if repeated is not None:
            repeats.setdefault(repeated, []).append(trial)
    for trial in trials:
        number, record = trial.number, TrialRecord.read(trial)
        reason = str(record.reason)
        if not trial.state.is_finished():
            audit.lost.append(f"trial {number} is still {trial.state.name}")
        if trial.state != TrialState.FAIL:
            continue
        is_last_crash = (record.crashes or 0) >= MAX_CRASHES
        if not record.is_interrupted and not reason.startswith(_CRASHES):
            audit.lost.append(f"trial {number} failed: {reason}")
        own = repeats.get(number, [])
        if not own and not is_last_crash:
            audit.lost.append(f"trial {number} ({reason}) was not queued again")
        if len(own) > (0 if is_last_crash else 1):
            audit.counted_twice.append(f"trial {number} ({reason}) was queued again too often")
        for repeat in own:
            if trial.params.items() - _configuration(repeat).items():
                audit.changed.append(f"configuration of trial {number} in trial {repeat.number}")


def _configuration(trial: FrozenTrial) -> dict[str, Any]:
    """What was queued, and what was drawn: a trial may be killed before it has read all of it."""
    return {**(queued_values(trial) or {}), **trial.params}


class Witness:
    """Remembers trained trials, and says which of them a later look does not find as they were."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[Any, ...]] = {}

    def look(self, audit: Audit, trials: Iterable[FrozenTrial]) -> None:
        now = {
            t.number: (t.state, t.values, t.params, t.user_attrs) for t in trials if is_trained(t)
        }
        for number, before in self._seen.items():
            if number not in now:
                audit.lost.append(f"trial {number} was trained before a kill")
            elif now[number] != before:
                audit.changed.append(f"trial {number} after it had ended")
        self._seen = now


def wait_for(condition: Callable[[], bool], *, seconds: float) -> bool:
    """Whether a condition came true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def session(leader: int) -> list[psutil.Process]:
    """The processes, still running, of the session that a process leads or led."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            if os.getsid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


class Process(Protocol):
    """What is asked of the process of a search."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None: ...

    def wait(self, timeout: float) -> int: ...

    def kill(self) -> None: ...


def start_anew(words: Sequence[str], log: int) -> Process:
    """Starts `python` with these words, which prints into the file with that descriptor."""
    return subprocess.Popen(
        [sys.executable, *words],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )


class Chaos:
    """One study and all that befalls it.

    Args:
        seed: of who is killed, and when, and of the search.
        n_trials: that the study shall have; that many more whenever it has them before all is over.
        start: starts `python` with words, at the head of a session of its own.
        pace: by what the lives of processes are shortened.
    """

    def __init__(
        self,
        folder: Path,
        *,
        seed: int,
        n_trials: int,
        start: Callable[[Sequence[str], int], Process] = start_anew,
        pace: float = 1.0,
    ) -> None:
        self.audit = Audit()
        self.kills: Counter[str] = Counter()
        self.n_trials = n_trials
        self.url = f"sqlite:///{folder / 'studies.db'}"
        self._step = n_trials
        self._folder = folder
        self._seed = seed
        self._random = random.Random(seed)
        self._witness = Witness()
        self._start = start
        self._pace = pace
        self._slowness = 1.0  # of the last start that was left in peace
        self._least_end = 0.0
        self._least_kills = 0

    def run(self, *, minutes: float, n_kills: int) -> Audit:
        """Searches, kills for so long and so often, lets the search end, and audits it."""
        self._least_end = time.monotonic() + 60 * minutes
        self._least_kills = n_kills
        self._folder.mkdir(parents=True, exist_ok=True)
        while True:
            code = self._search()
            trials = read_trials(self.url) if (self._folder / "studies.db").exists() else []
            self._witness.look(self.audit, trials)
            if code not in (0, -signal.SIGKILL):
                self.audit.crashed.append(f"exit code {code}: {self._last_words()}")
            if code == 0 and not self._is_over():
                self.n_trials += self._step
            elif self._is_over() and (code != -signal.SIGKILL or not self.audit.is_clean):
                break
        check_study(self.audit, trials, read_log(self._folder / "log"), n_trials=self.n_trials)
        return self.audit

    def _is_over(self) -> bool:
        is_time_over = time.monotonic() >= self._least_end
        n_kills = min(self.kills["coordinator"], self.kills["other"])
        return is_time_over and n_kills >= self._least_kills

    def _search(self) -> int:
        """Starts the command, kills what runs until all is over; returns how the command ended."""
        options = f"--dataset digits --budget 2000 --epochs 6 --workers 2 --study {STUDY}"
        options += f" --seed {self._seed} --trials {self.n_trials} --no-confirm"
        places = ["--storage", self.url, "--worker-log", str(self._folder / "log")]
        with (self._folder / "search.log").open("a") as log:
            words = ["-m", "search", "run", "--space", "standard", *options.split(), *places]
            process = self._start(words, log.fileno())
        try:
            self._torment(process)
            code = process.wait(timeout=_LAST_SECONDS)
        except subprocess.TimeoutExpired:
            self.audit.lost.append("the search did not end")
            process.kill()
            code = process.wait(timeout=_LAST_SECONDS)
        if not wait_for(lambda: not session(process.pid), seconds=_GONE_SECONDS):
            for left in session(process.pid):
                self.audit.left_behind.append(str(left))
                left.kill()
        return code

    def _last_words(self, n_lines: int = 30) -> str:
        return "\n".join((self._folder / "search.log").read_text().splitlines()[-n_lines:])

    def _n_logged(self) -> int:
        """Bytes in the workers' logs."""
        return sum(path.stat().st_size for path in (self._folder / "log").glob("worker-*"))

    def _drawn(self, mean_seconds: float) -> float:
        return self._random.expovariate(self._pace / (mean_seconds * self._slowness))

    def _torment(self, process: Process) -> None:
        if self._random.random() < _TRAINING_SHARE:
            started, n_bytes = time.monotonic(), self._n_logged()
            wait_for(
                lambda: process.poll() is not None or self._n_logged() > n_bytes,
                seconds=_LAST_SECONDS,
            )
            self._slowness = max(1.0, (time.monotonic() - started) / _START_SECONDS)
        end = time.monotonic() + self._drawn(_COORDINATOR_LIFE_SECONDS)
        while process.poll() is None and not self._is_over():
            moment = min(time.monotonic() + self._drawn(_WORKER_LIFE_SECONDS), end)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=max(0.0, moment - time.monotonic()))
                return  # it ended by itself
            if moment == end:
                self.kills["coordinator"] += 1
                process.kill()
                return
            others = [other for other in session(process.pid) if other.pid != process.pid]
            if others:
                with contextlib.suppress(psutil.NoSuchProcess):
                    self._random.choice(others).send_signal(self._random.choice(_FATAL))
                    self.kills["other"] += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--folder", type=Path, required=True)
    options = parser.parse_args()
    if (options.folder / "studies.db").exists():
        parser.error(f"the folder must be new, but {options.folder} has a study; name another")
    started = time.monotonic()
    chaos = Chaos(options.folder, seed=options.seed, n_trials=options.trials)
    audit = chaos.run(minutes=options.minutes, n_kills=options.kills)
    trials = read_trials(chaos.url)
    n_failed = sum(trial.state == TrialState.FAIL for trial in trials)
    print(
        f"{chaos.n_trials} trials in {time.monotonic() - started:.0f} s, and {n_failed} that broke "
        f"off; killed the coordinator {chaos.kills['coordinator']} times, other processes "
        f"{chaos.kills['other']} times"
    )
    for name, found in vars(audit).items():
        print(f"{name.replace('_', ' ')}: {len(found)}")
        for line in found:
            print(f"  {line}")
    sys.exit(0 if audit.is_clean else 1)


if __name__ == "__main__":
    main()
