"""What a study holds of what came after its trials: its race, ablations, looks at the test set.

Each is an attribute of the study; no other file knows their names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from optuna.study import Study

_CONFIRMATION = "confirmation"
_ABLATION = "ablation_"  # with the number of its trial behind it
_RETRAINING = "retrain_"  # with the looks at the test set behind it, in digits that sort
_LOOKS = "test_looks"


@dataclass(frozen=True, slots=True)
class Findings:
    """What was found with the trials of a study.

    Args:
        confirmation: the outcome of its race over fresh seeds, as `Confirmation.to_attribute` has
            it; None where there was none.
        ablations: by the number of the trial, as `Ablation.store` has them.
        retrainings: what each gave, as `search.results.retrain` has it, the first one first.
        test_looks: how often the test set was scored: once for each seed that was retrained.
    """

    confirmation: Mapping[str, Any] | None = None
    ablations: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    retrainings: Sequence[Mapping[str, Any]] = ()
    test_looks: int = 0

    @classmethod
    def read(cls, study: Study) -> Findings:
        attributes = study.user_attrs
        retrainings = sorted(key for key in attributes if key.startswith(_RETRAINING))
        return cls(
            confirmation=attributes.get(_CONFIRMATION),
            ablations={
                key.removeprefix(_ABLATION): rows
                for key, rows in attributes.items()
                if key.startswith(_ABLATION)
            },
            retrainings=tuple(attributes[key] for key in retrainings),
            test_looks=attributes.get(_LOOKS, 0),
        )

    def retraining(self, number: int) -> Mapping[str, Any] | None:
        """What the last retraining of a trial gave; None where there was none."""
        of_trial = [each for each in self.retrainings if each["trial"] == number]
        return of_trial[-1] if of_trial else None

    def ablation(self, number: int) -> Mapping[str, Any] | None:
        """The changes of a trial's recipe and what they made of it; None where there are none."""
        return self.ablations.get(str(number))


def store_confirmation(study: Study, confirmation: Mapping[str, Any]) -> None:
    """Keeps the outcome of a race in place of that of an earlier one."""
    study.set_user_attr(_CONFIRMATION, confirmation)


def store_ablation(study: Study, number: int, rows: Mapping[str, Any]) -> None:
    """Keeps the ablation of a trial in place of an earlier one."""
    study.set_user_attr(f"{_ABLATION}{number}", rows)


def count_looks(study: Study, n_looks: int) -> int:
    """Counts looks at the test set; returns how many there have been with these."""
    looks = Findings.read(study).test_looks + n_looks
    study.set_user_attr(_LOOKS, looks)
    return looks


def store_retraining(study: Study, looks: int, summary: Mapping[str, Any]) -> None:
    """Keeps what a retraining gave, under the looks that there had been when it began."""
    study.set_user_attr(f"{_RETRAINING}{looks:06d}", summary)
