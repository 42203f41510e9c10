"""A study's note in optuna-dashboard: what is searched, how far it is, what to do next."""

from __future__ import annotations

from collections.abc import Sequence

from optuna.trial import FrozenTrial

from search.data.names import SPLITS
from search.plain_text import markdown, shell_line
from search.report.facts import Report
from search.study.summary import why_none_complete
from search.wording import counted, percent, seeds_words

# What a person writes below stays; what stands above is written anew.
OWN_PART = (
    "*What stands above is written by the search, and again as it goes on. "
    "Notes of your own are kept below this line.*\n\n---"
)

_IN_PYTHON = "in Python, with `run_search`."  # on tensors, which no command has
_SEARCHED_BY = "It is being searched, by "
_GAP = "\u2003"  # the dashboard leaves no room between two columns of a table


def note_text(report: Report, before: str) -> str:
    """The note as Markdown.

    Args:
        before: the note that it replaces, of which a person's own part is kept.
    """
    parts = [_question(report), _answer(report), _next(report), OWN_PART]
    return "\n\n".join(parts) + _own(before)


def is_outdated(note: str, chosen: FrozenTrial | None, searched_by: str | None) -> bool:
    """Whether a note of ours names another best trial, or another search, than there is now.

    Args:
        searched_by: as `NextSteps` has it.
    """
    ours, separator, _ = note.partition(OWN_PART)
    lines = ours.splitlines()
    searches = [line for line in lines if line.startswith(_SEARCHED_BY)]
    now = [] if searched_by is None else [_searched(searched_by)]
    return bool(separator) and (_best_heading(chosen) not in lines or searches != now)


def _searched(searched_by: str) -> str:
    return f"{_SEARCHED_BY}{searched_by}."


def _best_heading(chosen: FrozenTrial | None) -> str:
    return "## Best trial" if chosen is None else f"## Best: trial {chosen.number}"


def _own(before: str) -> str:
    """A person's part of a note; all of it where it is not one of ours."""
    _, line, own = before.partition(OWN_PART)
    if not line and before:
        return f"\n\n{before}"
    return own


def _question(report: Report) -> str:
    settings, counts = report.settings, report.tally
    goal = "the best network of each size" if report.has_two_objectives else "the best network"
    dataset = settings.dataset if settings.dataset in SPLITS else markdown(settings.dataset)
    images = ""
    if report.split is not None:
        images = (
            f" ({report.split.n_training:,} images train, {report.split.n_validation:,} validate)"
        )
    rows = [
        ("data", f"{dataset}{images}"),
        ("cap", f"fewer than {settings.budget:,} parameters, {counted(settings.epochs, 'epoch')}"),
        (
            "space",
            f"{markdown(settings.space_name)}, "
            f"{counted(len(settings.search_space().distributions), 'hyperparameter')} searched",
        ),
        (
            "trials",
            f"{counts.n_trained} trained, {counts.n_pruned} of them stopped early; "
            f"{counts.n_failed} failed"
            + (f"; {counts.n_foreign} by other programs" if counts.n_foreign else ""),
        ),
    ]
    table = "\n".join(f"| **{name}** | {_GAP}{value} |" for name, value in rows)
    words = report.last_run_words
    how = _IN_PYTHON if words is None else f"with the command\n\n{_command(words)}"
    return f"Searches {goal}, {how}\n\n| | |\n| --- | --- |\n{table}"


def _answer(report: Report) -> str:
    if report.chosen is None or report.value is None:
        return f"{_best_heading(None)}\n\n{why_none_complete(report.trials)}"
    lines = [
        _best_heading(report.chosen),
        f"{_right(report, report.value, 'validation')} (mean of its last epochs)"
        + ("" if report.parameter_count is None else f", {report.parameter_count:,} parameters")
        + ".",
    ]
    race = report.race
    if race is not None and race.is_current:
        winner = race.winner
        interval = ""
        if winner.low is not None and winner.high is not None:
            interval = f" (95 %: {percent(winner.low)} to {percent(winner.high)})"
        seeds = seeds_words(len(winner.values), winner.n_parts)
        luck = ""
        if race.luck_of_winning is not None and len(race.standings) > 1:
            luck = (
                f" Up to {100 * race.luck_of_winning:.2f} points of it may be the luck of winning."
            )
        lines.append(f"Confirmed: **{percent(winner.mean)}** over {seeds}{interval}.{luck}")
    if report.test is not None:
        lines.append(f"Trained on all data: {_right(report, report.test.mean, 'test')}.")
    if report.layers:
        lines.append(_layers(report))
    return "\n\n".join(lines)


def _layers(report: Report) -> str:
    rows = [
        f"| `{row.layer}` | {_GAP}{' × '.join(map(str, row.output_shape))} | "
        f"{_GAP}{row.parameters:,} | {_GAP}{row.receptive_field or ''} |"
        for row in report.layers
    ]
    total = sum(row.parameters for row in report.layers)
    titles = (f"{_GAP}{title}" for title in ("output", "parameters", "receptive field"))
    head = f"| layer | {' | '.join(titles)} |\n| :--- | ---: | ---: | ---: |"
    return "\n".join([head, *rows, f"| **all** | | **{total:,}** | |"])


def _next(report: Report) -> str:
    # Who reads the note is in the dashboard.
    steps = [step for step in report.next_steps.with_result if step.command != "dashboard"]
    paragraphs = ["## Next"]
    if report.next_steps.searched_by is not None:
        paragraphs.append(_searched(report.next_steps.searched_by))
    elif not steps:
        if report.next_steps.go_on is None:
            return f"## Next\n\nSearch {_IN_PYTHON}"
        steps = [report.next_steps.go_on]
    if steps:  # the command that searches stands above
        lines = [f"{_line(step.words)}  # {step.purpose}" for step in steps]
        paragraphs.append("\n".join(["```sh", *lines, "```"]))
    return "\n\n".join(paragraphs)


def _command(words: Sequence[str]) -> str:
    return f"```sh\n{_line(words)}\n```"


def _line(words: Sequence[str]) -> str:
    return shell_line(["search", *words])


def _right(report: Report, share: float, part: str) -> str:
    if report.settings.metric == "accuracy":
        return f"**{percent(share)}** of the {part} images right"
    return f"**{percent(share)}** {report.metric} on the {part} images"
