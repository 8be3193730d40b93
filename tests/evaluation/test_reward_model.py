import numpy as np
import pytest

from artsel_ray.evaluation.examples import Examples
from artsel_ray.evaluation.off_policy import Terms
from artsel_ray.evaluation.reward_model import (
    gain_on_examples,
    gain_on_log,
    slope_on_examples,
    slope_on_log,
    why_left_out,
    why_not_calibrated,
)


def test_gain_over_a_random_draw_by_hand() -> None:
    # Labels 1 of 2 and 0 of 3; the third has no probabilities.
    examples = Examples(np.arange(3), np.array([1, 0, 0]), np.array([2, 3, 2]), np.full(3, np.nan))
    probability_c = np.array([0.25, 0.75, 0.2, 0.4, 0.4, np.nan, np.nan])
    np.testing.assert_allclose(gain_on_examples(examples, probability_c), [np.log(1.5), np.log(0.6), np.nan])


def test_gain_over_the_mean_reward_by_hand() -> None:
    # The mean reward is 1/4: log(0.5 / 0.25), and log(0.5 / 0.75) for no engagement.
    gain_n = gain_on_log(np.array([1.0, 0, 0, 0]), np.full(4, 0.5))
    np.testing.assert_allclose(gain_n, [np.log(2), *[np.log(2 / 3)] * 3])


def test_certain_and_wrong_is_finite() -> None:
    gain_n = gain_on_log(np.array([1.0, 0.0]), np.array([0.0, 1.0]))
    assert np.isfinite(gain_n).all()
    assert (gain_n < -10).all()


def test_model_must_beat_the_constant_with_its_interval() -> None:
    users = np.arange(2_000)
    rng = np.random.default_rng(0)
    liked = np.where(users % 2, 0.4, 0.1)
    reward_n = (rng.random(2_000) < liked).astype(float)
    assert why_left_out(gain_on_log(reward_n, liked), users, 200, 0) == ""
    shuffled = why_left_out(gain_on_log(reward_n, rng.permutation(liked)), users, 200, 0)
    assert shuffled.startswith("the baseline's probabilities predict no better than a constant: mean log-likelihood")
    # The right order, but far too sure of itself: no probabilities to expect rewards from.
    assert why_left_out(gain_on_log(reward_n, np.where(users % 2, 0.999, 0.001)), users, 200, 0)
    # The constant itself is no better than the constant.
    assert why_left_out(gain_on_log(reward_n, np.full(2_000, reward_n.mean())), users, 200, 0)


@pytest.mark.parametrize("count", [1, 3])
def test_model_without_probabilities_is_left_out(count: int) -> None:
    assert why_left_out(np.full(count, np.nan), np.arange(count), 50, 0) == "the baseline gives no probabilities"


def test_model_that_is_too_sure_is_not_calibrated() -> None:
    # 2,000 examples of four candidates whose labels follow q; a model that squares q is too sure of it.
    rng = np.random.default_rng(0)
    q_nm = rng.dirichlet(np.ones(4), size=2_000)
    label_n = np.array([rng.choice(4, p=q) for q in q_nm])
    examples = Examples(np.arange(2_000), label_n, np.full(2_000, 4), np.full(2_000, np.nan))
    sure_nm = q_nm**3 / (q_nm**3).sum(1, keepdims=True)
    for probability_nm, why in ((q_nm, ""), (sure_nm, "the baseline's probabilities are too sure")):
        slope = slope_on_examples(examples, probability_nm.ravel())
        assert why_not_calibrated(slope, None, examples.user_n, 200, 0).startswith(why)
        assert bool(why_not_calibrated(slope, None, examples.user_n, 200, 0)) == bool(why)


def test_expectation_of_the_logs_own_rewards_must_hold() -> None:
    rng = np.random.default_rng(0)
    expected_n = rng.uniform(0.1, 0.5, size=2_000)
    reward_n = (rng.random(2_000) < expected_n).astype(float)
    for predicted_n, why in (
        (expected_n, ""),
        (expected_n + 0.1, "the baseline's expectation of the log's own rewards is off by -0."),
        (0.3 + 3 * (expected_n - 0.3), "the baseline's probabilities are too sure"),
    ):
        error = Terms(reward_n - predicted_n, np.ones(2_000))
        found = why_not_calibrated(slope_on_log(reward_n, predicted_n), error, np.arange(2_000), 200, 0)
        assert found.startswith(why)
        assert bool(found) == bool(why)
