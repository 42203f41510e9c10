"""Curves and weights of studies that are copied, renamed, restored under other identifiers."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.study import Study

from search.report.artifact_files import WEIGHTS, ArtifactName
from search.report.artifacts import N_BEST
from search.report.dashboard_sync import DashboardSync
from search.space.space import Space
from search.storage.open import opened_storage
from search.study.open import open_study
from tests.conftest import Command
from tests.support.artifact_files import entered, lying
from tests.support.made_studies import MadeTrial, add_as_ours, make_study
from tests.support.servers import call

VERSION_0_1_0 = Path(__file__).parents[1] / "support" / "version-0.1.0" / "studies.db"
BEST = [1, 2, 3, 4, 5]  # of the trials of `source`


def rising(n: int) -> list[MadeTrial]:
    """Trials of which each is better than all before."""
    return [MadeTrial([0.8, 0.9, 0.9 + 0.001 * number]) for number in range(n)]


def folder_of(database: Path) -> Path:
    return database.with_name(f"{database.name}-artifacts")


def begin(database: Path, name: str, *, trained: int | None = None) -> None:
    """What a search does as it begins; before that, one has trained the trials from `trained` on.

    Their weights are the name of the study and their number.
    """
    with opened_storage(f"sqlite:///{database}", write=True) as storage:
        study = open_study(storage, name)
        dashboard_sync = DashboardSync(storage, study, folder_of(database))
        assert dashboard_sync.weights_path is not None
        for trial in study.trials[len(study.trials) if trained is None else trained :]:
            weights = f"{name} {trial.number}".encode()
            dashboard_sync.weights_path(trial.number).write_bytes(weights)
        dashboard_sync.begin(is_alone=True)


def opened(database: Path, name: str) -> Study:
    return optuna.load_study(study_name=name, storage=f"sqlite:///{database}")


def weights_of(database: Path, name: str) -> dict[int, str]:
    """The weights that optuna-dashboard shows with each trial of a study; each has its curve."""
    study = opened(database, name)
    attributes = study._storage.get_study_system_attrs(study._study_id)
    found = {}
    for trial in study.trials:
        of_trial = [
            json.loads(value)
            for key, value in attributes.items()
            if key.startswith(f"dashboard:artifacts:{trial._trial_id}:")
        ]
        shown = {entry["filename"]: entry["artifact_id"] for entry in filter(None, of_trial)}
        if shown:
            curve = folder_of(database) / shown.pop(f"trial-{trial.number}.png")
            assert curve.read_bytes().startswith(b"\x89PNG")
        for file in shown.values():
            found[trial.number] = (folder_of(database) / file).read_text()
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a database whose study `source` has the artifacts of its best trials."""
    database = tmp_path_factory.mktemp("made") / "studies.db"
    # So that identifiers of trials are no numbers.
    make_study(f"sqlite:///{database}", "before", rising(1))
    make_study(f"sqlite:///{database}", "source", rising(N_BEST + 1))
    begin(database, "source", trained=0)
    assert weights_of(database, "source") == of_source(BEST)
    return database.parent


