"""Bad input by the thousand: a clear error or a right result, never a traceback or half a file."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from search.cli import main
from search.exceptions import CardError, SearchError, SpaceError, StorageError, StudyError
from search.folders import CARD_NAME, default_folder
from search.space.space import Space
from search.space.toml import to_toml
from search.storage.open import opened_storage
from search.storage.urls import shown_url
from search.study.open import check_study_name, open_study
from search.training.card import read_card
from search.training.weights import load
from tests.conftest import DIGITS_RUN, Command, Result, run_here

# The same ones each time, so that a change alone can make a test fail; with more, others.
_N_EXAMPLES = int(os.environ.get("SEARCH_TEST_EXAMPLES", "120"))
MANY = settings(
    max_examples=_N_EXAMPLES,
    derandomize="SEARCH_TEST_EXAMPLES" not in os.environ,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
SOME = settings(MANY, max_examples=_N_EXAMPLES // 2)
FEW = settings(MANY, max_examples=_N_EXAMPLES // 4)
_TEXT = st.text(st.characters(), max_size=30)  # surrogates too: what a terminal hands on
_SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), _TEXT, st.just(10**400), st.just(-1)
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(_TEXT, inner, max_size=4)),
    max_leaves=8,
)
_STANDARD = tomllib.loads(to_toml("standard"))


def _spot(draw: Any, value: Any) -> tuple[Any, Any]:
    """A container somewhere within a value, and one of its keys."""
    while True:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = draw(st.sampled_from(keys))
        inner = value[key]
        if not isinstance(inner, dict | list) or not inner or draw(st.booleans()):
            return value, key
        value = inner


@MANY
@given(data=st.data())
def test_a_card_with_anything_changed_is_refused_or_is_a_card(
    data: st.DataObject, retrained: tuple[Command, Result], tmp_path: Path
) -> None:
    card = json.loads((retrained[0].folder / "weights" / CARD_NAME).read_text())
    for _ in range(data.draw(st.integers(1, 2))):
        holder, key = _spot(data.draw, card)
        if data.draw(st.booleans()):
            holder[key] = data.draw(_VALUES)
        else:
            del holder[key]
        if not card:
            break
    (tmp_path / CARD_NAME).write_text(json.dumps(card))
    try:
        read = read_card(tmp_path)
    except CardError:
        return
    assert read.hyperparameters.spec.parameter_count == card["parameter_count"]


@MANY
@given(text=st.one_of(st.binary(max_size=60), _TEXT.map(lambda t: t.encode(errors="replace"))))
def test_a_card_that_is_anything_is_refused(text: bytes, tmp_path: Path) -> None:
    (tmp_path / CARD_NAME).write_bytes(text)
    with pytest.raises(CardError):
        read_card(tmp_path)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"[]", "a value in it is of another kind than it must be"),
        (b"{}", "there is no 'card_version'"),
        (b"{", "it is no JSON from line 1, column 2 on"),
        (b'{"\xff', "it is no UTF-8 from byte 2 on"),
        (b"[" * 100_000, "it has too many levels"),
    ],
)
def test_what_is_wrong_with_a_card_is_told_in_words(text: bytes, why: str, tmp_path: Path) -> None:
    (tmp_path / CARD_NAME).write_bytes(text)
    with pytest.raises(CardError, match=f"the card cannot be used: {why}\\. Take it as"):
        read_card(tmp_path)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "9" * 5000, "null", "\ufeff{}"])
def test_a_card_that_is_deep_or_long_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / CARD_NAME).write_text(text, encoding="utf-8")
    with pytest.raises(CardError):
        read_card(tmp_path)


def test_what_a_pipe_has_is_no_card_and_no_space(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / CARD_NAME)
    with pytest.raises(CardError, match=r"it is no file with contents"):
        read_card(tmp_path)
    reader, writer = os.pipe()  # as a shell gives the output of another command: <(…)
    os.write(writer, b"batch_size = 64")
    os.close(writer)
    with pytest.raises(SpaceError, match=r"cannot be read \(it is no file with contents\)"):
        Space.load(f"/dev/fd/{reader}")
    os.close(reader)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"card_version": 2}, "the card is of version 2"),
        ({"parameter_count": 1}, "was changed by hand"),
        ({"dataset": {"name": "faces", "classes": list("0123456789")}}, "A data set must be one"),
        ({"card_version": 2, "hyperparameters": {"new": 1}}, "the card is of version 2"),
        ({"card_version": True}, "the card is of version True"),
        ({"parameter_count": 2974.0}, "was changed by hand"),
        ({"dataset": {"name": "digits", "classes": "0123456789"}}, "is no list"),
        ({"dataset": {"name": "folder:a", "classes": list("0012345678")}}, "has one twice"),
        ({"runs": {}}, "is no list"),
        ({"runs": 2 * [{"seed": 1}]}, "has one twice"),
        ({"normalization": {"mean": {}, "std": {}}}, "is no list"),
    ],
)
def test_a_newer_or_tampered_card_is_refused(
    changes: dict[str, Any], message: str, weights: Path
) -> None:
    card = json.loads((weights / CARD_NAME).read_text())
    (weights / CARD_NAME).write_text(json.dumps({**card, **changes}))
    with pytest.raises(CardError, match=message):
        load(weights)


@FEW
@given(data=st.data())
def test_weights_with_any_byte_changed_load_or_are_refused(
    data: st.DataObject, retrained: tuple[Command, Result], tmp_path: Path
) -> None:
    folder = tmp_path / "w"
    if not folder.exists():
        shutil.copytree(retrained[0].folder / "weights", folder)
    original = (retrained[0].folder / "weights" / "seed-1.safetensors").read_bytes()
    damaged = bytearray(original[: data.draw(st.integers(0, len(original)))])
    for _ in range(3):
        if damaged:
            place = data.draw(st.integers(0, min(len(damaged) - 1, 400)))
            damaged[place] = data.draw(st.integers(0, 255))
    (folder / "seed-1.safetensors").write_bytes(damaged)
    count = read_card(folder).hyperparameters.spec.parameter_count
    with contextlib.suppress(CardError):
        network = load(folder, seed=1).network
        assert sum(p.numel() for p in network.parameters()) == count


def _toml(value: Any) -> str:
    """A value as TOML has it, or as near as that comes."""
    match value:
        case bool():
            return str(value).lower()
        case dict():
            return "{ " + ", ".join(f"{k} = {_toml(v)}" for k, v in value.items()) + " }"
        case list():
            return "[" + ", ".join(map(_toml, value)) + "]"
        case str():
            return json.dumps(value)
        case _:
            return str(value)


@MANY
@given(data=st.data())
def test_a_space_file_with_anything_in_it_is_refused_or_is_a_space(
    data: st.DataObject, tmp_path: Path
) -> None:
    path = tmp_path / "space.toml"
    lines = []
    for key in data.draw(st.lists(st.sampled_from([*_STANDARD, "base", "new"]), unique=True)):
        value = data.draw(
            st.one_of(
                _VALUES,
                st.fixed_dictionaries(
                    {"low": _SCALARS, "high": _SCALARS},
                    optional={"log": _SCALARS, "first": _SCALARS, "step": _SCALARS},
                ),
                st.just(_STANDARD.get(key, 1)),
            )
        )
        lines.append(f"{key} = {_toml(value)}")
    path.write_text("\n".join(lines), encoding="utf-8", errors="replace")
    with contextlib.suppress(SearchError):
        space = Space.load(str(path), parameter_cap=3000)
        space.check_fits()
        assert space.smallest_count() < 3000
        values = space.first()
        if values.keys() == space.distributions.keys():
            assert space.spec(values).parameter_count < 3000


@pytest.mark.parametrize(
    "text",
    [
        *("a = " + "[" * 100_000, "a." * 2000 + "b = 1", "a = 9" * 9000),
        *("momentum = 0x" + "f" * 5000, "base = 0b" + "1" * 20_000),
        "width_1 = { low = 1, high = 0o" + "7" * 6000 + " }",
    ],
)
def test_a_space_file_that_is_deep_or_long_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "space.toml").write_text(text)
    with pytest.raises(SpaceError):
        Space.load(str(tmp_path / "space.toml"))


@pytest.mark.parametrize(
    ("words", "which"),
    [
        (("report", "--out", ""), "that of --out"),
        (("retrain", "--out=", "--seeds", "1"), "that of --out"),
        ((*DIGITS_RUN, "--artifacts", ""), "that of --artifacts"),
        (("export", "", "--out", "net.py"), "one of its words"),
    ],
)
def test_a_word_that_is_empty_is_not_the_working_folder(
    words: tuple[str, ...],
    which: str,
    finished: Command,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(finished.folder)
    before = sorted(finished.folder.iterdir())
    assert run_here(*words) == 2
    err = " ".join(capsys.readouterr().err.split())
    assert f"'search {words[0]}' is given must not be empty, but {which} is" in err
    assert sorted(finished.folder.iterdir()) == before


@MANY
@given(name=st.one_of(_TEXT, st.sampled_from(["..", "../../etc", "/etc", "a/../b", "", "~", "."])))
def test_no_study_name_leads_out_of_the_folder_of_runs(name: str) -> None:
    folder = default_folder(name, 3)
    assert len(folder.parts) == 3
    assert folder.parts[0] == "runs"
    assert folder.parts[1] not in ("", ".", "..")
    assert folder.parts[2] == "trial-3"
    assert re.fullmatch(r"[A-Za-z0-9_.-]+", folder.parts[1])


def test_no_two_studies_share_a_folder() -> None:
    names = ("a-b", "a b", "a/b", "a:b", ".a-b", "a" * 200, "a" * 201, "a" * 202, "", "study")
    assert len({default_folder(name, 3) for name in names}) == len(names)
    assert default_folder("mnist-8000x15", 3) == Path("runs/mnist-8000x15/trial-3")


@MANY
@given(name=_TEXT)
def test_a_study_has_its_name_or_is_refused(name: str) -> None:
    try:
        assert check_study_name(name) == name
    except StudyError as error:
        str(error).encode()  # it can be printed
    else:
        assert name.encode().decode() == name


@FEW
@given(name=_TEXT)
def test_a_study_that_no_database_can_name_is_not_found(name: str, database_url: str) -> None:
    with (
        opened_storage(database_url, create=True) as storage,
        pytest.raises(StudyError, match="A study must be in the storage"),
    ):
        open_study(storage, name)


@MANY
@given(
    url=st.one_of(
        _TEXT,
        _TEXT.map(lambda text: f"postgresql+psycopg://user:hunter2{text}@host/db"),
        _TEXT.map(lambda text: f"mysql://user:hunter2@{text}"),
        _TEXT.map(lambda text: f"nothing://user:hunter2@{text}?{text}"),
    )
)
def test_a_storage_is_shown_without_its_password_or_refused(url: str) -> None:
    try:
        shown = shown_url(url)
    except StorageError as error:
        shown = str(error)
    if "hunter2" in url:
        password_is_elsewhere = "@" not in url.split("hunter2", 1)[1].split("/")[0]
        assert "hunter2" not in shown or password_is_elsewhere


@pytest.mark.parametrize("name", ["a{b}.db", "{SCHEMA_VERSION}.db", "ä#b.db"])
def test_a_file_of_any_name_is_a_database(name: str, tmp_path: Path) -> None:
    with opened_storage(f"sqlite:///{tmp_path / name}", create=True):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [name]


_OPTIONS = st.one_of(
    _TEXT,
    st.sampled_from(["0", "-1", "1e9", "nan", "inf", "1" * 5000, "²", "1_0", " 7", ""]),
)
_NAMES = {
    "run": (
        *("budget", "epochs", "trials", "timeout", "patience", "dataset", "study", "from-study"),
        *("workers", "device", "seed", "sampler", "pruner", "space", "objective", "target"),
        *("confidence", "storage", "worker-log", "trial-timeout", "data-dir", "nothing"),
    ),
    "best": ("study", "storage"),
    "retrain": ("trial", "seeds", "study", "out"),
    "confirm": ("top", "seeds", "study"),
    "ablate": ("trial", "seeds", "study"),
    "delete": ("study",),
    "studies": ("storage",),
    "dashboard": ("port", "host"),
    "show": ("study",),
    "backup": ("storage",),
}


@SOME
@given(data=st.data())
def test_an_option_with_anything_in_it_is_refused_with_nothing_written(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("options")
    command = data.draw(st.sampled_from(sorted(_NAMES)))
    name = data.draw(st.sampled_from(_NAMES[command]))
    value = data.draw(_OPTIONS)
    words = [command, "--storage", f"sqlite:///{folder / 'none.db'}", "--nowhere"]
    if command == "run":
        # Over the smallest network's count, so that no run of this test comes to training.
        words = [*DIGITS_RUN, "--storage", f"sqlite:///{folder / 'studies.db'}", "--budget", "50"]
    else:
        words.remove("--nowhere")
    if command in ("show", "backup"):
        words.insert(1, value if not value.startswith("-") else "0")
    words += [f"--{name}={value}"]
    if command == "run" and name == "budget":
        words += ["--device", "none"]
    with (
        contextlib.chdir(folder),
        contextlib.redirect_stderr(io.StringIO()) as err,
        contextlib.redirect_stdout(io.StringIO()),
        pytest.raises(SystemExit) as left,
    ):
        main(words)
    assert left.value.code in (1, 2), words
    assert "Traceback" not in err.getvalue()
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("name", ["budget", "epochs", "trials", "patience"])
def test_a_whole_number_of_hundreds_of_digits_is_refused(command: Command, name: str) -> None:
    for digits in ("9" * 17, "9" * 400, "9" * 5000):
        refused = command("run", "--dataset", "digits", f"--{name}", digits)
        assert (refused.code, "must be a whole number from 1" in refused.err) == (2, True)
    assert list(command.folder.iterdir()) == []
