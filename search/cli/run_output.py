"""What `search run` prints before and after a search: its plan, its result, what to do next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from search.cli.output import artifact_words, data_words, echo, how_to_go_on, next_lines
from search.cli.show import front_table
from search.plain_text import printable
from search.study.trials import trials_of
from search.wording import counted, duration, percent

if TYPE_CHECKING:
    from rich.console import Console

    from search.data.dataset import DatasetInfo
    from search.results.target import Step
    from search.tuner.events import Outcome
    from search.tuner.options import SearchRequest
    from search.tuner.plan import SearchPlan
    from search.tuner.session import Search

_N_CLASSES = 12  # that the plan lists


def why_no_lower(steps: Sequence[Step], plan: SearchPlan, *, is_timed_out: bool) -> str:
    """Why a search for a target has come to its end."""
    from search.results.target import Verdict

    if is_timed_out:
        return "The time was over before a cap was too low; the same command goes on."
    if not steps or steps[-1].study != plan.study_name:
        return f"Under {plan.request.budget:,} parameters no trial could be confirmed."
    match steps[-1].verdict:
        case Verdict.REACHED:
            return f"The space has no network under {steps[-1].next_cap:,} parameters."
        case Verdict.OPEN:
            return "Under the last cap it is not certain; more --trials may find a better network."
        case Verdict.MISSED:
            return "Under the last cap it is out of reach."


def print_plan(console: Console, search: Search) -> None:
    from rich.table import Table

    from search.data.names import short_name
    from search.storage.mounts import network_filesystem
    from search.storage.urls import shown_url, sqlite_path
    from search.tuner.words import describe_length, describe_start

    plan, before = search.plan, search.before
    request, info = plan.request, plan.dataset.info
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    note = f"; {plan.dataset_note}" if plan.dataset_note else ""
    limit = f", at most {duration(request.timeout_seconds)}" if request.timeout_seconds else ""
    hung = request.trial_timeout_seconds
    limit += f", each at most {duration(hung)}" if hung else ""
    for name, value in (
        ("study", f"{plan.study_name}, {describe_start(search)}"),
        (
            "data",
            f"{short_name(info.name)} ({info.origin}): {info.n_training:,} images train, "
            f"{info.n_validation:,} validate{_image_words(info)}{note}",
        ),
        *_class_rows(info),
        (
            "space",
            f"{plan.space.name}{_begun_words(plan)}: "
            f"{counted(len(plan.space.distributions), 'hyperparameter')} searched, "
            f"{plan.space.network_words()}",
        ),
        *_network_rows(plan),
        ("cap", f"fewer than {request.budget:,} parameters, {counted(request.epochs, 'epoch')}"),
        ("goal", _goal(request)),
        (
            "trials",
            f"{describe_length(plan.length)}{limit}; sampler {request.sampler}, "
            f"pruner {request.pruner}, seed {request.seed}",
        ),
        ("workers", f"{search.n_workers} on {plan.workers.device}{_cluster_words(plan)}"),
        ("storage", shown_url(request.storage)),
    ):
        table.add_row(name, value)
    console.print(table)
    path = sqlite_path(request.storage)
    kind = None if path is None else network_filesystem(path)
    if kind is not None:
        console.print(
            f"The database is on a network file system ({kind}), where SQLite's locks and its log "
            "cannot be relied on: use it from this machine alone, or rather put it on a local "
            "disk, or on a server (--storage postgresql+psycopg://user@host/database).",
            style="yellow",
        )
    _print_warm_start(console, search)
    if not before.n_trained:
        _print_uneven(console, search)
    console.print()


def _network_rows(plan: SearchPlan) -> list[tuple[str, str]]:
    """What a user's file of networks does, where there is one."""
    probe, source = plan.probe, plan.checked.network
    if probe is None or source is None:
        return []
    words = f"{source.path} ({source.fingerprint[:12]}): "
    words += f"suggests {', '.join(probe.always)}" if probe.always else "suggests nothing"
    if probe.sometimes:
        words += (
            f"; some networks {', '.join(probe.sometimes)}, too, each of which the sampler draws "
            "by itself, knowing less of it"
        )
    words += "; widths are scaled to the cap" if probe.scales else ""
    if probe.taken_over:
        words += f"; says {', '.join(probe.taken_over)} itself"
    return [("network", words)]


