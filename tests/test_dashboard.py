"""`search dashboard` and the real optuna-dashboard behind it."""

from __future__ import annotations

import json
import os
import signal
import socket
import urllib.request
from typing import Any

from tests.conftest import Command


def read(address: str) -> Any:
    with urllib.request.urlopen(address, timeout=30) as answer:
        return json.load(answer)


def test_it_serves_the_trials_and_stops(finished: Command) -> None:
    process = finished.start("dashboard", "--port", "0")
    assert process.stdout is not None
    line = process.stdout.readline()
    address = line.split()[2]
    assert address.startswith("http://127.0.0.1:")
    (study,) = read(f"{address}api/studies")["study_summaries"]
    assert study["study_name"] == "digits-3000x3"
    trials = read(f"{address}api/studies/{study['study_id']}?after=0")["trials"]
    assert [trial["state"] for trial in trials] == ["Complete"] * 4
    keys = {attribute["key"] for attribute in trials[0]["user_attrs"]}
    assert {"parameter_count", "epochs", "training_seed"} <= keys
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=30) == 0


def test_a_port_that_is_taken_is_refused(finished: Command) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = finished("dashboard", "--port", str(taken.getsockname()[1]))
    assert done.code == 2
    assert "The port must be free" in done.err
