"""`search run` and `search dashboard`: what is used while a search goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

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
    make_console,
    shown_waiting,
    stop_signals,
)
from search.cli.run_output import (
    best_so_far,
    echo_chosen,
    next_command,
    print_next,
    print_plan,
    print_result,
    same_command,
    why_no_lower,
)
from search.exceptions import InputError
from search.wording import counted, duration
from search.workers.fork_server import start_server

if TYPE_CHECKING:
    from rich.console import Console

    from search.cli.events import Emit
    from search.results.confirm import ConfirmationRun, RepeatEnded
    from search.results.target import Step
    from search.tuner.events import Outcome, SearchEvent
    from search.tuner.plan import SearchPlan
    from search.tuner.request import SearchRequest, Target
    from search.tuner.session import Search


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
        from search.tuner.pools import opened_engine
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
    from search.tuner.plan import plan_search

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
    from search.study.history import make_last_used
    from search.study.open import open_study
    from search.tuner.events import Outcome
    from search.tuner.session import begin_search
    from search.tuner.target_search import judge_target, next_request

    steps: list[Step] = []
    is_timed_out = False
    target = plan.request.target
    following: SearchRequest | None = plan.request
    while following is not None:
        if following is not plan.request:
            plan = _plan(console, following)
        following = None
        with begin_search(plan, shown_waiting(console, should_stop)) as search:
            print_plan(console, search)
            emit(search_begins(search))
            outcome = search.over() or _watch(console, emit, search, should_stop, log=log)
            print_result(console, search, outcome)
            emit(search_ends(search, outcome))
            if outcome is Outcome.INTERRUPTED:
                return False
            confirming = _confirm(console, emit, search, should_stop)
            if console.quiet and not console.stderr:  # JSON has it in its own words
                echo_chosen(search)
            if should_stop():
                return False
            if target is None:
                print_next(console, search)
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
            ended=why_no_lower(steps, plan, is_timed_out=is_timed_out),
            next_words=lambda words, study: next_command(plan, words, study=study),
        )
    return True


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
        best=best_so_far(search),
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


def _confirm(
    console: Console, emit: Emit, search: Search, should_stop: Callable[[], bool]
) -> ConfirmationRun | None:
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
    confirming: ConfirmationRun,
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
            f"Interrupted. The runs above are kept; the same command goes on:\n  {same_command()}",
            soft_wrap=True,
        )
