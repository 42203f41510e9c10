"""A study as the facts that its report tells. Reads only: trains nothing and writes nothing."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from search.data.names import Split
from search.exceptions import StudyError
from search.report.effort import Effort, effort
from search.report.hyperparameter_table import Setting, settings_of
from search.report.importance import Influence, influences
from search.report.outcomes import RaceResult, TestResult, race_result, test_result
from search.space.hyperparameters import Hyperparameters
from search.study import defaults
from search.study.findings import Findings
from search.study.history import network_words, run_records, search_words
from search.study.next_steps import NextSteps, next_steps
from search.study.open import rebuild
from search.study.record import TrialRecord, is_foreign
from search.study.settings import StudySettings
from search.study.summary import (
    Tally,
    accuracy_of,
    by_accuracy,
    chosen_trial,
    front,
    is_trained,
    parameter_count_of,
    tally,
)
from search.study.trials import trials_of
from search.training.metrics import metric_words
from search_models.size import LayerRow

NETWORK_FILE = "network.py"  # beside a report, the user's file that builds the study's networks
SPACE_FILE = "space.toml"  # beside a report, the space of a study that has one of its own
# Accuracies at which an axis of errors may have a mark.
ACCURACY_MARKS = (0.1, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999, 1.0)
_USUAL_N_VALIDATION = 10_000
_NORMAL_QUANTILE = 1.959964  # of the normal distribution, at 97.5 %


@dataclass(frozen=True, slots=True)
class Report:
    """A study's story. Trials are Optuna's; accuracies are shares from 0 to 1.

    Args:
        split: how many images train, validate and test; None for an unknown data set.
        chosen: the trial that the study stands for, the race's winner or else the best; None
            where no trial is complete.
        interval: of the chosen trial's value for so many validation images, at 95 %; None where
            their number is not known.
        recipe: of the chosen trial; None where it cannot be rebuilt.
        race, test: None where there was no race, and no retraining of the chosen trial.
        ablation: the changes of the chosen recipe, as `search.results.ablate` stores them; or
            None.
        failures: why trials failed, and how many did for that reason, the commonest first.
        runs: the study's history, as `search.study.history.run_records` gives it.
        space_text: a space file of what was searched; None where a built-in space's name says it.
        next_steps: what is worth doing with the study as it stands.
        network_words: the option that names the user's file of networks, as `network_words` gives
            it.
    """

    study: str
    settings: StudySettings
    split: Split | None
    trials: list[FrozenTrial]
    tally: Tally
    chosen: FrozenTrial | None
    interval: tuple[float, float] | None
    hyperparameters: Hyperparameters | None
    race: RaceResult | None
    test: TestResult | None
    test_looks: int
    influences: list[Influence]
    ablation: Mapping[str, Any] | None
    effort: Effort
    failures: list[tuple[str, int]]
    runs: list[dict[str, Any]]
    space_text: str | None
    next_steps: NextSteps
    network_words: list[str]

    @property
    def trained(self) -> list[FrozenTrial]:
        return [trial for trial in self.trials if is_trained(trial)]

    @property
    def complete(self) -> list[FrozenTrial]:
        """The complete trials, the best first."""
        return by_accuracy(self.trials)

    @property
    def front(self) -> list[FrozenTrial]:
        """The most accurate trial of each size, the smallest first."""
        return front(self.trials)

    @property
    def least_error(self) -> float:
        """Half a validation image: what an axis of errors shows where there is none."""
        return 0.5 / (self.split.n_validation if self.split else _USUAL_N_VALIDATION)

    @property
    def metric(self) -> str:
        """What the study means by accuracy, in words."""
        return metric_words(self.settings.metric)

    @property
    def has_two_objectives(self) -> bool:
        return "," in self.settings.objective

    @property
    def value(self) -> float | None:
        """What the chosen trial reached in the search."""
        return None if self.chosen is None else accuracy_of(self.chosen)

    @property
    def parameter_count(self) -> int | None:
        """Of the chosen trial's network."""
        return None if self.chosen is None else parameter_count_of(self.chosen)

    @property
    def layers(self) -> Sequence[LayerRow]:
        return () if self.hyperparameters is None else self.hyperparameters.spec.layer_table()

    @property
    def training_seed(self) -> int | None:
        """That of the chosen trial."""
        return None if self.chosen is None else TrialRecord.read(self.chosen).training_seed

    @property
    def weights_name(self) -> str | None:
        """The file of the chosen trial's weights, as trained on the search's own split.

        The name holds all that decides its contents. None where the trial cannot be trained again.
        """
        if self.hyperparameters is None or self.training_seed is None:
            return None
        settings = self.settings
        decides = [settings.data_fingerprint, settings.split_fingerprint, settings.epochs]
        text = json.dumps(
            [*decides, self.training_seed, self.hyperparameters.to_dict()], sort_keys=True
        )
        return f"validated-{hashlib.sha256(text.encode()).hexdigest()[:12]}.safetensors"

    @property
    def began(self) -> datetime | None:
        own = [trial for trial in self.trials if not is_foreign(trial)]
        times = [trial.datetime_start for trial in own if trial.datetime_start]
        return min(times, default=None)

    @property
    def hyperparameter_rows(self) -> list[Setting]:
        """The chosen recipe besides its network."""
        if self.hyperparameters is None:
            return []
        return settings_of(self.hyperparameters, self.settings.search_space().table)

    @property
    def files_beside(self) -> dict[str, str]:
        """The files that belong beside a report, with their text, so that all can be made again."""
        files = {} if self.space_text is None else {SPACE_FILE: self.space_text}
        if self.settings.network is not None:
            files[NETWORK_FILE] = self.settings.network["text"]
        return files

    @property
    def words_of_copy(self) -> list[str]:
        """The option that names the copy of the user's file of networks beside the report."""
        return [] if self.settings.network is None else ["--network", NETWORK_FILE]

    @property
    def run_words(self) -> list[str] | None:
        """The command that searches such a study again, as `search_words` gives it."""
        return search_words(
            self.study,
            self.settings,
            n_trials=max(self.tally.n_trained, 1),
            space=None if self.space_text is None else SPACE_FILE,
            network=self.words_of_copy,
            options=self._run_options,
        )

    @property
    def last_run_words(self) -> list[str] | None:
        """The command that searched the study last, as `search_words` gives it."""
        record = self.runs[-1] if self.runs else {}
        n_trials = int(record.get("n_trials", max(self.tally.n_trained, 1)))
        return search_words(self.study, self.settings, n_trials=n_trials, options=self._run_options)

    @property
    def _run_options(self) -> list[str]:
        record = self.runs[-1] if self.runs else {}
        options: list[str] = []
        for option, default in (
            ("sampler", defaults.SAMPLER),
            ("pruner", defaults.PRUNER),
            ("seed", defaults.SEED),
        ):
            if record.get(option, default) != default:
                options += [f"--{option}", str(record[option])]
        n_workers = max((run.get("n_workers", 0) for run in self.runs), default=0)
        patience, target = record.get("patience"), record.get("target")
        for option, value in (
            ("workers", n_workers or None),  # the last run has fewer where it had few trials left
            ("patience", patience),
            ("target", None if target is None else f"{100 * target:g}"),
        ):
            options += [] if value is None else [f"--{option}", str(value)]
        sources = {_study_of(TrialRecord.read(trial).from_study) for trial in self.trials} - {None}
        for source in sorted(filter(None, sources)):
            options += ["--from-study", source]
        return options


