"""`search studies`: all studies of a database, a row each."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime

from search.cli.options import AsJson, Storage
from search.cli.output import echo_json, make_console
from search.folders import DATABASE_URL
from search.wording import percent, thousands


def studies(storage: Storage = DATABASE_URL, as_json: AsJson = False) -> None:
    """List the studies.

    Example: search studies --json
    """
    from rich.table import Table

    from search.storage.open import opened_storage
    from search.study.open import open_study, study_names
    from search.study.settings import stored_settings
    from search.study.summary import summarize_study
    from search.study.trials import trials_of

    with opened_storage(storage) as opened:
        found = [open_study(opened, name) for name in study_names(opened)]
        summaries = [
            summarize_study(study, trials_of(study))
            for study in found
            if stored_settings(study) is not None
        ]
    if as_json:
        echo_json([asdict(summary) for summary in summaries], indent=2)
        return
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    # A name is there to be copied, so it is folded only where nothing else can give way.
    longest = max((len(summary.name) for summary in summaries), default=0)
    table.add_column("study", overflow="fold", min_width=min(longest, _NAME_WIDTH))
    has_foreign = any(summary.trials["n_foreign"] for summary in summaries)
    headings = (
        *("trained", "pruned", "failed", *(("foreign",) if has_foreign else ())),
        *("best", "confirmed", "size", "test seen"),
        "last used",
    )
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=" " not in heading)
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
            f"{summary.n_training} train" if summary.n_training else _date(summary.last_used),
        )
    make_console().print(table)


_NAME_WIDTH = 30  # characters


def _date(moment: str) -> str:
    """The day of a moment as ISO 8601 has it, by this machine's clock."""
    try:
        return f"{datetime.fromisoformat(moment).astimezone():%Y-%m-%d}"
    except ValueError:
        return ""
