"""What is wrong with the words of a command: the rule, the word, and what to give in its place."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from typer import BadParameter

from search.cli.grouped_help import GroupedCommand
from search.exceptions import InputError
from search.wording import meant


class WordedCommand(GroupedCommand):
    """A command that says what is wrong with its arguments and options."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not ctx.resilient_parsing:
            _check_words(ctx, args)
        ctx.allow_extra_args = True  # they are told of below
        try:
            rest = super().parse_args(ctx, args)
        except BadParameter as error:
            if type(error).__name__ == "MissingParameter" and error.param is not None:
                raise _missing(ctx, error.param) from None
            raise
        except Exception as error:  # of classes that Typer keeps to itself
            option = getattr(error, "option_name", None)
            if option is None:
                raise
            raise _bad_option(ctx, option, error) from None
        if rest and not ctx.resilient_parsing:
            raise _unexpected(ctx, rest[0])
        return rest


def _check_words(ctx: Any, args: list[str]) -> None:
    """Sees that no word is empty: as a path, it would be the working folder."""
    for before, word in pairwise(["", *args]):
        option, equals, value = word.partition("=")
        if word and not (option in _options(ctx) and equals and not value):
            continue
        after = option or before
        where = f"that of {after}" if after.startswith("-") else "one of its words"
        raise InputError(
            f"What '{ctx.command_path}' is given must not be empty, but {where} is, as where a "
            "variable of the shell is not set; leave it out, or give its value."
        )


def _missing(ctx: Any, param: Any) -> InputError:
    is_option = param.param_type_name == "option"
    what = param.opts[-1] if is_option else _name(param)
    _, _, example = (ctx.command.help or "").partition("Example: ")
    return InputError(
        f"'{ctx.command_path}' must be given {what}, but it is missing; give it, as in "
        f"'{example.strip()}'."
    )


def _bad_option(ctx: Any, name: str, error: Exception) -> InputError:
    known = _options(ctx)
    if name in known:
        return InputError(
            f"The option {name} of '{ctx.command_path}' must be used as its help says, but "
            f"{str(error)[:1].lower()}{str(error)[1:].rstrip('.')}; see "
            f"'{ctx.command_path} --help'."
        )
    return InputError(
        f"An option must be one of those that '{ctx.command_path} --help' lists, but got "
        f"{name}{meant(name, known)}"
    )


def _unexpected(ctx: Any, word: str) -> InputError:
    """What to say of a word too many; most likely it is the value of an option."""
    arguments = [_name(p) for p in ctx.command.params if p.param_type_name == "argument"]
    taken = " ".join([*arguments, "and options"]) if arguments else "options alone"
    candidates = ("--trial", "--port") if word.isdecimal() else ("--dataset", "--study")
    option = next((name for name in candidates if name in _options(ctx)), None)
    hint = "" if option is None else f", or say what it is, as '{option} {word}'"
    return InputError(
        f"'{ctx.command_path}' takes {taken}, but got {word!r} besides; leave it out{hint}."
    )


def _name(argument: Any) -> str:
    """As the usage line has it."""
    return str(argument.metavar or argument.name.upper())


def _options(ctx: Any) -> list[str]:
    return [name for param in ctx.command.params for name in param.opts if name.startswith("-")]
