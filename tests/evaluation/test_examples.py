import numpy as np
from hypothesis import given

from artsel_ray.evaluation.examples import Examples, highest
from tests.support.examples import given_examples


def test_highest_scored_candidates_share_the_draw() -> None:
    # Three titles: the truth alone is best; it ties with another; it is not best.
    three = Examples(np.zeros(3, np.int64), np.array([1, 0, 0]), np.array([2, 3, 2]), np.full(3, np.nan))
    score_c = np.array([1, 5, 7, 7, 2, 0, 1])
    assert three.truth_of(highest(score_c, three)).tolist() == [1, 0.5, 0]


@given(given_examples())
def test_equal_scores_are_a_random_draw(examples: Examples) -> None:
    score_c = np.zeros(examples.candidates_n.sum())
    policy_c = highest(score_c, examples)
    np.testing.assert_allclose(examples.truth_of(policy_c), 1 / examples.candidates_n)
    np.testing.assert_allclose(examples.sums_of(policy_c), 1)
