"""Clocks that jump and machines that sleep, made to do so."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from optuna.trial import TrialState

from search.workers.awake_clock import AwakeClock
from tests.conftest import DIGITS_RUN, ENDLESS, Command, n_reported, wait_until


def test_a_clock_leaves_out_what_its_process_slept() -> None:
    times = iter([10.0, 10.2, 10.6, 3610.6, 3610.8])
    clock = AwakeClock(longest_gap=0.5, now=lambda: next(times))
    assert [clock.seconds() for _ in range(4)] == pytest.approx([0.2, 0.6, 1.1, 1.3])


# In place of the C library's: the time of day, moved by as many seconds as the file says.
_JUMPING_CLOCK = r"""
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long jump(void) {
    long seconds = 0;
    FILE *file = fopen(getenv("JUMP_FILE"), "r");
    if (file) {
        if (fscanf(file, "%ld", &seconds) != 1) seconds = 0;
        fclose(file);
    }
    return seconds;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    int status = syscall(SYS_clock_gettime, clock, time);
    if (clock == CLOCK_REALTIME) time->tv_sec += jump();
    return status;
}

int gettimeofday(struct timeval *time, void *zone) {
    int status = syscall(SYS_gettimeofday, time, zone);
    time->tv_sec += jump();
    return status;
}
"""


def test_a_clock_that_jumps_declares_no_trial_dead_and_ends_no_search(command: Command) -> None:
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("the clock that jumps needs Linux and a C compiler")
    source, library = command.folder / "clock.c", command.folder / "clock.so"
    source.write_text(_JUMPING_CLOCK)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    jump = command.folder / "jump"
    jump.write_text("0")
    command.environment |= {"LD_PRELOAD": str(library), "JUMP_FILE": str(jump)}
    limits = ("--timeout", "1h", "--trial-timeout", "10m")
    # A new process, which loads the library.
    words = command.words(*DIGITS_RUN, *ENDLESS, *limits, "--trials", "2", "--workers", "2")
    process = command.start_words(words)
    for n, days in ((2, 2), (6, -4)):
        wait_until(lambda least=n: n_reported(command, "long") >= least)  # type: ignore[misc]
        (command.folder / "next").write_text(str(days * 24 * 3600))
        (command.folder / "next").rename(jump)  # whole at once
    wait_until(lambda: n_reported(command, "long") >= 20)
    assert [trial.state for trial in command.study("long").trials] == [TrialState.RUNNING] * 2
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate()
    assert process.returncode == 130, out
    # It did jump, for all of them to see.
    ended = [trial.datetime_complete for trial in command.study("long").trials]
    ages = [time.time() - end.timestamp() for end in ended if end is not None]
    assert len(ages) == 2
    assert min(ages) > 3 * 24 * 3600


def test_a_process_is_known_again_after_the_clock_was_set(tmp_path: Path) -> None:
    """What `/proc/stat` gives as the time of the boot moves with the clock."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root, on Linux, can show a process another /proc/stat")
    code = r"""
import pathlib, re, subprocess, sys
from search.study.owners import owner_of_this_process
before = owner_of_this_process()
stat = pathlib.Path("/proc/stat").read_text()
other = pathlib.Path(sys.argv[1])
other.write_text(re.sub(r"btime (\d+)", lambda found: f"btime {int(found[1]) - 3600}", stat))
if subprocess.run(["mount", "--bind", other, "/proc/stat"]).returncode:
    sys.exit(3)
assert pathlib.Path("/proc/stat").read_text() == other.read_text() != stat
assert owner_of_this_process() == before
"""
    words = ["unshare", "--mount", sys.executable, "-c", code, str(tmp_path / "stat")]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode == 3 or "unshare" in done.stderr:
        pytest.skip(f"nothing can be mounted here: {done.stderr}")
    assert done.returncode == 0, done.stderr
