"""The one exception that a job answers with a line instead of a traceback, and other libraries' errors as one line."""

_MAX_LETTERS = 400


class InputError(Exception):
    """A wrong input, flag or environment. Its message says what was wrong, where, and how to fix it."""


def one_line(error: BaseException) -> str:
    """Returns another library's whole message as one line of bounded length."""
    return " ".join(str(error).split())[:_MAX_LETTERS]


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's own message, or its type where it has none."""
    message = str(error).strip()
    return message.splitlines()[0] if message else type(error).__name__
