"""The one exception that a job answers with a line instead of a traceback."""


class InputError(Exception):
    """A wrong input, flag or environment. Its message says what was got, what was expected and how to mend it."""
