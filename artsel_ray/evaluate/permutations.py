"""Runs of the same pairs with their candidates in several orders."""

import numpy as np

from artsel_ray.errors import InputError
from artsel_ray.evaluate.choices import Choices, read_choices
from artsel_ray.evaluate.example_table import UNKNOWN, ExampleTable
from artsel_ray.evaluation.metrics import FloatArray, IntArray
from artsel_ray.evaluation.position_bias import Orders


def read_orders(uris: list[str], table: ExampleTable) -> Orders:
    """Reads runs of `jobs/score.py --permutation` for the table's examples.

    Raises:
        InputError: if two runs showed the same order; what `read_choices` raises.
    """
    runs = [read_choices(uri, table, ranked=True) for uri in uris]
    for number, run in enumerate(runs):
        for other, before in enumerate(runs[:number]):
            if np.isfinite(run.place_c).any() and np.array_equal(run.place_c, before.place_c, equal_nan=True):
                raise InputError(
                    f"{uris[number]} shows candidates in the same order as {uris[other]}; take another --permutation"
                )
    return Orders(
        np.stack([run.artwork_n for run in runs]),
        np.stack([run.artwork_n == table.truth_n for run in runs]),
        np.stack([_places(run, run.policy_c(table), table) for run in runs]),
        np.stack([_truth_places(run, table) for run in runs]),
    )


def _places(run: Choices, policy_c: FloatArray, table: ExampleTable) -> IntArray:
    """Returns the place of each choice; `UNKNOWN` where there is none, or no list that tells it."""
    place_n = table.examples.sums_of(np.where(policy_c > 0, run.place_c, 0.0))
    return np.where(run.artwork_n == UNKNOWN, UNKNOWN, np.nan_to_num(place_n, nan=UNKNOWN)).astype(np.int64)


def _truth_places(run: Choices, table: ExampleTable) -> IntArray:
    return np.nan_to_num(table.examples.truth_of(run.place_c), nan=UNKNOWN).astype(np.int64)
