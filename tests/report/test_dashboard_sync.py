"""What optuna-dashboard shows of a study besides its trials: note, graphs, curves and weights."""

from __future__ import annotations

import json
import math
import os
import re
import sqlite3
from contextlib import closing, suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.study import Study
from optuna.trial import FrozenTrial
from optuna_dashboard import get_note, save_note
from PIL import Image
from safetensors.torch import load_file
from sqlalchemy import event

from search.data.load import load_dataset
from search.report.artifact_files import artifact_folder
from search.report.artifacts import N_BEST, StudyArtifacts
from search.report.dashboard_sync import DashboardSync
from search.report.facts import read_report
from search.report.figures import draw_curve
from search.report.graphs import influence_graph, learning_graph, size_graph
from search.space.space import Space
from search.storage.open import opened_storage
from search.study.open import open_study, rebuild
from search.training.weights import Classifier
from search_models.convnet import ConvNet
from search_models.network import in_notation
from search_models.spec import ModelSpec
from tests.conftest import DIGITS_RUN, Command, run_here
from tests.support.artifact_files import entered, lying
from tests.support.made_studies import MadeTrial, add_as_ours, confirmation, make_study

STUDY = "digits-3000x3"
RUN = (*DIGITS_RUN, "--no-confirm", "--workers", "1")


def tell(database: Path, name: str, *, weights: bool = True, folder: Path | None = None) -> None:
    """Tells a study's story as a search does; `weights` stands for what its workers wrote."""
    folder = folder or database.with_name(f"{database.name}-artifacts")
    with opened_storage(f"sqlite:///{database}", write=True) as storage:
        study = open_study(storage, name)
        dashboard_sync = DashboardSync(storage, study, folder)
        if weights and dashboard_sync.weights_path is not None:
            for trial in study.trials:
                dashboard_sync.weights_path(trial.number).write_bytes(b"weights")
        dashboard_sync.update()


def test_the_note_tells_what_is_searched_how_far_it_is_and_what_to_do_next(
    finished: Command,
) -> None:
    study = finished.study(STUDY)
    note = get_note(study)
    command = "search run --dataset digits --budget 3000 --epochs 3 --trials 4 --space standard"
    assert f"{command} --pruner none --seed 1 --workers 2 --study {STUDY}\n" in note
    assert "digits (1,079 images train, 359 validate)" in note
    assert "fewer than 3,000 parameters, 3 epochs" in note
    assert "`standard`, 13 hyperparameters searched" in note
    assert "4 trained, 0 of them stopped early; 0 failed" in note
    best = study.best_trial
    count = best.user_attrs["parameter_count"]
    assert best.value is not None
    assert f"## Best: trial {best.number}\n\n**{100 * best.value:.2f} %**" in note
    assert f"{count:,} parameters." in note
    assert f"| **all** | | **{count:,}** | |" in note
    for layer in in_notation(rebuild(study, best).spec).layers:
        assert f"| `{layer}` |" in note
    for words in (f"show {best.number}", "confirm", "retrain", "report"):
        assert f"\nsearch {words} --study {STUDY}  # " in note


def test_the_note_is_kept_current_and_what_a_person_wrote_stays(finished: Command) -> None:
    study = finished.study(STUDY)
    save_note(study, f"{get_note(study)}\n\nAsk Ada about trial 2.")
    assert finished(*RUN, "--seed", "1", "--trials", "5").code == 0
    note = get_note(study)
    assert "5 trained" in note
    assert "4 trained" not in note
    assert note.endswith("---\n\nAsk Ada about trial 2.")

    save_note(study, "Mine alone.")
    assert finished(*RUN, "--seed", "1", "--trials", "5").code == 0
    note = get_note(study)
    assert note.startswith("Searches the best network")
    assert note.endswith("---\n\nMine alone.")


