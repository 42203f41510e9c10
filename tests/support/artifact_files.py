"""Which artifacts a database tells of, and which lie in its folder."""

from __future__ import annotations

import json
import re
from pathlib import Path

from search.storage.open import opened_storage

_KEY = re.compile(r"dashboard:artifacts:\d+:(.+)")


def entered(database: Path) -> dict[str, str]:
    """The artifacts that the entries of a SQLite database tell of, as optuna-dashboard reads them.

    Names of files in the folder, with the names under which they are shown.
    """
    found = {}
    with opened_storage(f"sqlite:///{database}") as storage:
        studies = storage.get_all_studies()
    for study in studies:
        for key, value in study.system_attrs.items():
            match = _KEY.fullmatch(key)
            entry = None if match is None else json.loads(value)
            if match is not None and entry is not None:
                assert entry["artifact_id"] == match[1]
                found[match[1]] = entry["filename"]
    return found


def lying(database: Path) -> set[str]:
    """The names of the files in a database's folder of artifacts."""
    return {path.name for path in database.with_name(f"{database.name}-artifacts").glob("*")}
