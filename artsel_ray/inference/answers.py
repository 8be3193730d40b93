"""Answers of tasks that may fail because of the user's input: Ray would make a traceback of the error."""

import json
from collections.abc import Callable
from typing import Any

from artsel_ray.errors import InputError


def answer(function: Callable[[Any], Any], argument: Any) -> dict[str, str]:
    """Calls a function whose value is plain JSON; an `InputError` of it comes back as a value."""
    try:
        return {"error": "", "answer": json.dumps(function(argument))}
    except InputError as error:
        return {"error": str(error), "answer": ""}


def value(row: dict[str, str]) -> Any:
    """Returns the value of an answer, or raises its `InputError`."""
    if row["error"]:
        raise InputError(row["error"])
    return json.loads(row["answer"])
