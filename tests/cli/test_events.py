"""What `search run` tells programs, and what it leaves a person with `--quiet`."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from pathlib import Path

from optuna.trial import TrialState

from tests.conftest import DIGITS_RUN, Command

PAGE = Path(__file__).parents[2] / "docs" / "events.md"


def documented() -> dict[str, set[str]]:
    """The keys of each event, from the page."""
    rows = re.findall(r"^\| `(\w+)` \| .*? \| (.*) \|$", PAGE.read_text(), re.M)
    values = {*TrialState.__members__, "null"}
    values |= {"reached", "timed_out", "interrupted", "no_better", "exhausted"}
    keys = {event: set(re.findall(r"`(\w+)`", text)) - values for event, text in rows}
    del keys["event"]  # the heading
    return keys


def test_a_search_prints_each_event_as_the_page_says(command: Command) -> None:
    options = ("--epochs", "2", "--trials", "20", "--json", "--quiet")
    done = command(*DIGITS_RUN, *options)
    assert done.code == 0, done.err
    assert done.err == ""
    events = [json.loads(line) for line in done.out.splitlines()]
    page = documented()
    assert {event["event"] for event in events} == set(page)
    for event in events:
        assert set(event) - {"event"} == page[event["event"]]
    trials = command.study("digits-3000x2").trials
    counts = Counter(event["event"] for event in events)
    assert counts["trial"] == counts["trial_end"] == len(trials) == 20
    values = {e["trial"]: e["value"] for e in events if e["event"] == "trial_end"}
    assert values == {trial.number: trial.value for trial in trials}
    reported = {
        (trial.number, *item) for trial in trials for item in trial.intermediate_values.items()
    }
    epochs = [event for event in events if event["event"] == "epoch"]
    assert {(e["trial"], e["epoch"], e["validation_accuracy"]) for e in epochs} == reported
    (end,) = (event for event in events if event["event"] == "search_end")
    assert (end["outcome"], end["value"]) == ("reached", max(values.values()))


def test_json_beside_what_a_person_reads(command: Command) -> None:
    done = command(*DIGITS_RUN, "--epochs", "1", "--trials", "1", "--json")
    assert done.code == 0
    assert "Best: " in done.err
    assert [json.loads(line)["event"] for line in done.out.splitlines()] == [
        *("search", "trial", "epoch", "trial_end", "search_end", "end")
    ]


def test_the_last_event_says_how_the_command_ended(command: Command) -> None:
    done = command(*DIGITS_RUN, "--sampler", "guess", "--json")
    (end,) = (json.loads(line) for line in done.out.splitlines())
    assert (done.code, end["event"], end["exit_code"]) == (2, "end", 2)
    assert f"Error: {end['error']}" == " ".join(done.err.split())


def test_quiet_leaves_the_best_trial(command: Command) -> None:
    done = command(*DIGITS_RUN, "--epochs", "1", "--trials", "2", "--quiet")
    best = command.study("digits-3000x1").best_trial
    count = best.user_attrs["parameter_count"]
    shown = f"{100 * best.values[0]:.2f} % with {count:,} parameters (trial {best.number})"
    assert (done.code, done.err) == (0, "")
    assert done.out == f"digits-3000x1: {shown}\n"


def test_a_reader_that_leaves_ends_the_search_and_costs_no_trial(command: Command) -> None:
    words = command.words(*DIGITS_RUN, "--epochs", "400", "--study", "long", "--json", "--quiet")
    reader = "import sys; [sys.stdin.readline() for _ in range(6)]"
    script = 'set -o pipefail; "${@:3}" | "$1" -c "$2"'
    done = command.run_words(["bash", "-c", script, "bash", sys.executable, reader, *words])
    assert done.code == 1
    assert "Traceback" not in done.err
    states = {trial.state for trial in command.study("long").trials}
    assert states == {TrialState.FAIL, TrialState.WAITING}
