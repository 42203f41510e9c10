"""What a study holds of what came after its trials: its race, ablations, looks at the test set.

Each is an attribute of the study; no other file knows their names.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from optuna.study import Study

from search.study.stored import is_count, is_number

_CONFIRMATION = "confirmation"
_ABLATION = "ablation_"  # with the number of its trial behind it
_RETRAINING = "retrain_"  # with what sorts by time behind it; once, how many looks there had been
_LOOKS = "test_looks"  # how many there had been by the time that each got an entry of its own
_LOOK = "look_"
_ROUNDING = 1e-9  # of a mean


@dataclass(frozen=True, slots=True)
class Findings:
    """What was found with the trials of a study.

    Args:
        confirmation: the outcome of its race over fresh seeds, as `Confirmation.to_attribute` has
            it; None where there was none.
        ablations: by the number of the trial, as `Ablation.store` has them.
        retrainings: what each gave, as `search.results.retrain` has it, the first one first.
        test_looks: how often the test set was scored: once for each network, a seed of a retraining
            or one of pictures.
        looks: when, by which command, with which trial and how often; not those before each had an
            entry.
    """

    confirmation: Mapping[str, Any] | None = None
    ablations: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    retrainings: Sequence[Mapping[str, Any]] = ()
    test_looks: int = 0
    looks: Sequence[Mapping[str, Any]] = ()

    @classmethod
    def read(cls, study: Study) -> Findings:
        attributes = study.user_attrs
        # Another program may have made attributes that begin alike.
        tables = {key: value for key, value in attributes.items() if isinstance(value, dict)}
        looks = [
            look
            for key, look in sorted(tables.items())
            if key.startswith(_LOOK) and is_count(look.get("n"))
        ]
        retrainings = sorted(
            key
            for key, stored in tables.items()
            if key.startswith(_RETRAINING) and _is_retraining(stored)
        )
        earlier, confirmation = attributes.get(_LOOKS), attributes.get(_CONFIRMATION)
        return cls(
            confirmation=confirmation if _is_confirmation(confirmation) else None,
            ablations={
                key.removeprefix(_ABLATION): rows
                for key, rows in tables.items()
                if key.startswith(_ABLATION) and _is_ablation(rows)
            },
            retrainings=tuple(tables[key] for key in retrainings),
            test_looks=(earlier if is_count(earlier) else 0) + sum(look["n"] for look in looks),
            looks=tuple(looks),
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


def add_looks(study: Study, n_looks: int, *, by: str, trial: int) -> None:
    """Counts looks at the test set, which are about to be taken.

    Each call makes an entry of its own, so that of any number at once none is lost.

    Args:
        by: the command that looks.
        trial: the number of the trial whose network is scored.
    """
    now = _now()
    look = {"created": now, "by": by, "trial": trial, "n": n_looks}
    study.set_user_attr(_key(_LOOK, now), look)


def store_retraining(study: Study, summary: Mapping[str, Any]) -> None:
    """Keeps what a retraining gave, beside all that others give."""
    study.set_user_attr(_key(_RETRAINING, _now()), summary)


def _is_confirmation(stored: Any) -> bool:
    """Whether that is the outcome of a race, of any version, as `Confirmation.to_attribute` is."""
    match stored:
        case {"trial": trial, "mean": mean, "low": low, "high": high, "n_seeds": n_seeds, **more}:
            # The search's best trial may have come to nothing in the race, which tells no luck.
            numbers = [each for each in (low, high, more.get("luck")) if each is not None]
            candidates, n_images = more.get("candidates"), more.get("n_images")
            return (
                is_count(n_seeds)
                and (_is_share(mean) and all(map(is_number, numbers)))
                and is_count(more.get("search_best_trial"))
                and (n_images is None or is_count(n_images, 1))
                and (isinstance(candidates, list) and all(map(_is_candidate, candidates)))
                and trial in [each["trial"] for each in candidates if each["values"]]
            )
    return False


def _is_candidate(stored: Any) -> bool:
    match stored:
        case {"trial": trial, "search_value": value, "values": [*values], "is_out": bool()}:
            return (
                is_count(trial)
                and all(map(_is_share, (value, *values)))
                and all(
                    isinstance(each, list | tuple)
                    and len(each) == len(values)
                    and all(map(is_count, each))
                    for each in (stored[key] for key in ("parts", "seeds") if key in stored)
                )
            )
    return False


def _is_retraining(stored: Mapping[str, Any]) -> bool:
    match stored:
        case {"trial": trial, "test_accuracy": {"mean": mean}, "runs": [_, *_] as runs}:
            values = [run.get("last_three_mean") if isinstance(run, dict) else None for run in runs]
            return is_count(trial) and all(map(_is_share, (mean, *values)))
    return False


def _is_ablation(stored: Mapping[str, Any]) -> bool:
    match stored:
        case {"seeds": [*_], "rows": [*rows], **more}:
            parts = more.get("parts")
            is_of_parts = parts is None or (isinstance(parts, list) and all(map(is_count, parts)))
            return is_of_parts and all(map(_is_row, rows))
    return False


def _is_row(stored: Any) -> bool:
    """Whether that is a line of an ablation, as `search.results.ablation.Row` is."""
    match stored:
        case {
            "change": str(),
            "parameter_count": count,
            "mean": mean,
            "difference": difference,
            "interval": interval,
        }:
            low, high = _pair(interval)
            numbers = (mean, difference, low, high)
            return is_count(count) and all(each is None or is_number(each) for each in numbers)
    return False


def _pair(stored: Any) -> tuple[Any, Any]:
    match stored:
        case None:
            return None, None
        case [low, high]:
            return low, high
    return "", ""  # which are no numbers


def _is_share(value: Any) -> bool:
    return is_number(value) and 0 <= value <= 1 + _ROUNDING


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _key(prefix: str, time: str) -> str:
    """A name that sorts by time, and that nobody else makes at the same moment."""
    return f"{prefix}{time}_{secrets.token_hex(4)}"
