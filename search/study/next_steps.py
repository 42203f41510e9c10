"""What to do next: the commands that are useful for a study as it stands, and for new weights."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from optuna.study import Study
from optuna.trial import FrozenTrial

from search.study import defaults
from search.study.findings import Findings
from search.study.history import (
    StudyLength,
    is_exhausted,
    length_asked_before,
    network_words,
    search_words,
)
from search.study.length import is_stagnant
from search.study.locks import searching_process
from search.study.settings import StudySettings
from search.study.summary import chosen_trial, confirmed_number, is_all_diverged, tally


@dataclass(frozen=True, slots=True)
class NextStep:
    """A command that is useful now.

    Args:
        words: without the program's name, and without the options that say where the database, the
            data sets and the artifacts are: whoever shows the command knows them.
        purpose: what it is for.
        reads_database, reads_data, reads_artifacts: whether it needs those options.
    """

    words: tuple[str, ...]
    purpose: str
    reads_database: bool = True
    reads_data: bool = False
    reads_artifacts: bool = False

    @property
    def command(self) -> str:
        return self.words[0]


@dataclass(frozen=True, slots=True)
class NextSteps:
    """What is worth doing with a study as it stands.

    Args:
        go_on: its search, where that has not come to its end and does not run; or what helps a
            study all of whose trials diverged.
        searched_by: the process and host that search it now, in words; None where none does.
        with_result: what to do with what it has found, the most useful first; none as long as no
            trial is complete, and nothing that is refused while it is searched.
        search_on: for more trials than were asked for, where it has come to its end and its space
            has more.
    """

    go_on: NextStep | None
    with_result: tuple[NextStep, ...] = ()
    search_on: NextStep | None = None
    searched_by: str | None = None

    def command(self, name: str) -> NextStep | None:
        """The step with the result that is this command; None where there is none."""
        return next((step for step in self.with_result if step.command == name), None)


_OTHER_SPACE = NextStep(
    ("space",), "a space to change, and to search as another study", reads_database=False
)


def first_steps() -> list[NextStep]:
    """What to do where nothing has been searched yet."""
    return [
        NextStep(
            ("run", "--budget", "8000", "--epochs", "15"),
            "search the best network",
            reads_data=True,
        ),
        NextStep(
            ("baseline",),
            "hand-tuned systems and networks found before",
            reads_database=False,
            reads_data=True,
        ),
    ]


def next_steps(
    study: Study, trials: Sequence[FrozenTrial], *, is_leaving: bool = False
) -> NextSteps:
    """What is worth doing with a study as it stands; whoever shows it may leave some out.

    Args:
        trials: all of the study's.
        is_leaving: whether this process is about to end its search.

    Raises:
        StudyError: if the study was made by something else than `search run`.
    """
    settings = StudySettings.from_study(study)
    chosen = chosen_trial(study, trials)
    length = length_asked_before(study) or StudyLength(0)
    counts = tally(trials)
    n_trained = counts.n_trained
    split = settings.known_split
    is_used_up = is_exhausted(study) and not counts.n_waiting
    is_over = (
        is_used_up
        or n_trained >= length.n_trials
        or (split is not None and is_stagnant(length, trials, split.n_validation))
    )
    # Where it was to end by itself, it is to do so again.
    n_wanted = length.n_trials if length.patience is None else None

    # A file may have gone, or changed; without one, the study goes on in the space it was begun in.
    space = None if settings.search_space().is_built_in else defaults.SPACE
    network = network_words(study, settings)

    def search(n_trials: int | None, purpose: str) -> NextStep | None:
        words = search_words(
            study.study_name, settings, n_trials=n_trials, space=space, network=network
        )
        return None if words is None else NextStep(tuple(words), purpose, reads_data=True)

    searched_by = who_searches(study, is_leaving=is_leaving)
    if chosen is None:
        if is_over and (is_used_up or is_all_diverged(trials)):
            goes_on: NextStep | None = _OTHER_SPACE
        else:
            goes_on = search(n_trained + 1 if is_over else n_wanted, "go on with the search")
        return NextSteps(None if searched_by else goes_on, searched_by=searched_by)
    on_study = ("--study", study.study_name)
    has_images = not settings.is_of_tensors  # no command has the tensors of a program
    steps = [NextStep(("show", str(chosen.number), *on_study), "its layers and epochs")]
    if len(study.directions) > 1:  # there is no one best to race for
        front = ("best", "--front", *on_study)
        steps.append(NextStep(front, "the most accurate network of each size"))
    elif has_images and searched_by is None and confirmed_number(study, trials) is None:
        race = ("confirm", *on_study, *network)
        purpose = "race the best trials over fresh seeds"
        steps.append(NextStep(race, purpose, reads_data=True, reads_artifacts=True))
    if has_images and Findings.read(study).retraining(chosen.number) is None:
        steps.append(retrain_step(study.study_name, network=network))
    steps.append(_report_step(study.study_name, "its story on one page"))
    steps.append(NextStep(("dashboard",), "look at all trials in a browser", reads_artifacts=True))
    if searched_by is not None:  # another search of it is refused, or is one more host's
        return NextSteps(None, tuple(steps), searched_by=searched_by)
    if not is_over:
        return NextSteps(search(n_wanted, "go on with the search"), tuple(steps))
    search_on = None if is_used_up else search(2 * n_trained, "search on")
    return NextSteps(None, tuple(steps), search_on)


def who_searches(study: Study, *, is_leaving: bool = False) -> str | None:
    """The process and host that search a study now, in words; None where none does.

    Args:
        is_leaving: whether this process is about to end its search.
    """
    owner = searching_process(study, is_leaving=is_leaving)
    return None if owner is None else f"process {owner.pid} on {owner.host}"


def retrain_step(study: str, trial: int | None = None, *, network: Sequence[str] = ()) -> NextStep:
    """The retraining of a trial; without a number, of the one that the study stands for.

    Args:
        network: the option that names the user's file of networks, where there is one.
    """
    number = () if trial is None else ("--trial", str(trial))
    words = ("retrain", *number, "--study", study, *network)
    return NextStep(words, "train it on all data, test it, keep its weights", reads_data=True)


def steps_with_weights(
    folder: Path, study: str, dataset: str, *, network: Sequence[str] = ()
) -> list[NextStep]:
    """What to do with the weights that `search retrain` has just written.

    Args:
        dataset: the name of the study's data.
        network: the option that names the user's file of networks, where there is one.
    """

    weights = str(folder)
    photograph = ("predict", weights, "photo.jpg", *network)
    has_onnx = all(map(importlib.util.find_spec, ("onnx", "onnxruntime")))
    exported = "network.onnx" if has_onnx or network else "network.py"
    return [
        # It counts its look at the test set there.
        NextStep(
            ("pictures", weights, *network), "how it learnt and where it errs", reads_data=True
        ),
        *(
            [NextStep(photograph, "what a photograph shows", reads_database=False)]
            if dataset != "digits"  # scikit-learn's look otherwise than photographs
            else []
        ),
        NextStep(
            ("export", weights, "--out", exported, *network),
            "take it elsewhere",
            reads_database=False,
            reads_data=True,
        ),
        _report_step(study, "the study's story on one page"),
    ]


def _report_step(study: str, purpose: str) -> NextStep:
    return NextStep(("report", "--study", study), purpose)