def test_what_other_programs_wrote_in_the_place_of_a_note_ends_nothing(tmp_path: Path) -> None:
    database = tmp_path / "studies.db"
    study = make_study(f"sqlite:///{database}", "made", [MadeTrial([0.9] * 3)])
    tell(database, "made")
    storage, number = study._storage, study._study_id
    pieces = [key for key in storage.get_study_system_attrs(number) if ":note_str:" in key]
    assert pieces
    names = ("note_ver", "note_str:0", f"note_str:{len(pieces)}", "plot_data:size:0")
    for value in (None, "x", 5, [None], math.nan, "\ud800"):
        for name in (*names, "artifacts:1:x", "artifacts:1:1-1-0"):
            storage.set_study_system_attr(number, f"dashboard:{name}", value)
        tell(database, "made")
        assert get_note(study).startswith("Searches the best network"), value
    storage.set_study_system_attr(number, "dashboard:note_str:x", None)
    tell(database, "made")
    assert storage.get_study_system_attrs(number)["dashboard:note_ver"] > 0


def test_the_note_says_how_sure_the_best_is_once_that_is_known(tmp_path: Path) -> None:
    database = tmp_path / "studies.db"
    values = {0: [0.9, 0.91, 0.92], 1: [0.93, 0.94, 0.95]}
    made = [MadeTrial([0.9, 0.95, 0.96]), MadeTrial([0.9, 0.94, 0.95])]
    attributes = {"confirmation": confirmation(0, values)}
    make_study(f"sqlite:///{database}", "made", made, attributes=attributes)
    tell(database, "made")
    note = get_note(optuna.load_study(study_name="made", storage=f"sqlite:///{database}"))
    assert "## Best: trial 1\n" in note
    assert "Confirmed: **94.00 %** over 3 fresh seeds and 3 parts of the data (95 %: 9" in note
    assert "search confirm" not in note


def test_at_the_end_of_a_search_importance_is_told_of_all_trials(tmp_path: Path) -> None:
    """Which takes a while: in between it waits until there are a fifth more."""
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    rates = [0.02 * 1.05**number for number in range(21)]
    made = [
        MadeTrial([0.8, 0.9, 0.9 + 0.001 * number], values={"learning_rate": rate})
        for number, rate in enumerate(rates)
    ]
    study = make_study(url, "made", made[:20])
    last = make_study(f"sqlite:///{tmp_path / 'other.db'}", "made", made).trials[-1]
    with opened_storage(url, write=True) as storage:
        opened = open_study(storage, "made")
        dashboard_sync = DashboardSync(storage, opened, None)

        def importance() -> dict[str, Any]:
            attributes = study._storage.get_study_system_attrs(study._study_id)
            return {key: attributes[key] for key in attributes if "importance" in key}

        dashboard_sync.update()
        before = importance()
        assert before
        add_as_ours(opened, [last])
        dashboard_sync.update()
        assert importance() == before
        dashboard_sync.update(has_time=True)
        assert importance() != before


def test_a_study_without_a_complete_trial_has_a_note(tmp_path: Path) -> None:
    database = tmp_path / "studies.db"
    make_study(f"sqlite:///{database}", "made", [])
    tell(database, "made")
    note = get_note(optuna.load_study(study_name="made", storage=f"sqlite:///{database}"))
    assert "No trial is complete yet." in note
    assert "## Next\n\n```sh\nsearch run " in note


def test_the_best_trials_have_curves_and_the_weights_that_were_scored(finished: Command) -> None:
    study = finished.study(STUDY)
    names = {shown: name for name, shown in entered(finished.database).items()}
    expected = {f"trial-{n}.{suffix}" for n in range(4) for suffix in ("png", "safetensors")}
    assert set(names) == expected
    assert lying(finished.database) == set(names.values())
    folder = finished.folder / "studies.db-artifacts"
    dataset = load_dataset("digits", finished.folder)
    validation = dataset.development[dataset.info.n_training :]
    for trial in study.trials:
        picture = Image.open(folder / names[f"trial-{trial.number}.png"])
        assert (picture.format, picture.size) == ("PNG", (720, 390))
        # What docs/dashboard.md says of the weights.
        spec = json.loads(finished("show", str(trial.number), "--json").out)["network"]
        network = ConvNet(ModelSpec.parse(spec))
        network.load_state_dict(load_file(folder / names[f"trial-{trial.number}.safetensors"]))
        classifier = Classifier(
            network, dataset.info.normalization, dataset.info.input_shape
        ).eval()
        right = classifier(validation.images).argmax(dim=1) == validation.labels
        last = trial.user_attrs["epochs"][-1]["accuracy"]
        assert float(right.float().mean()) == pytest.approx(last, abs=1 / 359)


