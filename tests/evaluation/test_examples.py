import numpy as np
import pytest
from hypothesis import given

from artsel_ray.evaluation.examples import Examples, PolicyOnExamples, highest, told_apart
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


def test_duplicates_of_the_engaged_artwork_are_one_action() -> None:
    # A, A, B, C with the second A engaged; B, B with the first engaged, of which all read the same.
    text_c = told_apart(np.array([7, 7, 2, 3, 2, 2]), np.array([4, 2]))
    assert text_c[:4].tolist() == [7, 7, 2, 3]
    assert text_c[4] != text_c[5]
    examples = Examples(np.zeros(2, np.int64), np.array([1, 0]), np.array([4, 2]), np.array([0.2, 0.5]), text_c)
    assert examples.duplicates_n.tolist() == [2, 1]
    assert examples.mass_of(np.array([1.0, 0, 0, 0, 0, 1])).tolist() == [1, 0]
    assert examples.mass_of(examples.uniform_c).tolist() == examples.uniform_n.tolist() == [0.5, 0.5]
    assert examples.logging_n.tolist() == [0.4, 0.5]
    assert examples.shared(np.array([0.1, 0.3, 0.6, 0, 0.4, 0.6])).tolist() == pytest.approx(
        [0.2, 0.2, 0.6, 0, 0.4, 0.6]
    )


def test_some_examples_have_users_numbered_without_gaps() -> None:
    examples = Examples(
        np.array([0, 2, 1, 2]), np.array([1, 0, 2, 1]), np.array([2, 3, 4, 5]), np.array([0.1, 0.2, 0.3, 0.4])
    )
    kept = PolicyOnExamples(examples, np.array([0.0, 1.0, 0.5, 0.25])).where(np.array([True, True, False, True]))
    assert kept.examples.user_n.tolist() == [0, 1, 1]
    assert kept.examples.position_n.tolist() == [1, 0, 1]
    assert kept.examples.candidates_n.tolist() == [2, 3, 5]
    assert kept.examples.propensity_n.tolist() == [0.1, 0.2, 0.4]
    assert kept.truth_n.tolist() == [0.0, 1.0, 0.25]
    assert kept.expected_n is None
    expected = PolicyOnExamples(examples, np.zeros(4), np.array([1.0, 2.0, 3.0, 4.0])).where(np.arange(4) == 2)
    assert expected.expected_n is not None
    assert expected.expected_n.tolist() == [3.0]
