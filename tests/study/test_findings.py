"""What a study holds of what came after its trials, under the names that every version reads."""

from __future__ import annotations

import optuna

from search.study.findings import (
    Findings,
    count_looks,
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
        store_retraining(study, count_looks(study, 5), {"trial": trial})

    assert study.user_attrs == {
        "confirmation": {"trial": 3},
        "ablation_3": {"rows": []},
        "test_looks": 15,
        "retrain_000005": {"trial": 3},
        "retrain_000010": {"trial": 5},
        "retrain_000015": {"trial": 3},
    }
    found = Findings.read(study)
    assert found.ablation(3) == {"rows": []}
    assert found.ablation(4) is None
    assert found.retraining(3) is found.retrainings[2]
    assert found.retraining(4) is None
    assert found.test_looks == 15
