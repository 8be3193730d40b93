"""Runs of the same pairs with their candidates in several orders, joined to the examples."""

import itertools

import numpy as np

from artsel_ray.errors import InputError
from artsel_ray.evaluate.choices import PredictedChoices, check_belongs, read_choices
from artsel_ray.evaluate.example_table import ExampleTable
from artsel_ray.evaluation.examples import UNKNOWN, FloatArray, IntArray
from artsel_ray.evaluation.policies import PermutedChoices


def read_permuted(uris: list[str], table: ExampleTable) -> PermutedChoices:
    """Reads runs of `jobs/score.py --permutation` for the table's examples.

    Raises:
        InputError: if two runs showed the same order; otherwise as `read_choices` and `check_belongs`.
    """
    runs = [read_choices(uri, table, ranked=True) for uri in uris]
    for uri, run in zip(uris, runs, strict=True):
        check_belongs(uri, run, table)
    for (before, first), (uri, second) in itertools.combinations(zip(uris, runs, strict=True), 2):
        shown_c = second.shown_position_c
        if np.isfinite(shown_c).any() and np.array_equal(shown_c, first.shown_position_c, equal_nan=True):
            raise InputError(f"{uri} shows candidates in the same order as {before}; use another --permutation")
    return PermutedChoices(
        choice_rn=np.stack([_texts(run, table) for run in runs]),
        hit_rn=np.stack([run.hit_n(table) > 0 for run in runs]),
        chosen_rn=np.stack([_chosen_positions(run, table) for run in runs]),
        truth_rn=np.stack([_as_positions(table.examples.truth_of(run.shown_position_c)) for run in runs]),
    )


def _texts(run: PredictedChoices, table: ExampleTable) -> IntArray:
    """Returns the text of each choice: two orders agree if what they chose reads the same."""
    text_c = table.candidate_c if table.examples.text_c is None else table.examples.text_c
    text_n = table.examples.sums_of(run.policy_c(table) * text_c).astype(np.int64)
    return np.where(run.artwork_n == UNKNOWN, UNKNOWN, text_n)


def _chosen_positions(run: PredictedChoices, table: ExampleTable) -> IntArray:
    position_n = table.examples.sums_of(np.where(run.policy_c(table) > 0, run.shown_position_c, 0.0))
    return np.where(run.artwork_n == UNKNOWN, UNKNOWN, _as_positions(position_n))


def _as_positions(position_n: FloatArray) -> IntArray:
    return np.nan_to_num(position_n, nan=UNKNOWN).astype(np.int64)