def _cluster_words(plan: SearchPlan) -> str:
    """What is to be said of a cluster, where workers run on one."""
    if plan.checked.resources is None:
        return ""
    from search.workers.ray_connection import describe_cluster

    return f", each with {plan.checked.resources} of Ray's {describe_cluster()}"


def _begun_words(plan: SearchPlan) -> str:
    """Says that a study goes on in another space than the one that the request names."""
    is_other = plan.space.name != plan.request.space and plan.warm_start is None
    return ", in which the study was begun" if is_other else ""


def _image_words(info: DatasetInfo) -> str:
    """What is to be said of images that are not a known data set's."""
    from search.data.names import SPLITS

    if info.name in SPLITS:
        return ""
    channels, height, width = info.input_shape
    sides = "" if height == width else " (height×width)"
    colours = {1: " in grey", 3: " in colour"}.get(channels, f" of {channels} channels")
    return f", {info.n_test:,} test; {height}×{width} pixels{sides}{colours}"


def _class_rows(info: DatasetInfo) -> list[tuple[str, str]]:
    """How many images each class has, and what was left out, of images that are a user's own."""
    from search.data.names import SPLITS

    if info.name in SPLITS:
        return []
    pairs = list(zip(info.classes, info.image_counts, strict=True))
    shown = ", ".join(f"{name} {n:,}" for name, n in pairs[:_N_CLASSES]) + " images"
    if len(pairs) > _N_CLASSES:
        rest = [n for _, n in pairs[_N_CLASSES:]]
        least, most = min(rest), max(rest)
        each = f"{most:,}" if least == most else f"{least:,} to {most:,}"
        shown += f", and {len(rest):,} more with {each} each"
    rows = [("classes", f"{len(pairs):,}: {shown}")]
    return [*rows, ("left out", info.left_out)] if info.left_out else rows


def _print_uneven(console: Console, search: Search) -> None:
    """Says once, where classes are uneven, that there is a metric for that."""
    from search.training.metrics import is_uneven

    info = search.plan.dataset.info
    if search.plan.request.metric != "accuracy" or not is_uneven(info.class_counts):
        return
    sizes = dict(zip(info.classes, info.class_counts, strict=True))
    small, large = min(sizes, key=sizes.__getitem__), max(sizes, key=sizes.__getitem__)
    console.print(
        f"The classes are uneven: {sizes[large]:,} validation images of {printable(large)}, "
        f"{sizes[small]:,} of {printable(small)}. With --metric balanced-accuracy each class "
        "counts the same.",
        style="yellow",
    )


def _goal(request: SearchRequest) -> str:
    from search.training.metrics import metric_words

    metric = metric_words(request.metric)
    if 1 < request.epochs <= 3:  # of more, only the last three count
        metric += f" (the mean of all {request.epochs} epochs, early ones included)"
    if request.target is not None:
        return (
            f"the fewest parameters for {percent(request.target.accuracy)} {metric}, at "
            f"{100 * request.target.confidence:g} % confidence"
        )
    if request.objective == "accuracy":
        return f"the highest {metric}"
    return f"the highest {metric} at each size"


def _print_warm_start(console: Console, search: Search) -> None:
    request, queued = search.plan.request, search.queued
    if queued is not None:
        n = len(queued.configurations)
        more = "" if search.plan.warm_start is not None else " more"
        line = f"starts from {queued.study}: {n}{more} of its best trials queued"
        if not n:
            line += ", because none has a topology that fits this space and budget"
        elif queued.left_out:
            line += f"; not their {' and '.join(queued.left_out)}, as the images are others"
        if request.from_study not in (None, queued.study):
            line += f"; --from-study {request.from_study} is ignored"
    elif request.from_study is None or request.target is not None:
        return  # under a lower cap that goes on, nobody asked for --from-study
    else:
        line = f"--from-study {request.from_study} is ignored: the study has trials already"
    console.print(line)


def _beyond_patience(search: Search, n_trained: int) -> str:
    """How to go on with a study in which nothing better came."""
    if search.plan.request.patience is None:
        return f"For more all the same, give the same command with --trials {2 * n_trained}."
    return f"The same command goes on with --patience {2 * search.plan.request.patience}."


