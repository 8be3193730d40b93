"""Whether a reward model predicts held-out outcomes better than a constant; only then its estimates are shown.

Suffix: n examples or impressions.
"""

import numpy as np

from artsel_ray.evaluation.bootstrap import bootstrap
from artsel_ray.evaluation.examples import Examples, FloatArray, IntArray
from artsel_ray.evaluation.off_policy import Terms

_LEAST = 1e-6
"""Keeps the logarithm of a probability finite: a model that was certain and wrong loses 14 nats."""


def gain_on_examples(examples: Examples, probability_c: FloatArray) -> FloatArray:
    """Returns each label's log-probability under a model, less that of a random draw, `log(1/m)`; NaN if unknown."""
    return np.log(examples.mass_of(probability_c).clip(_LEAST, 1)) - np.log(examples.uniform_n)


def gain_on_log(reward_n: FloatArray, predicted_n: FloatArray) -> FloatArray:
    """Returns the log-likelihood of rewards, 0 or 1, under a model, less that under their own mean."""
    return _log_likelihood(reward_n, predicted_n) - _log_likelihood(reward_n, reward_n.mean())


def _log_likelihood(reward_n: FloatArray, probability: FloatArray | float) -> FloatArray:
    p = np.clip(probability, _LEAST, 1 - _LEAST)
    return reward_n * np.log(p) + (1 - reward_n) * np.log(1 - p)


def why_left_out(gain_n: FloatArray, user_n: IntArray, resamples: int, seed: int) -> str:
    """Returns why a reward model is not to be used, or the empty string if its mean gain is certainly above 0.

    Args:
        gain_n: log-likelihood of each outcome, less that under a constant; NaN where the model predicts nothing.
        user_n: each outcome's user, numbered from 0 without gaps.
    """
    known_n = ~np.isnan(gain_n)
    terms = Terms(np.where(known_n, gain_n, 0.0), known_n.astype(np.float64))
    gain = bootstrap([("gain", terms)], user_n, resamples, seed)["gain"].measurement()
    if gain.value is None or gain.low is None:
        return "the baseline gives no probabilities"
    if gain.low > 0:
        return ""
    return (
        "the baseline's probabilities predict no better than a constant: mean log-likelihood less the constant's is "
        f"{gain.value:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]"
    )
