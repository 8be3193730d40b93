import json

import numpy as np
import pytest

from artsel_ray.evaluation.metrics import Examples
from artsel_ray.evaluation.position_bias import UNKNOWN, Orders, audit

# Two users, three examples of 2, 2 and 3 candidates.
EXAMPLES = Examples(np.array([0, 0, 1]), np.zeros(3, np.int64), np.array([2, 2, 3]), np.full(3, np.nan))


def test_numbers_by_hand() -> None:
    orders = Orders(
        choice_rn=np.array([[1, 4, 7], [1, 5, UNKNOWN], [2, 4, 7]]),
        hit_rn=np.array([[True, False, True], [True, True, False], [False, False, True]]),
        chosen_rn=np.array([[0, 0, 2], [1, 0, UNKNOWN], [0, 0, 1]]),
        truth_rn=np.array([[0, 1, 2], [1, 0, 0], [1, 1, 1]]),
    )
    found = audit(orders, EXAMPLES, 100, 0)
    # Of the first example's three pairs of runs one agrees, of the second's one, and the third has only one pair.
    assert found["agreement"]["value"] == pytest.approx(3 / 7)
    assert found["accuracy"]["value"] == pytest.approx(5 / 9)
    rows = {row["position"]: row for row in found["by_place"]}
    assert [rows[place]["chosen"]["value"] for place in range(3)] == pytest.approx([5 / 8, 2 / 8, 1 / 2])
    assert [rows[place]["random"] for place in range(3)] == pytest.approx([4 / 9, 4 / 9, 1 / 3])
    # Place 0: hits of examples 0 and 1, a miss of 2. Place 1: miss, hit, miss, miss, hit. Place 2: a hit.
    assert [rows[place]["accuracy"]["value"] for place in range(3)] == pytest.approx([2 / 3, 2 / 5, 1])
    assert [rows[place]["examples"] for place in range(3)] == [3, 5, 1]
    json.dumps(found, allow_nan=False)


def test_a_chooser_of_places_and_one_of_artworks_are_told_apart() -> None:
    rng = np.random.default_rng(0)
    n, runs = 2_000, 4
    examples = Examples(np.arange(n), np.zeros(n, np.int64), np.full(n, 4), np.full(n, np.nan))
    # order_rn4[r, n, a] is the place of artwork a; the engaged artwork is 0.
    order = rng.permuted(np.tile(np.arange(4), (runs, n, 1)), axis=2)
    first = order.argmin(axis=2)
    places = audit(Orders(first, first == 0, np.zeros_like(first), order[:, :, 0]), examples, 50, 0)
    assert places["by_place"][0]["chosen"]["value"] == 1
    # Two random artworks of four are the same in a quarter of the cases.
    assert places["agreement"]["value"] == pytest.approx(0.25, abs=0.03)
    liked = np.full((runs, n), 2)
    artworks = audit(Orders(liked, liked == 0, order[:, :, 2], order[:, :, 0]), examples, 50, 0)
    assert artworks["agreement"] == {"value": 1, "low": 1, "high": 1}
    assert [row["chosen"]["value"] for row in artworks["by_place"]] == pytest.approx([0.25] * 4, abs=0.03)


def test_runs_that_do_not_tell_their_order_still_agree() -> None:
    choice = np.array([[1, 4, 7], [1, 4, 7]])
    unknown = np.full((2, 3), UNKNOWN)
    found = audit(Orders(choice, choice == 1, unknown, unknown), EXAMPLES, 20, 0)
    assert (found["agreement"]["value"], found["by_place"]) == (1, [])