def rising(n: int) -> list[MadeTrial]:
    """Trials of which each is better than all before."""
    return [MadeTrial([0.8, 0.9, 0.9 + 0.001 * number]) for number in range(n)]


def trial_numbers(database: Path) -> set[int]:
    """The trials that have artifacts."""
    shown = entered(database).values()
    return {int(name.partition(".")[0].removeprefix("trial-")) for name in shown}


def test_what_falls_out_of_the_best_few_goes_with_its_files(tmp_path: Path) -> None:
    database = tmp_path / "studies.db"
    url = f"sqlite:///{database}"
    make_study(url, "other", rising(1))
    tell(database, "other")
    others = lying(database)
    make_study(url, "made", rising(3))
    tell(database, "made")
    assert trial_numbers(database) == {0, 1, 2}
    space = Space.load("standard", parameter_cap=3000)
    with opened_storage(url, write=True) as storage:
        better = [trial.frozen(space, 3000, 1) for trial in rising(7)[3:]]
        add_as_ours(open_study(storage, "made"), better)
    tell(database, "made")
    assert trial_numbers(database) == {0, 2, 3, 4, 5, 6}  # 0 is the other study's
    assert lying(database) == set(entered(database))
    assert len(lying(database) - others) == 2 * N_BEST


class CrashError(Exception):
    """Stands for the death of a search."""


def test_a_crash_at_any_step_leaves_no_entry_without_its_file(tmp_path: Path) -> None:
    database = tmp_path / "studies.db"
    url = f"sqlite:///{database}"
    folder = tmp_path / "studies.db-artifacts"
    make_study(url, "made", rising(7))
    drawn: list[int] = []

    def die_at_the_third(trial: FrozenTrial) -> bytes:
        drawn.append(trial.number)
        if len(drawn) == 3:
            raise CrashError
        return b"curve"

    with opened_storage(url, write=True) as storage:
        study = open_study(storage, "made")
        artifacts = StudyArtifacts(study, folder)
        for trial in study.trials:
            artifacts.weights_path(trial.number).write_bytes(b"weights")
        with pytest.raises(CrashError):
            artifacts.settle(study.trials, die_at_the_third)
        assert not entered(database)
        half = f".{artifacts.weights_path(8).name}.{0:016x}"  # a worker died, writing
        (folder / half).write_bytes(b"half")

        settlement = artifacts.settle(study.trials, lambda trial: b"curve")
        assert not entered(database), "before its entries are written"
        for key, value in settlement.entries.items():
            study._storage.set_study_system_attr(study._study_id, key, value)
            assert set(entered(database)) < lying(database), "and with some of them"
        assert len(entered(database)) == 2 * N_BEST
        (folder / "ff-1-0").write_bytes(b"of a study that is gone")
        DashboardSync(storage, study, folder).begin(is_alone=True)  # as the next search does
    assert lying(database) == set(entered(database))
    assert len(lying(database)) == 2 * N_BEST


def test_what_a_person_deletes_stays_deleted_and_a_lost_file_loses_its_entry(
    tmp_path: Path,
) -> None:
    database = tmp_path / "studies.db"
    url = f"sqlite:///{database}"
    make_study(url, "made", rising(3))
    tell(database, "made")
    by_shown = {shown: name for name, shown in entered(database).items()}
    folder = tmp_path / "studies.db-artifacts"
    name = by_shown["trial-2.png"]
    study = optuna.load_study(study_name="made", storage=url)
    key = f"dashboard:artifacts:{study.trials[2]._trial_id}:{name}"
    study._storage.set_study_system_attr(study._study_id, key, "null")
    (folder / name).unlink()
    (folder / by_shown["trial-1.safetensors"]).unlink()
    tell(database, "made", weights=False)
    expected = {"trial-0.png", "trial-0.safetensors", "trial-1.png", "trial-2.safetensors"}
    assert set(entered(database).values()) == expected
    assert lying(database) == set(entered(database))


def test_a_search_with_another_folder_loses_no_weights(tmp_path: Path) -> None:
    database = tmp_path / "studies.db"
    make_study(f"sqlite:///{database}", "made", rising(3))
    tell(database, "made")
    before, files = entered(database), lying(database)
    tell(database, "made", weights=False, folder=tmp_path / "empty")
    assert set(entered(database).values()) == {"trial-0.png", "trial-1.png", "trial-2.png"}
    tell(database, "made", weights=False)
    assert entered(database) == before
    assert lying(database) == files


