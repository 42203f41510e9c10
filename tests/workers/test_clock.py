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

from tests.conftest import DIGITS_RUN, Command, n_reported, wait_until


def test_a_clock_leaves_out_what_its_process_slept() -> None:
    code = """
import sys, time
from search.workers.awake_clock import AwakeClock
clock = AwakeClock(longest_gap=0.2)
while True:
    print(clock.seconds(), time.monotonic(), flush=True)
    time.sleep(0.02)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    read = process.stdout.readline
    try:
        before = read().split()
        process.send_signal(signal.SIGSTOP)
        time.sleep(2)
        process.send_signal(signal.SIGCONT)
        after = [read() for _ in range(60)][-1].split()
    finally:
        process.kill()
        process.wait()
    awake, passed = (float(b) - float(a) for a, b in zip(before, after, strict=True))
    assert 0.5 < awake < passed - 1.5


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
    options = (*DIGITS_RUN, "--epochs", "60", "--study", "long", "--workers", "2")
    words = command.words(*options, *limits, "--trials", "2")  # anew: with the library loaded
    process = command.start_words(words)
    for n, days in ((2, 2), (6, -4)):
        wait_until(lambda least=n: n_reported(command, "long") >= least)  # type: ignore[misc]
        (command.folder / "next").write_text(str(days * 24 * 3600))
        (command.folder / "next").rename(jump)  # whole at once
    out, _ = process.communicate()
    assert process.returncode == 0, out
    trials = command.study("long").trials
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 2
    # It did jump, for all of them to see.
    ages = [
        time.time() - trial.datetime_complete.timestamp()
        for trial in trials
        if trial.datetime_complete
    ]
    assert min(ages) > 3 * 24 * 3600


def test_a_process_is_known_again_after_the_clock_was_set(tmp_path: Path) -> None:
    """What `/proc/stat` gives as the time of the boot moves with the clock."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root, on Linux, can show a process another /proc/stat")
    code = r"""
import pathlib, re, subprocess, sys
from search.study.locks import owner_of_this_process
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
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    if done.returncode == 3 or "unshare" in done.stderr:
        pytest.skip(f"nothing can be mounted here: {done.stderr}")
    assert done.returncode == 0, done.stderr
