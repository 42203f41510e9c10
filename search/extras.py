"""What this package's optional extras bring, imported where a user asks for it, or refused."""

from __future__ import annotations

import importlib

from search.exceptions import InputError
from search.wording import install_words


def import_extra(extra: str, *modules: str, rule: str, package: str | None = None) -> None:
    """Imports modules that an extra brings.

    Args:
        rule: what must have them, as the begin of a sentence.
        package: what they need, where it is not their own.

    Raises:
        InputError: if one is not installed, or its installation is broken.
    """
    for module in modules:
        needed = package or module.partition(".")[0]
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name != needed:
                raise _refused(rule, needed, error, extra) from error
            raise InputError(
                f"{rule}, but {needed} is not installed; install it with: {install_words(extra)}."
            ) from error
        except Exception as error:  # whatever a broken installation comes to
            raise _refused(rule, needed, error, extra) from error


def _refused(rule: str, package: str, error: Exception, extra: str) -> InputError:
    reason, *_ = [*str(error).splitlines(), ""]
    return InputError(
        f"{rule}, but {package} cannot be imported here ({type(error).__name__}: {reason[:200]}); "
        f"install it anew with: {install_words(extra)}."
    )
