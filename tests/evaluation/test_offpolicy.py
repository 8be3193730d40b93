from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from artsel_ray.evaluation.offpolicy import effective_sample_size, importance_weights, ips, snips
from benchmarks.coverage import coverage

SIZES = arrays(np.int64, st.integers(1, 50), elements=st.integers(1, 60))


def test_uniform_logging_by_hand() -> None:
    # Hits among 2 and among 4 candidates, a miss among 2, a miss among 4: weights 2, 4, 0, 0.
    hit, logging = np.array([1.0, 1, 0, 0]), np.array([1 / 2, 1 / 4, 1 / 2, 1 / 4])
    assert ips(hit, logging).value() == pytest.approx(6 / 4)
    assert snips(hit, logging).value() == pytest.approx(6 / 12)
    # (2 + 4)² / (4 + 16) = 36 / 20
    assert effective_sample_size(importance_weights(hit, logging)) == pytest.approx(1.8)


def test_logged_propensities_by_hand() -> None:
    # weights 1/0.8 = 1.25, 1/0.1 = 10; the third has no propensity and leaves both sums.
    hit, logging = np.array([1.0, 1, 1, 0]), np.array([0.8, 0.1, np.nan, 0.5])
    assert ips(hit, logging).value() == pytest.approx(11.25 / 3)
    assert snips(hit, logging).value() == pytest.approx(11.25 / (1.25 + 10 + 2))


def test_nothing_known_is_not_a_number() -> None:
    assert np.isnan(ips(np.ones(2), np.full(2, np.nan)).value())
    assert effective_sample_size(np.zeros(3)) == 0.0


@given(SIZES)
def test_perfect_predictor(size_n: np.ndarray) -> None:
    ones = np.ones(len(size_n))
    assert ips(ones, 1 / size_n).value() == pytest.approx(size_n.mean())
    assert snips(ones, 1 / size_n).value() == pytest.approx(1.0)


@given(SIZES)
def test_uniform_draw_has_ips_one(size_n: np.ndarray) -> None:
    assert ips(1 / size_n, 1 / size_n).value() == pytest.approx(1.0)


@given(SIZES, st.randoms(use_true_random=False))
def test_bounds(size_n: np.ndarray, random: Random) -> None:
    hit = np.array([float(random.random() < 0.5) for _ in size_n])
    assert 0 <= snips(hit, 1 / size_n).value() <= 1 + 1e-12
    assert 0 <= ips(hit, 1 / size_n).value() <= size_n.max() + 1e-9
    # Kish's size is at most the number of examples with weight.
    assert effective_sample_size(importance_weights(hit, 1 / size_n)) <= hit.sum() + 1e-9


def test_ips_is_unbiased_for_a_logged_bandit() -> None:
    # Logging shows a with π0, reward 1 with p(a). The policy that always plays 2 earns p(2) = 0.3.
    generator = np.random.default_rng(0)
    shown, liked = np.array([0.6, 0.3, 0.1]), np.array([0.5, 0.1, 0.3])
    a = generator.choice(3, p=shown, size=200_000)
    reward = generator.random(len(a)) < liked[a]
    played = (a == 2) * reward
    # Standard deviation of one term: sqrt(0.3 / 0.1 - 0.09) = 1.7, of the mean 0.0038; four of these.
    assert ips(played.astype(float), shown[a]).value() == pytest.approx(0.3, abs=0.016)


@pytest.mark.slow
def test_intervals_on_the_log_of_a_night_that_explored_cover_another_policys_value() -> None:
    for share, error in coverage(worlds=100, users=500, how="softmax").values():
        assert share >= 0.88  # of 95 % intervals, in all but one of a thousand such tests
        assert abs(error) < 0.03
