"""How much a candidate's position decides: the same examples with their candidates in several orders.

Suffixes: r runs (one order each), n examples.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from artsel_ray.evaluation.bootstrap import Measurement, bootstrap
from artsel_ray.evaluation.examples import UNKNOWN, Examples, IntArray
from artsel_ray.evaluation.off_policy import Terms
from artsel_ray.evaluation.policies import EstimateSettings


@dataclass(frozen=True)
class PermutedChoices:
    """What R runs, each with another order of the candidates, chose in N examples."""

    choice_rn: IntArray
    """The chosen artwork, by any numbering; `UNKNOWN` where a run has none."""
    hit_rn: NDArray[np.bool_]
    """Whether it is the engaged one."""
    chosen_rn: IntArray
    """0-based position at which it was shown; `UNKNOWN` where that is not known."""
    truth_rn: IntArray
    """0-based position at which the engaged artwork was shown; `UNKNOWN` where that is not known."""


@dataclass(frozen=True)
class PositionPreference:
    """How often one position is chosen, and how accurate choices are where the engaged artwork is shown there."""

    position: int
    """0-based."""
    examples: int
    """Number of choices, over all runs, with the engaged artwork at this position."""
    chosen: Measurement
    """Share of the choices among more than `position` candidates that fall on this position."""
    random: float
    """The same of a random draw, the mean of 1/m."""
    accuracy: Measurement


@dataclass(frozen=True)
class PositionBias:
    """`permutations` of metrics.json.

    If positions decide nothing, agreement is 1, and in orders drawn at random every position is chosen as often as by
    a random draw.
    """

    runs: int
    agreement: Measurement
    """How often two runs choose the same artwork, over all pairs of runs that both have a choice."""
    accuracy: Measurement
    """Over all runs."""
    by_place: list[PositionPreference]


def measure_position_bias(choices: PermutedChoices, examples: Examples, settings: EstimateSettings) -> PositionBias:
    """Returns how runs agree, and what positions they prefer, with intervals over users."""
    positions = range(int(choices.truth_rn.max(initial=UNKNOWN)) + 1)
    terms = _terms(choices, examples, positions)
    estimates = bootstrap(terms, examples.user_n, settings.resamples, settings.seed)
    return PositionBias(
        runs=len(choices.choice_rn),
        agreement=estimates["agreement", UNKNOWN].measurement(),
        accuracy=estimates["accuracy", UNKNOWN].measurement(),
        by_place=[
            PositionPreference(
                position=position,
                examples=int((choices.truth_rn == position).sum()),
                chosen=estimates["chosen", position].measurement(),
                random=float(examples.uniform_n[examples.candidates_n > position].mean()),
                accuracy=estimates["accuracy", position].measurement(),
            )
            for position in positions
        ],
    )


def _terms(choices: PermutedChoices, examples: Examples, positions: range) -> Iterator[tuple[tuple[str, int], Terms]]:
    """Yields ratios by name and position; `UNKNOWN` for all positions together."""
    yield ("agreement", UNKNOWN), _agreement(choices.choice_rn)
    runs_n = np.full(len(examples.user_n), float(len(choices.choice_rn)))
    yield ("accuracy", UNKNOWN), Terms(choices.hit_rn.sum(0, dtype=float), runs_n)
    for position in positions:
        shown_rn = (choices.chosen_rn != UNKNOWN) & (examples.candidates_n > position)
        chosen_rn = choices.chosen_rn == position
        yield ("chosen", position), Terms(chosen_rn.sum(0, dtype=float), shown_rn.sum(0, dtype=float))
        at_rn = choices.truth_rn == position
        yield ("accuracy", position), Terms((at_rn & choices.hit_rn).sum(0, dtype=float), at_rn.sum(0, dtype=float))


def _agreement(choice_rn: IntArray) -> Terms:
    """Counts, over all pairs of runs with a choice each, those that are the same."""
    pairs = list(itertools.combinations(choice_rn, 2))
    both = [(a_n != UNKNOWN) & (b_n != UNKNOWN) for a_n, b_n in pairs]
    same = [(a_n == b_n) & both_n for (a_n, b_n), both_n in zip(pairs, both, strict=True)]
    return Terms(np.sum(same, axis=0, dtype=float), np.sum(both, axis=0, dtype=float))
