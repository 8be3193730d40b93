"""The one exception that a job answers with a line instead of a traceback."""


class InputError(Exception):
    """A wrong input, flag or environment. Its message says what was got, what was expected and how to mend it."""


_SHOWN = 400


def one_line(error: Exception) -> str:
    """Returns another library's message as one line of bounded length."""
    return " ".join(str(error).split())[:_SHOWN]
