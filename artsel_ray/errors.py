"""The one exception that a job reports as a line instead of a traceback, and other libraries' errors as one line."""

import re
from collections.abc import Collection

_MAX_CHARACTERS = 400
# Flags, environment variables and arguments.
_OPTION = re.compile(r"--[a-z][a-z-]*|\b[A-Z]+(?:_[A-Z]+)+\b|\b[a-z]+(?:_[a-z]+)+\b")


class InputError(Exception):
    """A wrong input, flag or environment. The message says what was wrong, where, and how to fix it."""


def one_line(error: BaseException) -> str:
    """Returns another library's complete message as one line of at most 400 characters."""
    return " ".join(str(error).split())[:_MAX_CHARACTERS]


def without_advice(text: str, own: Collection[str] = ()) -> str:
    """Returns the first sentence of another library's message, and those that name none of its options.

    Args:
        own: options that this package's commands have too.
    """
    first, *others = sentences(text)
    return " ".join([first, *(each for each in others if set(_OPTION.findall(each)) <= set(own))])


def sentences(text: str) -> list[str]:
    """Returns a message's sentences, each in one line."""
    return re.split(r"(?<=[.!?]) ", " ".join(text.split()))


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's own message, or its type where it has none."""
    message = str(error).strip()
    return message.splitlines()[0] if message else type(error).__name__
