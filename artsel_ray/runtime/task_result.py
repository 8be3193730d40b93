"""Answers of tasks that may fail because of the user's input: Ray would make a traceback of the error."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import ray

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


def map_files(count: int, function: Callable[[int], Any]) -> Iterator[Any]:
    """Yields what a function returns for each file's index, one task a file, as they are done; plain JSON."""
    indices = ray.data.range(count, override_num_blocks=count)
    yield from values(indices.map(lambda row: answer(function, int(row["id"]))))


def values(dataset: ray.data.Dataset) -> Iterator[Any]:
    """Yields the values of a dataset of answers, each as soon as it is there: `iter_rows` would hold one back."""
    batches: Iterator[Any] = iter(dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0))
    for batch in batches:
        yield from map(value, batch.to_pylist())
