"""What commands do not do, however much a database holds: the causes of their being quick."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import sqlalchemy

from search.storage.open import opened_storage
from search.study.open import select_study
from tests.conftest import Command
from tests.support.made_studies import MadeTrial, make_study


def test_the_study_used_last_is_found_without_a_look_at_any_trial(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    for name in ("first", "last"):
        make_study(url, name, [MadeTrial((0.5, 0.6, 0.7))])
    statements: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_others: Any) -> None:
        statements.append(statement)

    with opened_storage(url) as storage:
        sqlalchemy.event.listen(storage.engine, "before_cursor_execute", note)
        assert select_study(storage, None).study_name == "last"
    assert statements
    assert not [statement for statement in statements if "trial" in statement]


def test_the_best_is_shown_without_what_is_slow_to_import(finished: Command) -> None:
    code = (
        "import sys\n"
        "from search.cli import main\n"
        "try:\n"
        "    main(['best'])\n"
        "finally:\n"
        "    slow = {'torch', 'torchvision', 'matplotlib', 'scipy', 'sklearn', 'pandas'}\n"
        "    print(sorted(slow.intersection(sys.modules)))\n"
    )
    done = finished.run_words([sys.executable, "-c", code])
    assert done.code == 0, done.err
    assert done.out.endswith("[]\n"), done.out
