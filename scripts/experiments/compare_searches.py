"""Real searches on MNIST, ours and Optuna as its users write it, in turn, on the same training.

    python -m scripts.experiments.compare_searches --data-dir DIR --folder FOLDER
    python -m scripts.experiments.compare_searches --data-dir DIR --folder FOLDER --picture PNG

The other way is `reference` of `policies.py`: an objective that draws widths directly, raises a
network over the cap as pruned, trains, reports each epoch and asks whether to stop, with Optuna's
own TPE and median pruner, optimised by two processes on one SQLite file. Ours is `search run` with
its defaults, two workers, and no confirmation. Both train with the same compiled step, and the same
number of trained trials is looked at. A trial's value is its validation accuracy, the mean of the
last three epochs. FOLDER keeps each search; one that is whole is not run again, one that is not is
begun anew.
"""

from __future__ import annotations

import argparse
import multiprocessing
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import optuna
import torch
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from scripts.experiments.policies import REFERENCE, make_policy
from scripts.experiments.record_curves import CAP, EPOCHS
from scripts.experiments.replay_pictures import pyplot
from search.data.load import load_dataset
from search.report.palette import RIGHT, WRONG
from search.study.record import TrialRecord
from search.training.epochs import last_epochs_mean
from search.training.train import train

N_PROCESSES = 2
ENDED = (TrialState.COMPLETE, TrialState.PRUNED)


# --- The two ways ---


@dataclass(frozen=True)
class Task:
    """One search."""

    way: str
    seed: int
    n_trials: int
    data_dir: Path
    folder: Path

    @property
    def study_name(self) -> str:
        return f"{self.way}-{self.seed}"

    @property
    def path(self) -> Path:
        return self.folder / f"{self.study_name}.db"

    @property
    def url(self) -> str:
        return f"sqlite:///{self.path}"


def run_reference(task: Task) -> None:
    """Each process asks for trials of its own, as `study.optimize` does in each that is started."""
    optuna.create_study(storage=task.url, study_name=task.study_name, direction="maximize")
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_optimize, args=(task, i)) for i in range(N_PROCESSES)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        sys.exit(f"A process of {task.study_name} failed.")


def _optimize(task: Task, place: int) -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    dataset = load_dataset("mnist", task.data_dir)
    policy = make_policy(REFERENCE)
    n_training = dataset.info.n_training

    def objective(trial: Trial) -> float:
        recipe = policy.space.suggest(trial)
        if recipe.spec.parameter_count >= CAP:
            raise optuna.TrialPruned
        results = []
        for result in train(
            recipe,
            dataset.development[:n_training],
            dataset.development[n_training:],
            dataset.info.normalization,
            epochs=EPOCHS,
            seed=trial.number,
            device="cpu",
        ):
            results.append(result)
            record = TrialRecord(seconds=sum(result.seconds for result in results))
            record.write(trial.study, trial._trial_id)
            trial.report(result.accuracy, step=result.epoch)
            if result.epoch < EPOCHS and (trial.should_prune() or not result.is_finite):
                raise optuna.TrialPruned
        return last_epochs_mean(results)

    def stop_when_enough(study: Study, trial: FrozenTrial) -> None:
        if len(trained(study)) >= task.n_trials:
            study.stop()

    study = optuna.load_study(
        study_name=task.study_name,
        storage=task.url,
        sampler=policy.sampler(task.seed + 1000 * place),
        pruner=policy.pruner(),
    )
    study.optimize(objective, callbacks=[stop_when_enough])


def run_ours(task: Task) -> None:
    command = [sys.executable, "-m", "search", "run", "--budget", str(CAP), "--epochs", str(EPOCHS)]
    command += ["--space", "standard"]
    command += ["--trials", str(task.n_trials), "--seed", str(task.seed), "--no-confirm"]
    command += ["--workers", str(N_PROCESSES)]
    command += ["--dataset", "mnist", "--data-dir", str(task.data_dir)]
    command += ["--storage", task.url, "--study", task.study_name]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


WAYS = {"reference": run_reference, "search": run_ours}


