"""Spaces as TOML files: the built-in ones, read and written."""

from __future__ import annotations

import codecs
import itertools
import json
import tomllib
from pathlib import Path
from typing import Any

from search.exceptions import SpaceError
from search.files import check_has_contents
from search.space.adaptive import Situation, adaptive_table
from search.space.design import DESIGN_NAMES
from search.space.limits import KINDS

_LINE_WIDTH = 80  # columns of a space file, beyond which what a line is stands above it
STANDARD = """\
topology = "c3, c3, drop, pool, c3, drop, pool, c3, c3, out+bias, gap"
width_1 = { low = 4, high = 20, first = 8 }
width_2 = { low = 4, high = 28, first = 12 }
width_3 = { low = 4, high = 32, first = 14 }
width_4 = { low = 4, high = 32, first = 16 }
width_5 = { low = 4, high = 32, first = 18 }
budget_share = 1.0
learning_rate = { low = 0.02, high = 0.3, log = true, first = 0.1 }
momentum = { low = 0.8, high = 0.98, first = 0.9 }
weight_decay = { low = 1e-6, high = 1e-3, log = true, first = 1e-4 }
dropout = { low = 0.0, high = 0.1, first = 0.02 }
rotation_degrees = { low = 0.0, high = 15.0, first = 7.0 }
translation = { low = 0.0, high = 0.1, first = 0.04 }
scale = { low = 0.0, high = 0.15, first = 0.08 }
shear_degrees = { low = 0.0, high = 10.0, first = 5.0 }
optimizer = "nesterov"
schedule = "one-cycle"
warmup_share = 0.2
step_share = 0.4
step_gamma = 0.1
batch_size = 128
"""
WIDE = """\
topology = [
    "c3, c3, drop, pool, c3, drop, pool, c3, c3, out+bias, gap",
    "c3, c3, c3, drop, pool, c3, c3, drop, c3, c3, gap, out",
    "c3p1, c3, drop, pool, c3p1, c3, drop, pool, c3p1, c3, gap, out",
    "c3p1, c3p1, drop, pool, c3p1, c3p1, drop, pool, c3p1, c3p1 10, gap",
    "c3p1, c3, drop, pool, c3, c3, c1, drop, pool, c3, c1, gap, out",
]
width_1 = { low = 4, high = 20 }
width_2 = { low = 4, high = 24 }
width_3 = { low = 4, high = 32 }
width_4 = { low = 4, high = 32 }
width_5 = { low = 4, high = 32 }
width_6 = { low = 4, high = 32 }
width_7 = { low = 4, high = 32 }
budget_share = 1.0
learning_rate = { low = 0.0005, high = 0.5, log = true }
momentum = { low = 0.5, high = 0.99 }
weight_decay = { low = 1e-7, high = 1e-2, log = true }
dropout = { low = 0.0, high = 0.3 }
rotation_degrees = { low = 0.0, high = 25.0 }
translation = { low = 0.0, high = 0.2 }
scale = { low = 0.0, high = 0.25 }
shear_degrees = { low = 0.0, high = 20.0 }
optimizer = ["nesterov", "adamw"]
schedule = ["one-cycle", "step", "cosine", "constant"]
warmup_share = { low = 0.05, high = 0.4 }
step_share = { low = 0.2, high = 0.8 }
step_gamma = { low = 0.05, high = 0.5, log = true }
batch_size = [32, 64, 128, 256, 512]
"""
ADAPTIVE = "adaptive"
_TEXTS = {"standard": STANDARD, "wide": WIDE}
BUILT_IN = (ADAPTIVE, *_TEXTS)


def built_in_table(name: str, situation: Situation) -> dict[str, Any]:
    """The table of a built-in space; only that of `adaptive` depends on the situation."""
    return adaptive_table(situation) if name == ADAPTIVE else tomllib.loads(_TEXTS[name])