def test_a_deleted_study_takes_its_artifacts_along(finished: Command) -> None:
    url = f"sqlite:///{finished.database}"
    make_study(url, "made", rising(2))
    tell(finished.database, "made")
    own = {name for name in lying(finished.database) if re.search("-1-[0-9]-[01]$", name)}
    assert finished("delete", STUDY, "--yes").code == 0
    assert set(entered(finished.database)) == lying(finished.database)
    assert own
    assert not own & lying(finished.database)


def test_a_copy_has_the_artifacts_that_it_tells_of(finished: Command) -> None:
    lost = next(iter(lying(finished.database)))
    (finished.folder / "studies.db-artifacts" / lost).unlink()
    assert finished("backup", "copy.db").code == 0
    copy = finished.folder / "copy.db"
    assert lying(copy) == set(entered(copy)) == lying(finished.database)
    assert len(lying(copy)) == 7


def test_what_other_programs_have_entered_stays_in_a_copy_of_any_name(finished: Command) -> None:
    study = finished.study(STUDY)
    uploaded = json.dumps({"artifact_id": "a-b", "filename": "mine.png", "mimetype": "image/png"})
    others: dict[str, Any] = {
        "dashboard:artifacts:1:6a2f-uploaded": uploaded,  # by a dashboard with another folder
        "dashboard:artifacts:1:1-99-0": "[",
        "dashboard:artifacts:1:1-99-1": 5,
    }
    for key, value in others.items():
        study._storage.set_study_system_attr(study._study_id, key, value)
    assert finished("backup", "copy 100%25?x.db").code == 0
    copy = finished.folder / "copy 100%25?x.db"
    assert lying(copy) == lying(finished.database)
    with closing(sqlite3.connect(copy)) as connection:
        found = dict(connection.execute("SELECT key, value_json FROM study_system_attributes"))
    assert {key: json.loads(found[key]) for key in others} == others
    tell(finished.database, STUDY, weights=False)  # they end no search either


def test_databases_that_share_a_folder_leave_each_others_files_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "shared"
    urls = [f"sqlite:///{tmp_path / name}" for name in ("one.db", "two.db")]
    for url in urls:
        make_study(url, "made", rising(1))  # Optuna's identifiers are 1 in both
        with opened_storage(url, write=True) as storage:
            dashboard_sync = DashboardSync(
                storage, open_study(storage, "made"), artifact_folder(url, folder)
            )
            assert dashboard_sync.weights_path is not None
            dashboard_sync.weights_path(0).write_bytes(url.encode())
            dashboard_sync.begin(is_alone=True)
    options = ("--artifacts", str(folder), "--storage")
    assert run_here("delete", "made", "--yes", *options, urls[1]) == 0
    assert run_here("backup", str(tmp_path / "copy.db"), *options, urls[0]) == 0
    (copied,) = (tmp_path / "copy.db-artifacts").glob("*-1")
    assert copied.read_bytes() == urls[0].encode()
    assert lying(tmp_path / "copy.db") == set(entered(tmp_path / "one.db"))


def test_the_folder_of_a_servers_database_is_one_for_all_who_log_in(tmp_path: Path) -> None:
    def folder(url: str) -> Path | None:
        return artifact_folder(url, tmp_path)

    own = folder("postgresql+psycopg://ada:secret@db.example:5433/studies")
    assert own == folder("postgresql+psycopg://bob@db.example:5433/studies?sslmode=require")
    assert own != folder("postgresql+psycopg://ada:secret@db.example:5433/more")
    assert own != folder("postgresql+psycopg://ada:secret@other.example:5433/studies")
    assert own is not None
    assert re.fullmatch("studies-[0-9a-f]{12}", own.name)


def test_a_copy_leaves_out_folders_and_says_what_cannot_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    database = tmp_path / "studies.db"
    url = f"sqlite:///{database}"
    make_study(url, "made", rising(1))
    tell(database, "made")
    folder = tmp_path / "studies.db-artifacts"
    (folder / "mine").mkdir()
    assert run_here("backup", str(tmp_path / "copy.db"), "--storage", url) == 0
    assert lying(tmp_path / "copy.db") == set(entered(database))

    (folder / "unreadable").symlink_to("/proc/self/mem")  # not even for root
    assert run_here("backup", str(tmp_path / "second.db"), "--storage", url) == 1
    assert "let files be read and written, but" in " ".join(capsys.readouterr().err.split())


