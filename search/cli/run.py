"""`search run` and `search dashboard`: what is used while a search goes on."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from search.cli.browse import front_table
from search.cli.completion import (
    complete_datasets_or_auto,
    complete_engines,
    complete_objectives,
    complete_pruners,
    complete_samplers,
    complete_spaces,
    complete_studies,
)
from search.cli.confirm import print_confirmation, print_steps, repeat_printer
from search.cli.options import (
    DEFAULT_STORAGE,
    Artifacts,
    DataDir,
    Device,
    Storage,
    Workers,
    count_option,
    decimal,
    not_negative,
    parse_duration,
)
from search.cli.output import (
    EXIT_INTERRUPTED,
    data_words,
    echo,
    make_console,
    next_lines,
    shown_command,
    shown_waiting,
    stop_signals,
    storage_words,
)
from search.exceptions import InputError
from search.wording import counted, duration, percent
from search.workers.fork_server import start_server

if TYPE_CHECKING:
    from rich.console import Console

    from search.cli.events import Emit
    from search.data.dataset import DatasetInfo
    from search.results.confirm import Confirming, RepeatEnded
    from search.results.target import Step
    from search.tuner.coordinator import Outcome, SearchEvent
    from search.tuner.request import SearchRequest, Target
    from search.tuner.session import Search, SearchPlan


def run(
    budget: Annotated[
        int,
        count_option("A network must have fewer trainable parameters than this."),
    ],
    epochs: Annotated[
        int,
        count_option(
            "Epochs that each network is trained. A trial's value is the mean of the last three."
        ),
    ],
    trials: Annotated[
        int,
        count_option("Trained trials that the study shall have in total."),
    ] = 50,
    timeout: Annotated[
        str | None, typer.Option(help="Stop after this time, as 30m, 2h or 1h30m.")
    ] = None,
    trial_timeout: Annotated[
        str | None,
        typer.Option(
            help="Take a trial for hung after this time.  [default: 10 times the slowest's]"
        ),
    ] = None,
    patience: Annotated[
        int | None,
        count_option("Stop after this many trained trials without a better one.  [default: never]"),
    ] = None,
    dataset: Annotated[
        str,
        typer.Option(
            help="auto, mnist, fashion-mnist, kmnist, digits, or folder:PATH for images of yours.",
            autocompletion=complete_datasets_or_auto,
        ),
    ] = "auto",
    image_size: Annotated[
        int | None,
        count_option("Pixels along a side, to which a folder's images are scaled.  [default: 28]"),
    ] = None,
    data_dir: DataDir = None,
    storage: Storage = DEFAULT_STORAGE,
    artifacts: Artifacts = None,
    study: Annotated[
        str | None,
        typer.Option(
            help="Name of the study.  [default: as mnist-8000x15]",
            autocompletion=complete_studies,
        ),
    ] = None,
    from_study: Annotated[
        str | None,
        typer.Option(
            help="Start a new study from the best trials of this one, of any budget.",
            autocompletion=complete_studies,
        ),
    ] = None,
    workers: Workers = None,
    engine: Annotated[
        str,
        typer.Option(
            help="local, or ray for workers on a Ray cluster.", autocompletion=complete_engines
        ),
    ] = "local",
    ray_address: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="The Ray cluster, or auto for this machine's.  [default: one made for the search]",
        ),
    ] = None,
    resources: Annotated[
        str | None,
        typer.Option(
            help="What each worker takes of the cluster, as gpu=0.25 or cpu=2,gpu=1.  "
            "[default: cpu=1]"
        ),
    ] = None,
    device: Device = "auto",
    seed: Annotated[
        int,
        typer.Option(
            parser=not_negative, metavar="N", help="From which all random numbers follow."
        ),
    ] = 0,
    sampler: Annotated[
        str,
        typer.Option(help="tpe, random, qmc, gp or cmaes.", autocompletion=complete_samplers),
    ] = "tpe",
    pruner: Annotated[
        str,
        typer.Option(
            help="halving, median, percentile, hyperband or none.",
            autocompletion=complete_pruners,
        ),
    ] = "halving",
    space: Annotated[
        str,
        typer.Option(help="standard, wide, or a TOML file.", autocompletion=complete_spaces),
    ] = "standard",
    objective: Annotated[
        str,
        typer.Option(
            help="accuracy, or accuracy,size to search the best of each size.",
            autocompletion=complete_objectives,
        ),
    ] = "accuracy",
    metric: Annotated[
        str,
        typer.Option(help="accuracy, or balanced-accuracy: the mean of each class's own accuracy."),
    ] = "accuracy",
    target: Annotated[
        float | None,
        typer.Option(
            parser=decimal,
            metavar="PERCENT",
            help="Find the smallest network that reaches this accuracy, as 99.4.",
        ),
    ] = None,
    confidence: Annotated[
        float | None,
        typer.Option(
            parser=decimal,
            metavar="SHARE",
            help="With which a network must reach the target.  [default: 0.95]",
        ),
    ] = None,
    confirm: Annotated[
        bool,
        typer.Option(
            "--confirm/--no-confirm",
            help="At the end of 20 trials or more, race the best three over fresh seeds.",
        ),
    ] = True,
    worker_log: Annotated[
        Path | None,
        typer.Option(help="Folder in which each worker logs every epoch, for an audit."),
    ] = None,
    lost_after: Annotated[
        str | None,
        typer.Option(
            help="Take over trials of another host on the study once it is silent for so long.  "
            "[default: 2m]"
        ),
    ] = None,
    log: Annotated[
        str | None,
        typer.Option(metavar="tensorboard:FOLDER", help="Keep records of all trials there, too."),
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print the best trial alone.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print each event as a line of JSON, for programs.")
    ] = False,
) -> None:
    """Search for the best network under a budget. Ctrl-C is safe: the same command goes on.

    Example: search run --budget 8000 --epochs 15 --trials 100
    """

    timeout_seconds = _seconds(timeout, option="--timeout")
    trial_timeout_seconds = _seconds(trial_timeout, option="--trial-timeout")
    console = make_console(to_stderr=as_json, quiet=quiet)
    with console.status("Loading"):
        import optuna

        from search.study.sharing import DEFAULT_LOST_AFTER_SECONDS
        from search.tuner.request import SearchRequest, check_request

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        request = SearchRequest(
            budget=budget,
            epochs=epochs,
            n_trials=trials,
            timeout_seconds=timeout_seconds,
            trial_timeout_seconds=trial_timeout_seconds,
            dataset=dataset,
            image_size=image_size,
            data_dir=data_dir,
            storage=storage,
            study=study,
            n_workers=workers,
            device=device,
            seed=seed,
            sampler=sampler,
            pruner=pruner,
            space=space,
            objective=objective,
            metric=metric,
            confirm=confirm,
            patience=patience,
            from_study=from_study,
            target=_target(target, confidence),
            worker_log=worker_log,
            lost_after_seconds=_seconds(lost_after, option="--lost-after")
            or DEFAULT_LOST_AFTER_SECONDS,
            artifacts=artifacts,
            engine=engine,
            ray_address=ray_address,
            resources=resources,
        )
        check_request(request)
        # From here on PyTorch is imported, here and in the server, which takes seconds.
        if engine == "local":
            start_server()

        from search.cli.events import make_emit
        from search.tuner.session import opened_engine
        from search.tuner.trackers import check_log

    # Nothing is written yet, so until the data are there a stop may end it at once.
    if log is not None:
        check_log(log)
    with opened_engine(request):
        plan = _plan(console, request)
        emit = make_emit(as_json=as_json)
        with stop_signals() as should_stop:
            is_done = _search(console, emit, plan, should_stop, log=log)
    if not is_done:
        raise typer.Exit(EXIT_INTERRUPTED)


def _seconds(text: str | None, *, option: str) -> float | None:
    return None if text is None else parse_duration(text, option=option)


def _target(target: float | None, confidence: float | None) -> Target | None:
    from search.tuner.request import Target

    if target is None:
        if confidence is None:
            return None
        raise InputError(
            f"A confidence must have a target that it is for, but got --confidence {confidence:g} "
            "without --target; add --target, or leave it out."
        )
    accuracy = target / 100
    return Target(accuracy) if confidence is None else Target(accuracy, confidence)


def _plan(console: Console, request: SearchRequest) -> SearchPlan:
    from search.tuner.session import plan_search

    with console.status("Loading the data, which may be downloaded"):
        return plan_search(request)


def _search(
    console: Console,
    emit: Emit,
    plan: SearchPlan,
    should_stop: Callable[[], bool],
    *,
    log: str | None,
) -> bool:
    """Searches, under lower and lower caps where there is a target; false if interrupted."""
    from search.cli.events import search_begins, search_ends
    from search.results.target import Verdict, smallest
    from search.storage.open import opened_storage
    from search.study.settings import make_last_used, open_study
    from search.tuner.coordinator import Outcome
    from search.tuner.session import begin_search, judge_target, next_request

    steps: list[Step] = []
    is_timed_out = False
    target = plan.request.target
    following: SearchRequest | None = plan.request
    while following is not None:
        if following is not plan.request:
            plan = _plan(console, following)
        following = None
        with begin_search(plan, shown_waiting(console, should_stop)) as search:
            _print_plan(console, search)
            emit(search_begins(search))
            outcome = search.over() or _watch(console, emit, search, should_stop, log=log)
            _print_result(console, search, outcome)
            emit(search_ends(search, outcome))
            if outcome is Outcome.INTERRUPTED:
                return False
            confirming = _confirm(console, emit, search, should_stop)
            if console.quiet and not console.stderr:  # JSON has it in its own words
                _echo_chosen(search)
            if should_stop():
                return False
            if target is None:
                _print_next(console, search)
            elif confirming is None:
                is_timed_out = outcome is Outcome.TIMED_OUT or search.is_time_over()
            else:
                step = judge_target(search, confirming)
                if step is not None:
                    steps.append(step)
                reached = step if step is not None and step.verdict is Verdict.REACHED else None
                # A search leaves time to its race, so its own outcome does not tell.
                is_cut = bool(reached) or confirming.next() is not None
                is_timed_out = search.is_time_over() and is_cut
                if reached and not is_timed_out:
                    following = next_request(search, reached)
                    console.print()
    if target is not None:
        found = smallest(steps)
        if found is not None:
            with opened_storage(
                plan.request.storage, write=True, waiting=shown_waiting(console, should_stop)
            ) as storage:
                make_last_used(open_study(storage, found.study))
        print_steps(
            console,
            steps,
            target,
            ended=_why_no_lower(steps, plan, is_timed_out=is_timed_out),
            next_words=lambda words, study: _next_command(plan, words, study=study),
        )
    return True


def _why_no_lower(steps: Sequence[Step], plan: SearchPlan, *, is_timed_out: bool) -> str:
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


def _print_plan(console: Console, search: Search) -> None:
    from rich.table import Table

    from search.data.names import short_name
    from search.storage.mounts import network_filesystem
    from search.storage.open import shown_url, sqlite_path

    plan, before = search.plan, search.before
    request, info = plan.request, plan.dataset.info
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    known = (
        f"goes on with {counted(before.n_trained, 'trained trial')}" if before.n_trained else "new"
    )
    if search.n_swept:
        known += f"; {search.n_swept} that a search left unfinished are queued again"
    note = f"; {plan.dataset_note}" if plan.dataset_note else ""
    limit = f", at most {request.timeout_seconds:.0f} s" if request.timeout_seconds else ""
    hung = request.trial_timeout_seconds
    limit += f", each at most {hung:.0f} s" if hung else ""
    limit += f", until {request.patience} bring nothing better" if request.patience else ""
    for name, value in (
        ("study", f"{plan.study_name}, {known}"),
        (
            "data",
            f"{short_name(info.name)} ({info.origin}): {info.n_training:,} images train, "
            f"{info.n_validation:,} validate{_image_words(info)}{note}",
        ),
        (
            "space",
            f"{plan.space.name}: {len(plan.space.distributions)} hyperparameters searched, "
            f"networks from {plan.space.smallest_count():,} parameters",
        ),
        ("cap", f"fewer than {request.budget:,} parameters, {counted(request.epochs, 'epoch')}"),
        ("goal", _goal(request)),
        (
            "trials",
            f"{request.n_trials} trained in total{limit}; sampler {request.sampler}, "
            f"pruner {request.pruner}, seed {request.seed}",
        ),
        ("workers", f"{search.n_workers} on {plan.device}{_cluster_words(plan)}"),
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


def _cluster_words(plan: SearchPlan) -> str:
    """What is to be said of a cluster, where workers run on one."""
    if plan.resources is None:
        return ""
    from search.workers.ray_pool import describe_cluster

    return f", each with {plan.resources} of Ray's {describe_cluster()}"


def _image_words(info: DatasetInfo) -> str:
    """What is to be said of images that are not a known data set's."""
    from search.splits import SPLITS

    if info.name in SPLITS:
        return ""
    channels, height, width = info.input_shape
    colours = {1: " in grey", 3: " in colour"}.get(channels, f" of {channels} channels")
    return f", {info.n_test:,} test; {height}×{width} pixels{colours}"


