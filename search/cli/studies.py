"""`search studies`: all studies of a database, a row each."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING

from search.cli.options import AsJson, Storage
from search.cli.output import echo_json, make_console
from search.folders import DATABASE_URL
from search.wording import percent, thousands

if TYPE_CHECKING:
    from search.study.summary import StudySummary


def studies(storage: Storage = DATABASE_URL, as_json: AsJson = False) -> None:
    """List the studies.

    Example: search studies --json
    """
    from search.cli.tables import FittedTable
    from search.results.confirmed import confirmation_of
    from search.storage.open import opened_storage
    from search.storage.studies import study_names
    from search.study.open import open_studies
    from search.study.settings import stored_settings
    from search.study.summary import summarize_study
    from search.study.trials import trials_of

    with opened_storage(storage) as opened:
        summaries = []
        for each in open_studies(opened):
            try:
                if stored_settings(each) is not None:
                    trials, confirmation = trials_of(each), confirmation_of(each)
                    summaries.append(summarize_study(each, trials, confirmation))
            except KeyError:
                if each.study_name in study_names(opened):
                    raise  # else it was deleted meanwhile
    if as_json:
        echo_json([asdict(summary) for summary in summaries], indent=2)
        return
    table = FittedTable(gap=1)
    table.add_column("study", overflow="fold")
    has_foreign = any(summary.trials["n_foreign"] for summary in summaries)
    headings = (
        *("trained", "pruned", "failed", *(("foreign",) if has_foreign else ())),
        *("best", "confirmed", "size", "test seen"),
        "last used",
    )
    for heading in headings:
        table.add_column(heading, justify="right")
    for summary in summaries:
        table.add_row(
            summary.name,
            str(summary.trials["n_trained"]),
            str(summary.trials["n_pruned"]),
            str(summary.trials["n_failed"]),
            *((str(summary.trials["n_foreign"]),) if has_foreign else ()),
            percent(summary.best_value),
            percent(summary.confirmed_mean),
            thousands(summary.best_parameter_count),
            str(summary.test_looks),
            _last_used(summary),
        )
    console = make_console()
    console.print(table)
    luck = max((summary.confirmed_luck or 0.0 for summary in summaries), default=0.0)
    if luck:
        console.print(
            "\nA confirmed accuracy is the highest of its race: up to "
            f"{100 * luck:.2f} points of it may be the luck of winning."
        )


def _last_used(summary: StudySummary) -> str:
    if summary.n_training:
        return f"{summary.n_training} train"
    # A race keeps its runs in a study of their own, so no trial of this one trains.
    return "runs" if summary.is_searched else _date(summary.last_used)


def _date(moment: str) -> str:
    """The day of a moment as ISO 8601 has it, by this machine's clock."""
    try:
        return f"{datetime.fromisoformat(moment).astimezone():%Y-%m-%d}"
    except ValueError:
        return ""
