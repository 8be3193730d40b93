import dataclasses
import json

import numpy as np
import pytest

from artsel_ray.evaluation.bootstrap import Measurement
from artsel_ray.evaluation.examples import UNKNOWN, Examples
from artsel_ray.evaluation.policies import EstimateSettings
from artsel_ray.evaluation.position_bias import PermutedChoices, measure_position_bias

# Two users, three examples of 2, 2 and 3 candidates.
EXAMPLES = Examples(np.array([0, 0, 1]), np.zeros(3, np.int64), np.array([2, 2, 3]), np.full(3, np.nan))


def test_numbers_by_hand() -> None:
    choices = PermutedChoices(
        choice_rn=np.array([[1, 4, 7], [1, 5, UNKNOWN], [2, 4, 7]]),
        hit_rn=np.array([[True, False, True], [True, True, False], [False, False, True]]),
        chosen_rn=np.array([[0, 0, 2], [1, 0, UNKNOWN], [0, 0, 1]]),
        truth_rn=np.array([[0, 1, 2], [1, 0, 0], [1, 1, 1]]),
    )
    found = measure_position_bias(choices, EXAMPLES, EstimateSettings(100, 0))
    # Of the first example's three pairs of runs one agrees, of the second's one, and the third has only one pair.
    assert found.agreement.value == pytest.approx(3 / 7)
    assert found.accuracy.value == pytest.approx(5 / 9)
    rows = found.by_place
    assert [row.position for row in rows] == [0, 1, 2]
    assert [row.chosen.value for row in rows] == pytest.approx([5 / 8, 2 / 8, 1 / 2])
    assert [row.random for row in rows] == pytest.approx([4 / 9, 4 / 9, 1 / 3])
    # Position 0: hits of examples 0 and 1, a miss of 2. Position 1: miss, hit, miss, miss, hit. Position 2: a hit.
    assert [row.accuracy.value for row in rows] == pytest.approx([2 / 3, 2 / 5, 1])
    assert [row.examples for row in rows] == [3, 5, 1]
    json.dumps(dataclasses.asdict(found), allow_nan=False)


def test_preference_for_a_position_differs_from_preference_for_an_artwork() -> None:
    rng = np.random.default_rng(0)
    n, runs = 2_000, 4
    examples = Examples(np.arange(n), np.zeros(n, np.int64), np.full(n, 4), np.full(n, np.nan))
    # order[r, n, a] is the position of artwork a; the engaged artwork is 0.
    order = rng.permuted(np.tile(np.arange(4), (runs, n, 1)), axis=2)
    first = order.argmin(axis=2)
    settings = EstimateSettings(50, 0)
    of_position = PermutedChoices(first, first == 0, np.zeros_like(first), order[:, :, 0])
    position = measure_position_bias(of_position, examples, settings)
    assert position.by_place[0].chosen.value == 1
    # Two random artworks of four are the same in a quarter of the cases.
    assert position.agreement.value == pytest.approx(0.25, abs=0.03)
    liked = np.full((runs, n), 2)
    of_artwork = PermutedChoices(liked, liked == 0, order[:, :, 2], order[:, :, 0])
    artwork = measure_position_bias(of_artwork, examples, settings)
    assert artwork.agreement == Measurement(1, 1, 1)
    assert [row.chosen.value for row in artwork.by_place] == pytest.approx([0.25] * 4, abs=0.03)


def test_agreement_without_known_orders() -> None:
    choice = np.array([[1, 4, 7], [1, 4, 7]])
    unknown = np.full((2, 3), UNKNOWN)
    choices = PermutedChoices(choice, choice == 1, unknown, unknown)
    found = measure_position_bias(choices, EXAMPLES, EstimateSettings(20, 0))
    assert (found.agreement.value, found.by_place) == (1, [])