def _print_uneven(console: Console, search: Search) -> None:
    """Says once, where classes are uneven, that there is a metric for that."""
    from search.training.metrics import is_uneven

    info = search.plan.dataset.info
    if search.plan.request.metric != "accuracy" or not is_uneven(info.class_counts):
        return
    sizes = dict(zip(info.classes, info.class_counts, strict=True))
    small, large = min(sizes, key=sizes.__getitem__), max(sizes, key=sizes.__getitem__)
    console.print(
        f"The classes are uneven: {sizes[large]:,} validation images of {large}, "
        f"{sizes[small]:,} of {small}. With --metric balanced-accuracy each class counts the same.",
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
        if request.from_study not in (None, queued.study):
            line += f"; --from-study {request.from_study} is ignored"
    elif request.from_study is None or request.target is not None:
        return  # under a lower cap that goes on, nobody asked for --from-study
    else:
        line = f"--from-study {request.from_study} is ignored: the study has trials already"
    console.print(line)


def _watch(
    console: Console,
    emit: Emit,
    search: Search,
    should_stop: Callable[[], bool],
    *,
    log: str | None,
) -> Outcome:
    from search.cli.events import trial_event
    from search.cli.view import Progress, make_view
    from search.training.metrics import metric_words
    from search.tuner.trackers import tracking

    plan, request = search.plan, search.plan.request
    title = (
        f"{plan.study_name}: {plan.dataset.info.name}, fewer than {request.budget:,} parameters, "
        f"{counted(request.epochs, 'epoch')}"
    )
    progress = Progress(
        before=search.before,
        best=_best(search),
        n_trials=request.n_trials,
        timeout_seconds=request.timeout_seconds,
    )
    with (
        tracking(log, search.study) as track,
        make_view(
            progress,
            console,
            epochs=request.epochs,
            title=title,
            metric=metric_words(request.metric),
        ) as view,
    ):

        def listener(event: SearchEvent) -> None:
            view(event)
            track(event)
            emit(trial_event(event))

        return search.run(listener, should_stop=should_stop)


def _print_result(console: Console, search: Search, outcome: Outcome) -> None:
    from rich.text import Text

    from search.cli.view import describe_best
    from search.study.summary import confirmed_number, front, tally
    from search.training.metrics import metric_words
    from search.tuner.coordinator import Outcome

    counts = tally(search.study.get_trials(deepcopy=False))
    match outcome:
        case Outcome.INTERRUPTED:
            why = "Interrupted."
            then = "Everything finished is kept; what ran starts again from its first epoch."
        case Outcome.TIMED_OUT:
            why = "The time is over."
            then = "What ran is back in the queue and starts again from its first epoch."
        case Outcome.REACHED:
            why = f"The study has its {counted(counts.n_trained, 'trained trial')}."
            then = f"For more, give the same command with --trials {2 * counts.n_trained}."
        case Outcome.NO_BETTER:
            patience = search.plan.request.patience or 0
            why = f"No better trial in the last {patience}."
            then = (
                "What is within one standard error, on "
                f"{search.plan.dataset.info.n_validation:,} validation images, is not better. "
                f"The same command goes on with --patience {2 * patience}."
            )
        case Outcome.EXHAUSTED:
            why = "The space has no untried configuration left."
            then = "For more, search a larger space, as another study: --space, --study."
    console.print(Text.assemble((why, "bold"), f" {then}"))
    if outcome in (Outcome.INTERRUPTED, Outcome.TIMED_OUT):
        console.print(f"The same command goes on:\n  {_same_command()}", soft_wrap=True)
    redrawn = ""
    if counts.n_redraws:
        redrawn = f", {counts.n_redraws} candidates over the cap redrawn before they became trials"
    console.print(
        f"{counts.n_trained} trained ({counts.n_pruned} of them pruned early), {counts.n_failed} "
        f"failed{redrawn}."
    )
    best = _best(search)
    if best is None:
        console.print("No trial is complete yet.")
        return
    last = min(3, search.plan.request.epochs)
    over = "its one epoch" if last == 1 else f"its last {last} epochs, as a mean"
    metric = metric_words(search.plan.request.metric)
    if search.plan.request.objective == "accuracy":
        console.print(f"\nBest: {describe_best(best)}", style="bold green")
        console.print(f"That is its validation {metric} over {over}.")
        winner = confirmed_number(search.study.user_attrs, search.study.get_trials(deepcopy=False))
        if winner not in (None, best.number):
            console.print(f"Over fresh seeds trial {winner} was the best: it won the race before.")
        return
    console.print("\nNo network that was found is better than these and no larger:", style="bold")
    console.print(front_table(search.study, front(search.study.get_trials(deepcopy=False))))
    console.print(f"An accuracy is the {metric} on the validation images over {over}.")


def _confirm(
    console: Console, emit: Emit, search: Search, should_stop: Callable[[], bool]
) -> Confirming | None:
    """Races the best trials; None where there is no race to run, or another host runs it."""
    with search.race(should_stop) as race:
        if race.confirming is not None:
            _race(console, emit, search, race.confirming, should_stop)
    if race.is_elsewhere and not should_stop():
        console.print(
            "\nAnother host races the best trials over fresh seeds; 'search best' will know who "
            "won."
        )
    return race.confirming


def _race(
    console: Console,
    emit: Emit,
    search: Search,
    confirming: Confirming,
    should_stop: Callable[[], bool],
) -> None:
    from search.cli.events import race_ends, run_of_race

    n_racing = len(confirming.race.candidates)
    best = "best trial" if n_racing == 1 else f"best {n_racing} trials"
    limit = ""
    if confirming.limit_seconds is not None:
        longest = duration(confirming.limit_seconds)
        limit = f", for at most {longest} of training (--no-confirm leaves it out)"
    console.print(f"\nConfirming the {best} over fresh seeds{limit}:")
    show = repeat_printer(console)

    def listener(event: RepeatEnded) -> None:
        show(event)
        emit(run_of_race(event))

    search.confirm(confirming, listener, should_stop=should_stop)
    confirmation = confirming.finish()
    print_confirmation(console, search.study, confirmation)
    if confirmation is not None:
        emit(race_ends(confirmation))
    if should_stop():
        console.print(
            f"Interrupted. The runs above are kept; the same command goes on:\n  {_same_command()}",
            soft_wrap=True,
        )


def _print_next(console: Console, search: Search) -> None:
    from search.study.summary import chosen_trial

    study = search.study
    chosen = chosen_trial(study.user_attrs, study.get_trials(deepcopy=False))
    if chosen is None:
        return
    by_size = search.plan.request.objective != "accuracy"
    steps = (
        (["show", str(chosen.number)], "its layers and epochs"),
        (["confirm"], "race the best trials over fresh seeds"),
        *([(["best", "--front"], "the most accurate network of each size")] if by_size else []),
        (["retrain"], "train it on all data, test it, keep its weights"),
        (["report"], "its story on one page"),
        (["dashboard"], "look at all trials in a browser"),
    )
    commands = ((_next_command(search.plan, words), what) for words, what in steps)
    for line in next_lines(commands, console.width):
        console.print(line, soft_wrap=True)
    if "***" in _next_command(search.plan, ["best"]):
        console.print("*** stands for the password; put the whole URL into SEARCH_STORAGE instead.")


def _same_command() -> str:
    """The command as it was given, but for a password, which belongs on no screen."""
    from search.exceptions import StorageError
    from search.storage.open import shown_url

    words = []
    for word in sys.argv[1:]:
        value = word.removeprefix("--storage=")
        option = word[: len(word) - len(value)]
        try:
            words.append(option + shown_url(value) if "://" in value else word)
        except StorageError:  # some other option's text
            words.append(word)
    return shown_command(words)


def _next_command(plan: SearchPlan, command: list[str], *, study: str | None = None) -> str:
    """A command on the same study, with the options that it needs to find it."""
    words = list(command)
    if command[0] != "dashboard":
        words += ["--study", study or plan.study_name]
    words += storage_words(plan.request.storage)
    if command[0] == "retrain":
        words += data_words(plan.dataset.info.name, plan.request.data_dir)
    return shown_command(words)


def _echo_chosen(search: Search) -> None:
    """What `--quiet` leaves: the confirmed winner, or else the best trial."""
    from search.cli.view import Best, describe_best
    from search.study.summary import accuracy_of, chosen_trial

    study = search.study
    trial = chosen_trial(study.user_attrs, study.get_trials(deepcopy=False))
    accuracy = None if trial is None else accuracy_of(trial)
    if trial is not None and accuracy is not None:
        count = trial.user_attrs.get("parameter_count")
        echo(f"{study.study_name}: {describe_best(Best(trial.number, accuracy, count))}")


def _best(search: Search) -> Any:
    from search.cli.view import Best
    from search.study.summary import accuracy_of, best_trial

    trial = best_trial(search.study.get_trials(deepcopy=False))
    accuracy = None if trial is None else accuracy_of(trial)
    if trial is None or accuracy is None:
        return None
    return Best(trial.number, accuracy, trial.user_attrs.get("parameter_count"))


def dashboard(
    storage: Storage = DEFAULT_STORAGE,
    artifacts: Artifacts = None,
    port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="PORT", help="0 takes a free one.")
    ] = 8080,
    host: Annotated[
        str, typer.Option(help="Address to listen on; any but this opens it to others.")
    ] = "127.0.0.1",
) -> None:
    """Show all studies in a browser, also while a search runs. Stop it with Ctrl-C.

    Example: search dashboard --port 8081
    """
    from search.report.dashboard import serve

    def show(text: str) -> None:
        is_address = text.startswith("http://")
        echo(f"Dashboard on {text} (Ctrl-C stops)" if is_address else text)

    serve(storage, host=host, port=port, announce=show, artifacts=artifacts)