@pytest.fixture
def source(made: Path, tmp_path: Path) -> Path:
    """A copy of that database, and of its artifacts."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path / "studies.db"


def of_source(numbers: list[int]) -> dict[int, str]:
    return {number: f"source {number}" for number in numbers}


def copy(database: Path, to: Path, name: str = "copy") -> None:
    """A copy of `source` as Optuna makes it."""
    optuna.copy_study(
        from_study_name="source",
        from_storage=f"sqlite:///{database}",
        to_storage=f"sqlite:///{to}",
        to_study_name=name,
    )


def test_a_copy_has_the_artifacts_of_its_trials_and_keeps_them(source: Path) -> None:
    copy(source, source)
    begin(source, "before")  # another study's search leaves them alone
    begin(source, "copy")
    assert weights_of(source, "copy") == weights_of(source, "source") == of_source(BEST)
    assert lying(source) == set(entered(source))

    # Each goes its own way, on trials of the same numbers.
    space = Space.load("standard", parameter_cap=3000)
    for name, accuracy in (("copy", 0.98), ("source", 0.97)):
        better = MadeTrial([0.9, 0.9, accuracy]).frozen(space, 3000, 1)
        add_as_ours(opened(source, name), [better])
        begin(source, name, trained=6)
        assert weights_of(source, name) == of_source(BEST[1:]) | {6: f"{name} 6"}
    assert lying(source) == set(entered(source))


def test_a_copy_of_a_study_that_went_another_way_takes_only_what_is_its_own(source: Path) -> None:
    copy(source, source)
    space = Space.load("standard", parameter_cap=3000)
    for name, accuracy in (("source", 0.97), ("copy", 0.98)):
        better = MadeTrial([0.9, 0.9, accuracy]).frozen(space, 3000, 1)
        add_as_ours(opened(source, name), [better])
    begin(source, "source", trained=6)  # trial 1 is no longer one of its best five
    begin(source, "copy")
    assert weights_of(source, "copy") == of_source(BEST[1:])
    begin(source, "source")
    assert lying(source) == set(entered(source))


def test_a_file_stays_as_long_as_a_copy_has_yet_to_take_it(source: Path) -> None:
    for name in ("first", "second"):
        copy(source, source, name)
    space = Space.load("standard", parameter_cap=3000)
    better = MadeTrial([0.9, 0.9, 0.97]).frozen(space, 3000, 1)
    for name in ("source", "first"):  # of which trial 1 is no longer one of the best five
        add_as_ours(opened(source, name), [better])
        begin(source, name, trained=6)
    optuna.delete_study(study_name="source", storage=f"sqlite:///{source}")
    begin(source, "first")
    begin(source, "second")
    assert weights_of(source, "first") == of_source(BEST[1:]) | {6: "first 6"}
    assert weights_of(source, "second") == of_source(BEST)
    begin(source, "first")
    assert lying(source) == set(entered(source))


def delete_by_command(command: Command) -> None:
    assert command("delete", "source", "--yes").code == 0


def delete_by_optuna(command: Command) -> None:
    optuna.delete_study(study_name="source", storage=f"sqlite:///{command.database}")


def in_dashboard(command: Command, act: Callable[[str], object], *, study_id: int = 2) -> None:
    process = command.start("dashboard", "--port", "0")
    act(f"{process.stdout.readline().split()[2]}api/studies/{study_id}")
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait() == 0


def delete_in_dashboard(command: Command) -> None:
    in_dashboard(command, lambda address: call(address, {}, method="DELETE"))


@pytest.mark.parametrize("delete", [delete_by_command, delete_by_optuna, delete_in_dashboard])
def test_a_copy_has_its_artifacts_though_what_it_is_copied_from_is_gone(
    source: Path, command: Command, delete: Callable[[Command], None]
) -> None:
    copy(source, source)
    delete(command)
    begin(source, "before")
    begin(source, "copy")
    assert weights_of(source, "copy") == of_source(BEST)
    assert lying(source) == set(entered(source)), "and nothing else is left"


def test_a_study_that_is_renamed_in_the_dashboard_keeps_its_artifacts(
    source: Path, command: Command
) -> None:
    in_dashboard(command, lambda address: call(f"{address}/rename", {"study_name": "renamed"}))
    begin(source, "before")
    begin(source, "renamed")
    assert weights_of(source, "renamed") == of_source(BEST)
    assert lying(source) == set(entered(source))
    assert command("delete", "renamed", "--yes").code == 0
    assert {ArtifactName.parse(name).study_id for name in lying(source)} == {1}  # type: ignore[union-attr]


def test_a_study_of_version_0_1_0_that_is_renamed_in_the_dashboard_keeps_its_weights(
    command: Command,
) -> None:
    shutil.copy(VERSION_0_1_0, command.database)
    files = folder_of(command.database)
    files.mkdir()
    shown = entered(command.database)
    for name, of_trial in shown.items():
        is_curve = of_trial.endswith(".png")
        (files / name).write_bytes(b"\x89PNG" if is_curve else of_trial.encode())
    before = weights_of(command.database, "finished")
    assert len(before) == N_BEST

    in_dashboard(
        command, lambda address: call(f"{address}/rename", {"study_name": "renamed"}), study_id=1
    )
    assert weights_of(command.database, "renamed") == before  # at once
    begin(command.database, "interrupted")
    begin(command.database, "renamed")
    assert weights_of(command.database, "renamed") == before
    assert lying(command.database) == set(entered(command.database))


def test_a_study_that_is_renamed_and_deleted_leaves_no_files(
    source: Path, command: Command
) -> None:
    in_dashboard(command, lambda address: call(f"{address}/rename", {"study_name": "renamed"}))
    begin(source, "before")
    assert command("delete", "renamed", "--yes").code == 0
    assert lying(source) == set(entered(source))
    assert {ArtifactName.parse(name).study_id for name in lying(source)} == {1}  # type: ignore[union-attr]


@pytest.mark.parametrize("is_moved", [True, False])
def test_a_copy_in_another_database_takes_what_its_folder_has(
    source: Path, tmp_path: Path, is_moved: bool
) -> None:
    """Studies get other identifiers there: those of files may be others' by then."""
    other = tmp_path / "restored.db"
    copy(source, other, "source")
    make_study(f"sqlite:///{other}", "second", rising(3))
    if is_moved:
        shutil.copytree(folder_of(source), folder_of(other))
    begin(other, "second")
    begin(other, "source")
    assert weights_of(other, "source") == (of_source(BEST) if is_moved else {})
    assert weights_of(other, "second") == {}
    assert len(entered(other)) == (13 if is_moved else 8)  # curves are drawn anew
    assert lying(other) == set(entered(other))