def read_file(name: str, situation: Situation) -> dict[str, Any]:
    """The table in a space file, with what it leaves out of its base.

    Raises:
        SpaceError: if it cannot be read.
    """
    path = Path(name)
    try:
        table = tomllib.loads(path.read_text(encoding=encoding_of(path)))
    except FileNotFoundError as error:
        raise SpaceError(
            f"A space must be one of {', '.join(BUILT_IN)} or a TOML file, but there is no file "
            f"{name!r}; 'search space > my-space.toml' writes one to start from."
        ) from error
    except OSError as error:
        raise SpaceError(f"{name}: the file cannot be read ({error.strerror}).") from error
    except (ValueError, RecursionError) as error:  # no text, no TOML, no path, or too deep
        raise SpaceError(f"{name}: the file must be TOML, but {error}.") from error
    for key, value in table.items():
        if not _fits(value):
            raise SpaceError(
                f"{name}: {key}: a whole number must be one of TOML's, which have 64 bits, but got "
                "a larger one."
            )
    base = table.pop("base", "standard")
    if not isinstance(base, str) or base not in BUILT_IN:
        raise SpaceError(f"{name}: base must be one of {', '.join(BUILT_IN)}, but got {base!r}.")
    found = built_in_table(base, situation)
    _check_kind(name, base, table, is_design="topology" not in {**found, **table})
    if "topology" in table:  # in the place of a design
        found = {key: value for key, value in found.items() if key not in DESIGN_NAMES}
    return {**found, **table}


def encoding_of(path: Path) -> str:
    """How a file's text is stored; as UTF-16 where PowerShell wrote what a command printed.

    Raises:
        OSError: if the file cannot be read.
    """
    check_has_contents(path)  # it is read more than once
    with path.open("rb") as file:
        return (
            "utf-16" if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"
        )


def _check_kind(name: str, base: str, table: dict[str, Any], *, is_design: bool) -> None:
    """Raises SpaceError where a file says of a design what its networks, topologies, have not."""
    of_designs = [key for key in table if key in DESIGN_NAMES]
    if is_design or not of_designs:
        return
    if "topology" in table:
        raise SpaceError(
            f"{name}: {of_designs[0]} must not stand beside a topology, which says itself which "
            "blocks and pools a network has; take one of the two away."
        )
    raise SpaceError(
        f"{name}: {of_designs[0]} must stand on a base of designs, but {base!r} has a topology; "
        f'add the line base = "{ADAPTIVE}".'
    )


def _fits(value: Any) -> bool:
    """Whether all whole numbers in a value fit in 64 bits; the parser takes any, in hexadecimal."""
    inner = [value]
    while inner:  # not by recursion: a table may be deep
        each = inner.pop()
        if isinstance(each, dict):
            inner += each.values()
        elif isinstance(each, list):
            inner += each
        elif isinstance(each, int) and not -(2**63) <= each < 2**63:
            return False
    return True


def toml_value(value: Any) -> str:
    """A value as a space file writes it."""
    if isinstance(value, dict):
        pairs = (f"{key} = {toml_value(each)}" for key, each in value.items())
        return f"{{ {', '.join(pairs)} }}"
    return json.dumps(value, ensure_ascii=False)


def to_toml(name: str, situation: Situation | None = None) -> str:
    """A built-in space as the text of a space file, with what each line is.

    Args:
        situation: what `adaptive` adapts to; by default MNIST under 8,000 parameters in 15 epochs.

    Raises:
        SpaceError: if there is none of that name.
    """
    if name not in BUILT_IN:
        raise SpaceError(f"A built-in space must be one of {', '.join(BUILT_IN)}, not {name!r}.")
    head = [
        f'# The search space "{name}". A value fixes a hyperparameter, a list chooses, a table',
        "# { low, high, log } is a range. What is left out is taken from the base.",
        f'base = "{name}"',
    ]
    lines = []
    if name == ADAPTIVE:
        table = adaptive_table(situation or Situation())
        text = "".join(f"{key} = {toml_value(value)}\n" for key, value in table.items())
    else:
        text = _TEXTS[name]
    for line in text.splitlines():
        about = KINDS[line.split(" = ")[0]].about if " = " in line and line[0] != " " else ""
        if about and len(f"{line}  # {about}") > _LINE_WIDTH:
            lines += [f"# {about}", line]
        else:
            lines.append(f"{line}  # {about}" if about else line)
    return "\n".join(itertools.chain(head, [""], lines)) + "\n"
