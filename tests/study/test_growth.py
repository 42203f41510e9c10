"""What commands do not do, however much a database holds: the causes of their being quick."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from optuna.trial import TrialState

from search.exceptions import StudyError
from search.storage.open import opened_storage
from search.study.open import open_trial, select_study
from search.tuner.options import SearchRequest
from search.tuner.plan import plan_search
from search.tuner.request import check_request
from tests.conftest import Command, run_here
from tests.support.made_studies import MadeTrial, confirmation, make_study


def test_the_study_used_last_is_found_without_a_look_at_any_trial(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    for name in ("first", "last"):
        make_study(url, name, [MadeTrial((0.5, 0.6, 0.7))])
    with noted_statements() as statements, opened_storage(url) as storage:
        assert select_study(storage, None).study_name == "last"
    assert not [statement for statement in statements if "trial" in statement]


def test_studies_are_listed_each_read_once_and_without_their_graphs(tmp_path: Path) -> None:
    """Of which optuna-dashboard's graphs and notes are most of what is stored."""
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    n_statements = []
    for name in ("one", "two", "three"):
        make_study(url, name, [MadeTrial((0.5, 0.6, 0.7))])
        with noted_statements() as statements:
            assert run_here("studies", "--storage", url) == 0
        n_statements.append(len(statements))
        assert not [statement for statement in statements if "study_system_attr" in statement]
        assert len([each for each in statements if "ORDER BY studies.study_id" in each]) == 1
    assert n_statements[2] - n_statements[1] == n_statements[1] - n_statements[0]


def test_a_trial_is_shown_without_a_look_at_the_others(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    study = make_study(url, "made", [MadeTrial((0.5, 0.6, 0.7 + 0.01 * n)) for n in range(3)])
    shown = open_trial(study, 1)
    with noted_statements() as statements:
        assert run_here("show", "1", "--storage", url) == 0
    assert shown == study.trials[1]
    of_trials = [statement for statement in statements if "FROM trial" in statement]
    assert of_trials
    assert not [statement for statement in of_trials if " IN (" in statement]
    with pytest.raises(StudyError, match="has no trial 3; it has 3 trials, counted from 0"):
        open_trial(study, 3)
    with pytest.raises(StudyError, match="has no trial 9007199254740992"):
        open_trial(study, 2**53)


def test_the_best_is_found_without_a_look_at_what_was_pruned(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    weak = [MadeTrial((0.1,), state=TrialState.PRUNED) for _ in range(5)]
    study = make_study(url, "made", [*weak, MadeTrial((0.5, 0.6, 0.7))])
    with noted_statements() as statements:
        assert run_here("best", "--storage", url) == 0
    assert open_trial(study).number == 5
    of_details = [statement for statement in statements if "FROM trial_" in statement]
    assert of_details
    assert all(" IN (?)" in statement for statement in of_details)  # of one trial
    assert not [statement for statement in statements if "CREATE TABLE" in statement]


@pytest.mark.parametrize(
    "words",
    [("best",), ("best", "--front"), ("show", "1"), ("studies",), ("compare", "one", "two"), ()],
    ids=" ".join,
)
def test_no_command_asks_more_often_the_more_trials_there_are(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_statements = []
    for n_trials in (2, 6):
        (tmp_path / str(n_trials)).mkdir()
        monkeypatch.chdir(tmp_path / str(n_trials))
        for name in ("one", "two"):
            trials = [MadeTrial((0.5, 0.6, 0.7 + 0.01 * n)) for n in range(n_trials)]
            raced = {"confirmation": confirmation(0, {0: (0.7, 0.71), 1: (0.7, 0.69)})}
            make_study("sqlite:///studies.db", name, trials, attributes=raced)
        with noted_statements() as statements:
            assert run_here(*words) == 0
        n_statements.append(len(statements))
    assert n_statements[0] == n_statements[1]


@pytest.mark.parametrize(
    "options",
    [{"n_trials": 3}, {"patience": 5}, {"objective": "accuracy,size"}],
    ids=lambda options: str(*options),
)
def test_a_start_reads_trials_only_where_they_say_how_long_it_is(
    options: dict[str, Any], tmp_path: Path
) -> None:
    """The coordinator reads them once more, under its lock; to read 10,000 takes seconds."""
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    objective = options.get("objective", "accuracy")
    values = {"budget_share": 0.5} if "," in objective else {}
    make_study(url, "made", [MadeTrial((0.5, 0.6, 0.7), values=values)], objective=objective)
    request = SearchRequest(
        3000, 3, dataset="digits", space="standard", storage=url, study="made", **options
    )
    checked = check_request(request)
    with noted_statements() as statements:
        plan = plan_search(checked)
    assert plan.study_name == "made"
    assert not [statement for statement in statements if "FROM trial" in statement]


@contextmanager
def noted_statements() -> Iterator[list[str]]:
    """What is asked of databases meanwhile."""
    statements: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_others: Any) -> None:
        if not statement.startswith("PRAGMA"):  # which look whether a database has all tables
            statements.append(statement)

    sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        sqlalchemy.event.remove(sqlalchemy.Engine, "before_cursor_execute", note)
    assert statements


@pytest.mark.parametrize(
    ("words", "slow"),
    [
        (["best"], ["torch", "torchvision", "matplotlib", "scipy", "sklearn", "pandas"]),
        (["report"], ["torch", "torchvision", "sklearn", "pandas"]),  # of four trials
    ],
    ids=["best", "report"],
)
def test_a_study_is_shown_without_what_is_slow_to_import(
    finished: Command, words: list[str], slow: list[str]
) -> None:
    code = (
        "import sys\n"
        "from search.cli import main\n"
        "try:\n"
        f"    main({words})\n"
        "finally:\n"
        f"    print(sorted(set({slow}).intersection(sys.modules)))\n"
    )
    done = finished.run_words([sys.executable, "-c", code])
    assert done.code == 0, done.err
    assert done.out.endswith("[]\n"), done.out
