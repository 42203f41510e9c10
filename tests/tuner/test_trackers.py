"""What a search keeps for other programs, read back by those programs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from optuna.trial import TrialState
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from search.training.epochs import EpochResult
from search.tuner.events import TrialEpoch
from search.tuner.trackers import tracking
from tests.conftest import DIGITS_RUN, Command
from tests.support.made_studies import MadeTrial, make_study


def test_tensorboard_reads_each_trial_with_its_curves_and_hyperparameters(command: Command) -> None:
    options = (
        "--trials",
        "3",
        "--pruner",
        "percentile",
        "--no-confirm",
        "--log",
        "tensorboard:log",
    )
    done = command(*DIGITS_RUN, "--epochs", "4", *options)
    assert done.code == 0, done.err
    trials = command.study("digits-3000x4").trials
    folder = command.folder / "log" / "digits-3000x4"
    runs = sorted(folder.iterdir())
    assert [run.name for run in runs] == [f"trial-{trial.number:04}" for trial in trials]
    for trial, run in zip(trials, runs, strict=True):
        events = EventAccumulator(str(run)).Reload()
        accuracies = {event.step: event.value for event in events.Scalars("accuracy/validation")}
        assert accuracies == pytest.approx(trial.intermediate_values)
        for tag in ("accuracy/training", "loss/training", "loss/validation", "learning_rate"):
            assert len(events.Scalars(tag)) == len(accuracies)
        (value,) = events.Scalars("value")
        if trial.state == TrialState.COMPLETE:
            assert value.value == pytest.approx(trial.value)
        metadata = events.summary_metadata["_hparams_/session_start_info"]
        start = HParamsPluginData.FromString(metadata.plugin_data.content).session_start_info
        assert start.hparams["learning_rate"].number_value == trial.params["learning_rate"]
        count = trial.user_attrs["parameter_count"]
        assert start.hparams["parameter_count"].number_value == count
        assert start.hparams["state"].string_value == trial.state.name


def test_curves_are_called_after_the_metric(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    study = make_study(url, "even", [MadeTrial((0.9,) * 3)], metric="balanced-accuracy")
    with tracking(f"tensorboard:{tmp_path / 'log'}", study) as tell:
        tell(TrialEpoch(0, 0, EpochResult(1, 0.9, 0.71, 0.05, 0.8, 0.73, 1.0)))
    events = EventAccumulator(str(tmp_path / "log" / "even" / "trial-0000")).Reload()
    (share,) = events.Scalars("balanced-accuracy/validation")
    assert share.value == pytest.approx(0.73)
    assert "accuracy/validation" not in events.Tags()["scalars"]


@pytest.mark.parametrize("log", ["tensorboard", "tensorboard:", "wandb:project"])
def test_an_unknown_log_is_refused_with_nothing_written(command: Command, log: str) -> None:
    done = command(*DIGITS_RUN, "--log", log)
    assert done.code == 2
    assert "A log must be tensorboard:FOLDER" in done.err
    assert not list(command.folder.iterdir())


def test_a_log_without_its_package_says_what_to_install(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    done = command(*DIGITS_RUN, "--log", "tensorboard:log")
    assert done.code == 2
    assert "pip install '.[tensorboard]'" in done.err
    assert not list(command.folder.iterdir())


@pytest.mark.parametrize("error", ["ImportError('no protobuf')", "TypeError('no descriptors')"])
def test_a_log_whose_package_is_broken_is_refused_before_the_study_is_made(
    command: Command, error: str
) -> None:
    package = command.folder / "broken" / "tensorboard"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(f"raise {error}\n")
    words = [*DIGITS_RUN, "--log", "tensorboard:log"]
    code = (
        "import sys; from search.cli import main; sys.path.insert(0, 'broken')\n"
        "for name in [each for each in sys.modules if 'tensorboard' in each]:\n"
        "    del sys.modules[name]\n"
        f"main({words!r})"
    )
    done = command.fork("-c", code)
    assert done.code == 2, done.err
    said = " ".join(done.err.split())
    kind, _, reason = error[:-1].partition("(")
    assert f"tensorboard cannot be imported here ({kind}: {reason[1:-1]}); install it anew" in said
    assert [path.name for path in command.folder.iterdir()] == ["broken"]


def test_a_log_whose_folder_cannot_be_is_refused_with_nothing_written(command: Command) -> None:
    (command.folder / "log").touch()
    done = command(*DIGITS_RUN, "--log", "tensorboard:log")
    assert done.code == 2
    assert "name another with --log" in " ".join(done.err.split())
    assert [path.name for path in command.folder.iterdir()] == ["log"]
