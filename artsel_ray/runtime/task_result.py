"""What Ray Data's tasks and actors return: results and input errors as values, and objects that stay out of its logs.

An `InputError` raised in a task would reach the user as Ray's traceback, after retries. And Ray Data writes values that
Arrow has no type for into its logs, where captions and histories must not be read.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import ray
from ray.exceptions import OutOfMemoryError, RayError

from artsel_ray.errors import InputError

COLUMN = "result"
_CANNOT_IMPORT = re.compile(r"(ModuleNotFoundError|ImportError)\b|AttributeError: (Can't get attribute|module )")


class _Opaque:
    """Holds an object and does not show it."""

    def __init__(self, value: Any) -> None:
        self.value = value


def wrap(value: Any) -> dict[str, np.ndarray]:
    """Returns a batch of one row that holds an object as it is."""
    column = np.empty(1, dtype=object)
    column[0] = _Opaque(value)
    return {COLUMN: column}


def unwrap(batch: dict[str, Any]) -> Any:
    """Returns the object of `wrap`; it may be an `InputError`."""
    return batch[COLUMN][0].value


def capture(function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a function; returns its result, or the `InputError` that it raised."""
    try:
        return function(*arguments)
    except InputError as error:
        return error


def results(dataset: ray.data.Dataset) -> Iterator[Any]:
    """Yields a dataset's wrapped results, each as soon as it is there.

    Raises:
        InputError: that a task or actor returned, or that `as_input_error` returns.
    """
    # `iter_rows` would hold one back.
    batches = dataset.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=0)
    try:
        for batch in batches:
            for opaque in batch[COLUMN]:
                if isinstance(opaque.value, InputError):
                    raise opaque.value
                yield opaque.value
    except RayError as error:
        raise as_input_error(error) from None


def as_input_error(error: RayError) -> Exception:
    """Returns one line for what is wrong with the cluster: memory, or what is installed; any other error as it is."""
    if isinstance(error, OutOfMemoryError):
        return InputError(
            "a machine's memory is full: Ray's memory monitor has killed the same task at every try; end other "
            "programs there, or take machines with more memory"
        )
    last = (str(error).strip() or "no reason").splitlines()[-1]
    if _CANNOT_IMPORT.match(last):
        return InputError(
            f"a worker process of Ray cannot import this program: {last}; install the same packages on every node, or "
            "submit the job with its --working-dir"
        )
    return error


def map_tasks(items: Sequence[Any] | int, function: Callable[[Any], Any], num_cpus: float = 1) -> Iterator[Any]:
    """Yields a function's result for each item, or each index below a number, from one Ray task each, as they finish.

    Raises:
        InputError: that the function raised.
    """
    count = items if isinstance(items, int) else len(items)

    def task(row: dict[str, Any]) -> dict[str, np.ndarray]:
        index = int(row["id"][0])
        return wrap(capture(function, index if isinstance(items, int) else items[index]))

    # One block for each item, so that one task works on one item and a lost one is redone alone.
    indices = ray.data.range(count, override_num_blocks=count)
    yield from results(indices.map_batches(task, batch_size=None, num_cpus=num_cpus))
