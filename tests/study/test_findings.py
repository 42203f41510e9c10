"""What a study holds of what came after its trials, under the names that every version reads."""

from __future__ import annotations

import threading
from dataclasses import asdict
from typing import Any

import optuna
import pytest

from search.results.ablation import Row
from search.storage.open import opened_storage
from search.study.findings import (
    Findings,
    add_looks,
    store_ablation,
    store_confirmation,
    store_retraining,
)
from tests.support.made_studies import confirmation

_LONG = 10**400  # which JSON can hold, and no float


def retraining(trial: int, mean: float = 0.9) -> dict[str, Any]:
    runs = [{"seed": 1, "last_three_mean": mean}]
    return {"trial": trial, "test_accuracy": {"mean": mean, "std": None}, "runs": runs}


def test_a_study_holds_what_came_after_its_trials() -> None:
    study = optuna.create_study()
    assert Findings.read(study) == Findings()

    store_confirmation(study, {"trial": 3})
    store_ablation(study, 3, {"seeds": [], "rows": []})
    for trial in (3, 5, 3):
        add_looks(study, 5, by="retrain", trial=trial)
        store_retraining(study, retraining(trial))

    found = Findings.read(study)
    assert found.ablation(3) == {"seeds": [], "rows": []}
    assert found.ablation(4) is None
    assert found.retraining(3) is found.retrainings[2]
    assert found.retraining(4) is None
    assert found.test_looks == 15
    assert [(look["by"], look["trial"], look["n"]) for look in found.looks] == [
        ("retrain", 3, 5),
        ("retrain", 5, 5),
        ("retrain", 3, 5),
    ]


def test_the_counter_of_an_earlier_version_goes_on() -> None:
    study = optuna.create_study()
    for key, value in (
        ("test_looks", 7),
        ("retrain_000002", retraining(3, 0.1)),
        ("retrain_000007", retraining(3, 0.2)),
    ):
        study.set_user_attr(key, value)
    add_looks(study, 2, by="retrain", trial=3)
    assert Findings.read(study).retraining(3) == retraining(3, 0.2)
    store_retraining(study, retraining(3, 0.3))
    assert Findings.read(study).retraining(3) == retraining(3, 0.3)
    assert Findings.read(study).test_looks == 9


def test_of_retrainings_at_once_no_look_and_no_result_is_lost(database_url: str) -> None:
    with opened_storage(database_url, create=True) as storage:
        optuna.create_study(storage=storage, study_name="seen")
    barrier = threading.Barrier(10)

    def look() -> None:
        with opened_storage(database_url, write=True) as storage:
            study = optuna.load_study(study_name="seen", storage=storage)
            barrier.wait()
            for _ in range(5):
                add_looks(study, 3, by="retrain", trial=1)
                store_retraining(study, retraining(1))

    threads = [threading.Thread(target=look) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with opened_storage(database_url) as storage:
        found = Findings.read(optuna.load_study(study_name="seen", storage=storage))
    assert (found.test_looks, len(found.looks), len(found.retrainings)) == (150, 50, 50)


def _row(**changed: Any) -> dict[str, Any]:
    """A candidate of a race."""
    values = changed.get("values", [0.9, 0.91])
    row = {"trial": 0, "search_value": 0.95, "values": values, "is_out": False}
    return {**row, "parts": [0] * len(values), "seeds": list(range(len(values))), **changed}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("retrain_x", {"trial": 0}),
        ("retrain_x", retraining(0) | {"runs": 3}),
        ("retrain_x", retraining(0, 88.5)),
        ("confirmation", {"trial": 0, "mean": 0.5, "candidates": [{"trial": 0}]}),
        ("confirmation", confirmation(0, {0: (0.9, 0.91)}) | {"mean": 88.5}),
        ("confirmation", confirmation(0, {0: (0.9, 0.91)}) | {"trial": 9}),
        ("confirmation", confirmation(0, {0: (0.9, 0.91)}) | {"n_images": "many"}),
        ("confirmation", confirmation(0, {0: (0.9, 0.91)}) | {"candidates": [_row(seeds=[{}, 1])]}),
        ("confirmation", confirmation(0, {0: (0.9, 0.91)}) | {"candidates": [_row(values=[])]}),
        *(
            ("confirmation", confirmation(0, {0: (0.9, 0.91)}) | {key: _LONG})
            for key in ("mean", "low", "high", "luck", "n_images", "n_seeds")
        ),
        ("retrain_x", retraining(0) | {"runs": [{"last_three_mean": _LONG}]}),
        (
            "ablation_0",
            {"seeds": [1], "rows": [asdict(Row("none", 100, [None])) | {"mean": _LONG}]},
        ),
        ("look_x", {"n": _LONG}),
        ("ablation_0", {"x": 5}),
        ("ablation_0", {"seeds": [1], "rows": [{"change": "none"}]}),
        (
            "ablation_0",
            {"seeds": [1], "rows": [{"change": "x", "parameter_count": 1, "mean": 0.5}]},
        ),
        ("ablation_0", {"seeds": [1], "parts": 5, "rows": []}),
        ("ablation_0", {"seeds": [1], "parts": [{}], "rows": []}),
        ("ablation_0", {"seeds": [1], "parts": "ab", "rows": []}),
    ],
)
def test_what_only_looks_like_a_finding_is_none(key: str, value: Any) -> None:
    study = optuna.create_study()
    study.set_user_attr(key, value)
    assert Findings.read(study) == Findings()


def test_what_commands_store_are_findings() -> None:
    study = optuna.create_study()
    store_confirmation(study, confirmation(0, {0: (1.0, 1.0), 1: (0.9, 0.91)}))
    store_ablation(study, 0, {"seeds": [1], "rows": [asdict(Row("none", 100, [None]))]})
    store_retraining(study, retraining(0))
    found = Findings.read(study)
    assert found.confirmation is not None
    assert found.ablation(0) is not None
    assert found.retraining(0) is not None


def test_a_race_in_which_the_best_of_the_search_came_to_nothing_is_one() -> None:
    study = optuna.create_study()
    told = confirmation(0, {1: (0.9, 0.91)}) | {"luck": None}
    store_confirmation(study, told)
    assert Findings.read(study).confirmation == told