def figures(study: Study) -> dict[str, Any]:
    report = read_report(study)
    graphs = {
        "size": size_graph(report),
        "learning": learning_graph(report),
        "importance": influence_graph(report.influences),
    }
    return {name: json.loads(graph) for name, graph in graphs.items() if graph is not None}


def test_the_graphs_show_every_trial_the_front_and_the_cap(tmp_path: Path) -> None:
    stopped = MadeTrial([0.5, 0.6], optuna.trial.TrialState.PRUNED)
    made = [*rising(3), stopped]
    study = make_study(f"sqlite:///{tmp_path / 'studies.db'}", "made", made, budget=4000)
    found = figures(study)
    assert set(found) == {"size", "learning"}  # four trials say nothing of importance
    dots, front = found["size"]["data"]
    counts = [trial.user_attrs["parameter_count"] for trial in study.trials[:3]]
    assert sorted(dots["x"]) == sorted(counts)
    assert front["customdata"] == [2]  # all are of one size
    assert found["size"]["layout"]["shapes"][0]["x0"] == 4000
    grey, others, best = found["learning"]["data"]
    assert grey["x"] == [1, 2, None]
    assert grey["y"] == [50, 40, None]
    assert others["customdata"] == [0, 0, 0, None, 1, 1, 1, None]
    assert best["y"][:2] == [20, 10]


def test_a_graph_has_the_latest_curves_for_which_there_is_room(tmp_path: Path) -> None:
    made = [MadeTrial([0.5 + 0.01 * number] * 2000) for number in range(11)]
    study = make_study(f"sqlite:///{tmp_path / 'studies.db'}", "made", made, epochs=2000)
    ended, best = figures(study)["learning"]["data"]
    assert ended["name"] == "10 to the end (the latest 9)"
    assert set(ended["customdata"]) == {None, *range(1, 10)}
    assert set(best["customdata"]) == {None, 10}


def test_a_study_of_balanced_accuracy_is_told_in_its_own_words(tmp_path: Path) -> None:
    database = tmp_path / "studies.db"
    url = f"sqlite:///{database}"
    seen = {"trial": 1, "test_accuracy": {"mean": 0.93}, "runs": [{"last_three_mean": 0.93}]}
    study = make_study(
        url, "made", rising(2), metric="balanced-accuracy", attributes={"retrain_1": seen}
    )
    tell(database, "made")
    note = get_note(study)
    assert "**86.70 %** balanced accuracy on the validation images" in note
    assert "**93.00 %** balanced accuracy on the test images" in note
    assert "images right" not in note
    for name, graph in figures(study).items():
        assert "% wrong" not in json.dumps(graph), name
    assert figures(study)["size"]["layout"]["title"]["text"] == "Balanced accuracy against size"
    plain = make_study(f"sqlite:///{tmp_path / 'plain.db'}", "made", rising(2))
    curves = [draw_curve(read_report(each), each.trials[0]) for each in (plain, study)]
    assert curves[0] != curves[1]


def test_a_study_of_tensors_is_told_of_no_command_that_lacks_its_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    database = tmp_path / "studies.db"
    url = f"sqlite:///{database}"
    made = rising(1)
    study = make_study(url, "made", made, dataset="tensors:channels")
    tell(database, "made")
    note = get_note(study)
    assert "Searches the best network, in Python, with `run_search`." in note
    assert "search report --study made" in note
    assert run_here("report", "--storage", url, "--out", str(tmp_path / "out")) == 0
    monkeypatch.setenv("SEARCH_STORAGE", url)
    assert run_here() == 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert "In Python, with <code>run_search</code>" in page
    out = capsys.readouterr().out
    assert "search report" in out
    for told in (note, re.sub("<.*?>", "", page), out):
        assert not re.search(r"search (run|confirm|retrain) |report --train", told)


