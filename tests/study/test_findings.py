"""What a study holds of what came after its trials, under the names that every version reads."""

from __future__ import annotations

import threading

import optuna

from search.storage.open import opened_storage
from search.study.findings import (
    Findings,
    add_looks,
    store_ablation,
    store_confirmation,
    store_retraining,
)


def test_a_study_holds_what_came_after_its_trials() -> None:
    study = optuna.create_study()
    assert Findings.read(study) == Findings()

    store_confirmation(study, {"trial": 3})
    store_ablation(study, 3, {"rows": []})
    for trial in (3, 5, 3):
        add_looks(study, 5, by="retrain", trial=trial)
        store_retraining(study, {"trial": trial})

    found = Findings.read(study)
    assert found.ablation(3) == {"rows": []}
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
        ("retrain_000002", {"trial": 3, "n": 1}),
        ("retrain_000007", {"trial": 3, "n": 2}),
    ):
        study.set_user_attr(key, value)
    add_looks(study, 2, by="retrain", trial=3)
    assert Findings.read(study).retraining(3) == {"trial": 3, "n": 2}
    store_retraining(study, {"trial": 3, "n": 3})
    assert Findings.read(study).retraining(3) == {"trial": 3, "n": 3}
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
                store_retraining(study, {"trial": 1})

    threads = [threading.Thread(target=look) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with opened_storage(database_url) as storage:
        found = Findings.read(optuna.load_study(study_name="seen", storage=storage))
    assert (found.test_looks, len(found.looks), len(found.retrainings)) == (150, 50, 50)
