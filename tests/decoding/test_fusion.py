"""Weights of a model and its prior: by hand, and fitted where one of the two knows nothing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from artsel_ray.decoding.fusion import fit_weights, fused, log_probabilities


def test_fused_is_the_softmax_of_the_weighted_sum() -> None:
    log_km = np.log([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]])
    expected = np.array([0.5 * 0.1**0.5, 0.3 * 0.1**0.5, 0.2 * 0.8**0.5])
    np.testing.assert_allclose(fused(log_km, (1.0, 0.5)), expected / expected.sum())
    np.testing.assert_allclose(fused(log_km, (1.0, 0.0)), [0.5, 0.3, 0.2])
    np.testing.assert_allclose(fused(log_km, (0.0, 0.0)), [1 / 3] * 3)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.tuples(st.floats(0, 10), st.floats(0, 10)))
def test_fused_is_a_distribution(values: list[float], weights: tuple[float, float]) -> None:
    probability_m = fused(log_probabilities(np.array([values, values[::-1]])), weights)
    assert probability_m.sum() == pytest.approx(1)
    assert (probability_m > 0).all() or max(weights) > 5


def simulated(count: int, sharpness: float, seed: int) -> tuple[list[NDArray[np.float64]], list[int]]:
    """Distributions over three or four candidates, and labels drawn from what they become when sharpened."""
    rng = np.random.default_rng(seed)
    found, labels = [], []
    for n in range(count):
        log_m = np.log(rng.dirichlet(np.ones(3 + n % 2)))
        found.append(log_m)
        labels.append(int(rng.choice(len(log_m), p=fused(np.stack([log_m, log_m]), (sharpness, 0.0)))))
    return found, labels


def test_temperature_of_a_model_is_found() -> None:
    model_n, label_n = simulated(4000, 2.0, 0)
    nothing_n = [np.zeros(len(log_m)) for log_m in model_n]
    known, _ = fit_weights(model_n, nothing_n, label_n, [True] * len(label_n))
    assert known[0] == pytest.approx(2.0, abs=0.1)


def test_shuffled_prior_counts_next_to_nothing() -> None:
    model_n, label_n = simulated(4000, 1.0, 1)
    shuffled = [model_n[(n + 2) % len(model_n)] for n in range(len(model_n))]
    found = fit_weights(model_n, shuffled, label_n, [n % 4 < 2 for n in range(len(label_n))])
    for model, prior in found:
        assert model == pytest.approx(1.0, abs=0.1)
        assert prior == pytest.approx(0.0, abs=0.08)


def test_kinds_are_fitted_apart_and_a_rare_one_with_all() -> None:
    model_n, label_n = simulated(2000, 1.0, 2)
    noise_n = [model_n[(n + 2) % len(model_n)] for n in range(len(model_n))]
    # Of known titles the prior is what knows, of new ones the model.
    is_known_n = [n % 2 == 0 for n in range(2000)]
    models = [noise_n[n] if known else model_n[n] for n, known in enumerate(is_known_n)]
    priors = [model_n[n] if known else noise_n[n] for n, known in enumerate(is_known_n)]
    found = fit_weights(models, priors, label_n, is_known_n)
    np.testing.assert_allclose(found, [[0, 1], [1, 0]], atol=0.15)
    _, rare = fit_weights(models, priors, label_n, [n > 2 for n in range(2000)])
    everything, _ = fit_weights(models, priors, label_n, [True] * 2000)
    assert rare == everything