# --- What they found ---


def trained(study: Study) -> list[FrozenTrial]:
    """The trials that trained, in the order in which they ended; without those over the cap."""
    trials = study.get_trials(deepcopy=False, states=ENDED)
    return sorted(
        (trial for trial in trials if TrialRecord.read(trial).seconds is not None),
        key=lambda trial: (trial.datetime_complete is None, trial.datetime_complete),
    )


@dataclass(frozen=True)
class Course:
    """The best value so far, and the training seconds (of both workers) until then.

    One entry for each trained trial that was not pruned.
    """

    spent: list[float]
    best: list[float]
    total: float
    n_trained: int

    @classmethod
    def of(cls, study: Study, n_trials: int) -> Course:
        """The course of the first trained trials; two processes may have ended with one more."""
        spent: list[float] = []
        best: list[float] = []
        total = 0.0
        trials = trained(study)[:n_trials]
        for trial in trials:
            total += TrialRecord.read(trial).seconds or 0.0
            if trial.state is TrialState.COMPLETE:
                spent.append(total)
                best.append(max([*best[-1:], trial.values[0]]))
        return cls(spent, best, total, len(trials))

    def seconds_to(self, value: float) -> float | None:
        pairs = zip(self.spent, self.best, strict=True)
        return next((spent for spent, best in pairs if best >= value), None)


def markdown(courses: dict[Task, Course]) -> str:
    """A row a search, in the order of running. Values are percent."""
    references = [course for task, course in courses.items() if task.way == REFERENCE]
    target = median(course.best[-1] for course in references)
    target_seconds = median(course.total for course in references)
    lines = [
        "| search | trained | seconds | best value, % | seconds to the reference's median best |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for task, course in courses.items():
        until = course.seconds_to(target)
        share = "never" if until is None else f"{until:,.0f} ({until / target_seconds:.2f})"
        lines.append(
            f"| {task.study_name} | {course.n_trained} | {course.total:,.0f} "
            f"| {100 * course.best[-1]:.3f} | {share} |"
        )
    lines += [
        "",
        f"The reference's median: {100 * target:.3f} % after {target_seconds:,.0f} seconds; "
        "in brackets the share of these seconds.",
    ]
    return "\n".join(lines)


def draw(path: Path, courses: dict[Task, Course]) -> None:
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(9, 5))
    for way, colour in (("reference", WRONG), ("search", RIGHT)):  # as replays draw them
        own = [course for task, course in courses.items() if task.way == way]
        for course in own:
            axes.step(
                [*course.spent, course.total],
                [100 * value for value in (*course.best, course.best[-1])],
                where="post",
                color=colour,
                alpha=0.8,
                label=way if course is own[0] else None,
            )
    axes.set(xlabel="training seconds", ylabel="best validation accuracy so far, %")
    axes.set_ylim(bottom=98.5)
    axes.legend()
    figure.savefig(path, dpi=120, bbox_inches="tight")
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--searches", type=int, default=5, help="of each way")
    parser.add_argument("--trials", type=int, default=20, help="trained trials of each search")
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    tasks = [
        Task(way, seed, options.trials, options.data_dir.resolve(), options.folder.resolve())
        for seed in range(options.searches)
        for way in options.ways
    ]
    courses = {}
    for task in tasks:
        if not _is_whole(task):
            task.path.unlink(missing_ok=True)
            WAYS[task.way](task)
        courses[task] = Course.of(_study(task), task.n_trials)
        print(f"{task.study_name}: {100 * courses[task].best[-1]:.3f} %", flush=True)
    if REFERENCE in options.ways:
        print(markdown(courses))
    if options.picture:
        draw(options.picture, courses)


def _study(task: Task) -> Study:
    return optuna.load_study(study_name=task.study_name, storage=task.url)


def _is_whole(task: Task) -> bool:
    if not task.path.exists() or task.study_name not in optuna.get_all_study_names(task.url):
        return False
    return len(trained(_study(task))) >= task.n_trials


if __name__ == "__main__":
    main()