def test_a_story_is_written_whole_or_not_at_all(database_url: str, tmp_path: Path) -> None:
    make_study(database_url, "made", rising(3))
    with opened_storage(database_url, write=True) as storage:
        study = open_study(storage, "made")
        with suppress(CrashError), storage.batch_study_attributes():
            save_note(study, "half " * 1000)
            assert get_note(study) != ""
            raise CrashError
        assert get_note(study) == ""
        DashboardSync(storage, study, None).update()
        note = get_note(study)
        assert "## Best: trial 2" in note
        keys = study._storage.get_study_system_attrs(study._study_id)
        assert not [key for key in keys if key.startswith("dashboard:artifacts:")]
        with storage.batch_study_attributes():
            save_note(study, "short")
            assert get_note(study) == "short"
        assert get_note(study) == "short"


def test_what_another_writes_in_between_stays_and_the_story_is_told_again(tmp_path: Path) -> None:
    database = tmp_path / "studies.db"
    url = f"sqlite:///{database}"
    make_study(url, "made", rising(N_BEST + 1))
    person = optuna.load_study(study_name="made", storage=url)
    folder = tmp_path / "studies.db-artifacts"
    n_conflicts = 0

    with opened_storage(url, write=True) as storage:
        dashboard_sync = DashboardSync(storage, open_study(storage, "made"), folder)
        assert dashboard_sync.weights_path is not None
        outdated = dashboard_sync.weights_path(0)
        outdated.write_bytes(b"weights")

        @event.listens_for(storage.engine, "before_cursor_execute")
        def write_as_well(_connection: object, _cursor: object, statement: str, *_: object) -> None:
            nonlocal n_conflicts
            if statement.startswith("INSERT INTO study_system_attributes") and not n_conflicts:
                n_conflicts += 1
                save_note(person, "Mine.")  # has the same key: SQLite lets one insert it
                assert outdated.exists()

        dashboard_sync.update()
    assert n_conflicts == 1
    note = get_note(person)
    assert note.startswith("Searches the best network")
    assert note.endswith("Mine.")
    assert lying(database) == set(entered(database))
    assert len(entered(database)) == N_BEST


def test_no_file_is_deleted_while_the_database_refuses_the_story(tmp_path: Path) -> None:
    database = tmp_path / "studies.db"
    url = f"sqlite:///{database}"
    make_study(url, "made", rising(N_BEST))
    tell(database, "made")
    before, files = entered(database), lying(database)
    space = Space.load("standard", parameter_cap=3000)
    with opened_storage(url, write=True) as storage:
        better = rising(N_BEST + 1)[-1].frozen(space, 3000, 1)
        add_as_ours(open_study(storage, "made"), [better])
        with storage.engine.begin() as connection:
            connection.exec_driver_sql(
                "CREATE TRIGGER refuse BEFORE INSERT ON study_system_attributes "
                "BEGIN SELECT RAISE(ABORT, 'another was quicker'); END"
            )
    tell(database, "made")
    assert entered(database) == before
    assert files < lying(database)
    with opened_storage(url, write=True) as storage, storage.engine.begin() as connection:
        connection.exec_driver_sql("DROP TRIGGER refuse")
    tell(database, "made")
    assert trial_numbers(database) == {1, 2, 3, 4, 5}
    assert lying(database) == set(entered(database))


def test_a_server_keeps_artifacts_where_it_is_told_to(
    database_url: str, command: Command, tmp_path: Path
) -> None:
    folder = tmp_path / "shared"
    options = ("--storage", database_url, "--artifacts", str(folder), "--trials", "1")
    done = command(*RUN, *options)
    assert done.code == 0, done.err
    (own,) = folder.iterdir()
    assert len(list(own.iterdir())) == 2
    picture = next(path for path in own.iterdir() if path.name.endswith("-0"))
    assert Image.open(BytesIO(picture.read_bytes())).format == "PNG"
    died = own / ".1-1-1.4711"  # half-written by a host that has long been gone
    died.touch()
    os.utime(died, (0, 0))
    writing = own / ".1-2-1.4711"
    writing.touch()
    deleted = command("delete", STUDY, "--yes", *options[:4])
    assert deleted.code == 0, deleted.err
    assert set(own.iterdir()) == {died, writing}
    with opened_storage(database_url, write=True) as storage:
        again = make_study(database_url, "made", rising(1))
        DashboardSync(storage, open_study(storage, again.study_name), own).begin(is_alone=False)
    assert not died.exists()
    assert writing.exists()
