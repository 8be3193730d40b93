"""The one exception that a job reports as a line instead of a traceback, and other libraries' errors as one line."""

_MAX_CHARACTERS = 400


class InputError(Exception):
    """A wrong input, flag or environment. The message says what was wrong, where, and how to fix it."""


def one_line(error: BaseException) -> str:
    """Returns another library's complete message as one line of at most 400 characters."""
    return " ".join(str(error).split())[:_MAX_CHARACTERS]


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's own message, or its type where it has none."""
    message = str(error).strip()
    return message.splitlines()[0] if message else type(error).__name__