def read_report(study: Study, *, with_influences: bool = True, is_leaving: bool = False) -> Report:
    """The facts of a study.

    Args:
        with_influences: whether to tell what mattered, which takes seconds for 1,000 trials.
        is_leaving: whether this process is about to end its search of the study.

    Raises:
        StudyError: if the study was made by something else than `search run`.
    """
    settings = StudySettings.from_study(study)
    findings, trials = Findings.read(study), trials_of(study)
    split = settings.known_split
    chosen = chosen_trial(study, trials)
    value = None if chosen is None else accuracy_of(chosen)
    interval = None
    if value is not None and split is not None and settings.metric == "accuracy":
        interval = wilson_interval(value, split.n_validation)
    number = None if chosen is None else chosen.number
    space = settings.search_space()
    return Report(
        study=study.study_name,
        settings=settings,
        split=split,
        trials=trials,
        tally=tally(trials),
        chosen=chosen,
        interval=interval,
        hyperparameters=None if chosen is None else _hyperparameters(study, chosen),
        race=race_result(study, trials),
        test=test_result(study, number),
        test_looks=findings.test_looks,
        influences=influences(trials) if with_influences else [],
        ablation=None if number is None else findings.ablation(number),
        effort=effort(trials, settings.epochs),
        failures=_failures(trials),
        runs=run_records(study),
        space_text=None if space.is_built_in else space.text(),
        next_steps=next_steps(study, trials, is_leaving=is_leaving),
        network_words=network_words(study, settings),
    )


def wilson_interval(share: float, n: int) -> tuple[float, float]:
    """The 95 % interval of a share that was found among `n` images.

    Wilson, "Probable Inference, the Law of Succession, and Statistical Inference" (1927), which
    holds close to 100 % as well. It counts what the choice of the images scatters, and not luck.
    """
    z2 = _NORMAL_QUANTILE**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    scatter = math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    half = _NORMAL_QUANTILE * scatter / (1 + z2 / n)
    return centre - half, centre + half


def _hyperparameters(study: Study, trial: FrozenTrial) -> Hyperparameters | None:
    try:
        return rebuild(study, trial)
    except StudyError:
        return None


def _failures(trials: Iterable[FrozenTrial]) -> list[tuple[str, int]]:
    failed = [t for t in trials if t.state == TrialState.FAIL and not is_foreign(t)]
    records = [TrialRecord.read(trial) for trial in failed]
    return Counter(
        record.reason or "no reason was stored" for record in records if not record.is_interrupted
    ).most_common()


def _study_of(origin: str | None) -> str | None:
    """The study's name in NAME/17."""
    return None if origin is None else origin.rpartition("/")[0]
