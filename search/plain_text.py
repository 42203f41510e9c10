"""Text from outside, made safe for what shows it: a terminal, a shell, JSON, a Markdown note.

Names of studies, of classes and of folders, and errors that repeat them, may hold anything that a
file system or a database takes: escape sequences that a terminal obeys, signs that turn the
direction of reading, halves of characters, Markdown, HTML. An HTML page escapes by itself what
`printable` leaves, and a picture draws it as it stands, without reading formulas.
"""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Iterable

# Controls (Cc), signs without a shape (Cf: marks of direction, blanks without width), halves of
# characters (Cs), and separators of lines and paragraphs (Zl, Zp).
_UNSHOWN = ("Cc", "Cf", "Cs", "Zl", "Zp")
_JOINERS = "\u200c\u200d"  # which letters of some languages need between them


def _is_shown(character: str) -> bool:
    return character in _JOINERS or unicodedata.category(character) not in _UNSHOWN


def _escaped(character: str) -> str:
    """As Python writes it."""
    return ascii(character)[1:-1]


def printable(text: str, *, keep: str = "") -> str:
    r"""A text in which nothing acts on what shows it: such a character stands as `\x1b`.

    Args:
        keep: characters that stay, as the line breaks of a text of several lines.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character if character in keep or _is_shown(character) else _escaped(character)
        for character in text
    )


def printable_lines(text: str) -> str:
    """The same for a text that has line breaks of its own."""
    return printable(text, keep="\n\t")


def printable_json(text: str) -> str:
    """JSON as a terminal may show it, which says what it said."""
    return "".join(
        character if character == "\n" or _is_shown(character) else _as_json(character)
        for character in text
    )


def _as_json(character: str) -> str:
    data = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{data[i : i + 2].hex()}" for i in range(0, len(data), 2))


def shell_line(words: Iterable[str]) -> str:
    """A command line that can be copied into a shell, and shown anywhere: it is one line."""
    return " ".join(map(_shell_word, words))


def _shell_word(word: str) -> str:
    if printable(word) == word:
        return shlex.quote(word)
    # bash, zsh and ksh read $'…' by the rules of C.
    quoted = "".join(
        _as_shell(character) if not _is_shown(character) else re.sub(r"([\\'])", r"\\\1", character)
        for character in word
    )
    return f"$'{quoted}'"


def _as_shell(character: str) -> str:
    data = character.encode("utf-8", "surrogateescape" if _is_raw_byte(character) else "replace")
    return "".join(f"\\{byte:03o}" for byte in data)


def _is_raw_byte(character: str) -> bool:
    """Whether it stands for a byte of a file's name that is no UTF-8."""
    return "\udc80" <= character <= "\udcff"


def markdown(text: str) -> str:
    """A text as the cell of a table in Markdown, in which nothing is Markdown, HTML or a link."""
    # A stroke ends a cell, in code as well; behind a backslash it does not.
    text = re.sub(r"(\\*)\|", r"\1\1\\|", printable(text))
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * (longest + 1)
    gap = " " if text[:1] in ("`", " ", "") or text[-1:] in ("`", " ") else ""
    return f"{fence}{gap}{text}{gap}{fence}"
