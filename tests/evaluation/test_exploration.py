import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artsel_ray.evaluation.exploration import most_likely, served_policy
from artsel_ray.score.serving import draw, propensities

SEEDS = st.integers(0, 2**32 - 1).map(np.random.default_rng)


def test_most_likely_is_the_first_of_equals() -> None:
    probability_l, size_r = np.array([0.2, 0.4, 0.4, 1.0, 0.7, 0.3]), np.array([3, 1, 2])
    assert most_likely(probability_l, size_r, np.arange(6)).tolist() == [1, 3, 4]
    # The first and the last of the first three read the same, and have .6 together; texts of others do not matter.
    assert most_likely(probability_l, size_r, np.array([5, 1, 5, 0, 5, 1])).tolist() == [0, 3, 4]


@settings(deadline=None, max_examples=20)
@given(SEEDS, st.sampled_from(["epsilon", "softmax"]), st.floats(0.01, 1), st.floats(0.1, 10))
def test_served_policy_is_recovered(rng: np.random.Generator, explore: str, epsilon: float, temperature: float) -> None:
    probabilities = [rng.dirichlet(np.ones(int(rng.integers(1, 12)))) for _ in range(40)]
    served = [propensities(each, explore, epsilon, temperature) for each in probabilities]  # type: ignore[arg-type]
    size_r = np.array([len(each) for each in served])
    drawn = [draw(each, 0, str(row), "t") for row, each in enumerate(served)]
    served_r = np.cumsum(size_r) - size_r + drawn
    policy_l, probability_l = np.concatenate(served), np.concatenate(probabilities)
    greedy_r = most_likely(probability_l, size_r, np.arange(len(probability_l)))
    found_l = served_policy(probability_l, size_r, greedy_r, served_r, policy_l[served_r])
    assert found_l is not None
    assert found_l == pytest.approx(policy_l, abs=2e-4)
    wrong_r = np.linspace(0.01, 1, len(size_r))
    assert served_policy(probability_l, size_r, greedy_r, served_r, wrong_r) is None