def test_files_of_a_database_that_was_there_before_are_no_artifacts_of_another_and_stay(
    source: Path,
) -> None:
    """They have the identifiers of studies and numbers of trials that the new one has as well."""
    moved = source.rename(source.with_name("january.db"))
    before = lying(source)
    for name in ("before", "source"):
        make_study(f"sqlite:///{source}", name, rising(N_BEST + 1))
    begin(source, "source")
    assert weights_of(source, "source") == {}
    assert lying(source) == before | set(entered(source))
    moved.replace(source)  # and back again
    begin(source, "source")
    assert weights_of(source, "source") == of_source(BEST)


def test_what_a_person_deleted_is_deleted_in_a_copy(source: Path) -> None:
    study = opened(source, "source")
    for key, value in study._storage.get_study_system_attrs(study._study_id).items():
        entry = json.loads(value) if key.startswith("dashboard:artifacts:") else {}
        if entry.get("filename") == "trial-5.png":
            study._storage.set_study_system_attr(study._study_id, key, "null")
            (folder_of(source) / entry["artifact_id"]).unlink()
    copy(source, source)
    begin(source, "copy")
    shown = list(entered(source).values())
    assert shown.count("trial-5.png") == 0
    assert shown.count("trial-5.safetensors") == shown.count("trial-4.png") == 2


def test_artifacts_of_an_earlier_version_are_kept_and_found_by_a_copy(source: Path) -> None:
    """It named files by Optuna's identifiers alone, and gave studies no identity."""
    study = opened(source, "source")
    numbers = {trial.number: trial._trial_id for trial in study.trials}
    attributes = study._storage.get_study_system_attrs(study._study_id)
    before = {key: value for key, value in attributes.items() if "artifacts" in key}
    with opened_storage(f"sqlite:///{source}", write=True) as storage:
        for key, value in before.items():
            entry = json.loads(value)
            name = ArtifactName.parse(entry["artifact_id"])
            assert name is not None
            old = str(ArtifactName(None, name.study_id, numbers[name.trial], name.kind))
            (folder_of(source) / entry["artifact_id"]).rename(folder_of(source) / old)
            with storage.engine.begin() as connection:
                connection.exec_driver_sql(
                    'UPDATE study_system_attributes SET "key" = ?, value_json = ? WHERE "key" = ?',
                    (
                        f"dashboard:artifacts:{numbers[name.trial]}:{old}",
                        json.dumps(json.dumps({**entry, "artifact_id": old})),
                        key,
                    ),
                )
                if name.kind == WEIGHTS and name.trial == 1:  # its search died before it said so
                    connection.exec_driver_sql(
                        'DELETE FROM study_system_attributes WHERE "key" LIKE ?', (f"%:{old}",)
                    )
    copy(source, source)
    begin(source, "copy")
    begin(source, "source")
    assert weights_of(source, "source") == of_source(BEST)
    assert weights_of(source, "copy") == of_source(BEST[1:])  # what it is told of
    assert lying(source) == set(entered(source))