def print_result(console: Console, search: Search, outcome: Outcome) -> None:
    from rich.text import Text

    from search.cli.view import describe_best
    from search.study.summary import (
        confirmed_number,
        front,
        is_all_diverged,
        tally,
        why_none_complete,
    )
    from search.training.metrics import metric_words
    from search.tuner.events import Outcome
    from search.tuner.words import describe_outcome

    trials = trials_of(search.study)
    counts = tally(trials)
    is_hopeless = is_all_diverged(trials)  # more of the same trials would be, too
    length = search.plan.length
    match outcome:
        case Outcome.INTERRUPTED:
            then = "Everything finished is kept; what ran starts again from its first epoch."
        case Outcome.TIMED_OUT:
            then = "What ran is back in the queue and starts again from its first epoch."
        case _ if is_hopeless:
            then = ""
        case Outcome.REACHED:
            then = f"For more, give the same command with --trials {2 * counts.n_trained}."
        case Outcome.NO_BETTER:
            then = (
                "What is within one standard error, on "
                f"{search.plan.dataset.info.n_validation:,} validation images, is not better. "
                f"{_beyond_patience(search, counts.n_trained)}"
            )
        case Outcome.EXHAUSTED:
            then = "For more, search a larger space, as another study: --space, --study."
    why = describe_outcome(outcome, counts.n_trained, length)
    console.print(Text.assemble((why, "bold"), f" {then}".rstrip()))
    if outcome in (Outcome.INTERRUPTED, Outcome.TIMED_OUT):
        console.print(how_to_go_on(), soft_wrap=True)
    interrupted = ""
    if counts.n_interrupted:
        interrupted = f", {counts.n_interrupted} interrupted and queued again"
    foreign = f", {counts.n_foreign} by other programs" if counts.n_foreign else ""
    redrawn = ""
    if counts.n_redraws:
        redrawn = f", {counts.n_redraws} candidates over the cap redrawn before they became trials"
    console.print(
        f"{counts.n_trained} trained ({counts.n_pruned} of them pruned early), {counts.n_failed} "
        f"failed{interrupted}{foreign}{redrawn}."
    )
    best = best_so_far(search)
    if best is None:
        console.print(why_none_complete(trials))
        return
    last = min(3, search.plan.request.epochs)
    over = "its one epoch" if last == 1 else f"its last {last} epochs, as a mean"
    metric = metric_words(search.plan.request.metric)
    if search.plan.request.objective == "accuracy":
        console.print(f"\nBest: {describe_best(best)}", style="bold green")
        console.print(f"That is its validation {metric} over {over}.")
        winner = confirmed_number(search.study, trials)
        if winner not in (None, best.number):
            console.print(f"Over fresh seeds trial {winner} was the best: it won the race before.")
        return
    console.print("\nNo network that was found is better than these and no larger:", style="bold")
    console.print(front_table(search.study, front(trials)))
    console.print(f"An accuracy is the {metric} on the validation images over {over}.")


def print_next(console: Console, search: Search) -> None:
    """What to do with a study whose search has ended; how that goes on stands above."""
    from search.study.next_steps import next_steps

    steps = next_steps(search.study, trials_of(search.study)).with_result
    if not steps:
        return
    request = search.plan.request
    data = data_words(search.plan.dataset.info.name, request.data_dir)
    artifacts = artifact_words(request.artifacts)
    for line in next_lines(
        steps, console.width, storage=request.storage, data=data, artifacts=artifacts
    ):
        console.print(line, soft_wrap=True)


def echo_chosen(search: Search) -> None:
    """What `--quiet` leaves: the confirmed winner, or else the best trial."""
    from search.cli.progress import Best
    from search.cli.view import describe_best
    from search.study.summary import accuracy_of, chosen_trial, parameter_count_of

    study = search.study
    trial = chosen_trial(study, trials_of(study))
    accuracy = None if trial is None else accuracy_of(trial)
    if trial is not None and accuracy is not None:
        best = Best(trial.number, accuracy, parameter_count_of(trial))
        echo(f"{study.study_name}: {describe_best(best)}")


def best_so_far(search: Search) -> Any:
    from search.cli.progress import Best
    from search.study.summary import accuracy_of, best_trial, parameter_count_of

    trial = best_trial(trials_of(search.study))
    accuracy = None if trial is None else accuracy_of(trial)
    if trial is None or accuracy is None:
        return None
    return Best(trial.number, accuracy, parameter_count_of(trial))
