"""Whether a reward model predicts held-out outcomes better than a constant, and is calibrated; only then it is shown.

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


def slope_on_examples(examples: Examples, probability_c: FloatArray) -> Terms:
    """Returns how much more outcomes differ among candidates than a model says, relative to what it says.

    `Σ_a (1{a = a*} − q̂(a)) (q̂(a) − 1/m)  /  Σ_a (q̂(a) − 1/m)²`: 0 for a calibrated model, below 0 for one that is too
    sure. Source: Cox, "Two further applications of a model for binary regression", Biometrika 1958.
    """
    deviation_c = probability_c - examples.uniform_c
    known_n = ~np.isnan(examples.sums_of(probability_c))
    missed_n = examples.truth_of(deviation_c) - examples.sums_of(probability_c * deviation_c)
    return Terms(np.where(known_n, missed_n, 0.0), np.where(known_n, examples.sums_of(deviation_c**2), 0.0))


def slope_on_log(reward_n: FloatArray, predicted_n: FloatArray) -> Terms:
    """Returns the same of rewards and their predictions: `Σ (r − r̂)(r̂ − mean r̂) / Σ (r̂ − mean r̂)²`."""
    deviation_n = predicted_n - predicted_n.mean()
    return Terms((reward_n - predicted_n) * deviation_n, deviation_n**2)


def why_not_calibrated(slope: Terms, error: Terms | None, user_n: IntArray, resamples: int, seed: int) -> str:
    """Returns why a reward model's own expectation is not to be shown, or the empty string if nothing is wrong.

    Args:
        slope: of `slope_on_examples` or `slope_on_log`; the model is too sure if it is certainly below 0.
        error: outcomes less predictions, whose mean is to be 0; None where they sum to the same by construction.
        user_n: each outcome's user, numbered from 0 without gaps.
    """
    terms = [("slope", slope)] + ([("error", error)] if error else [])
    found = {name: estimate.measurement() for name, estimate in bootstrap(terms, user_n, resamples, seed).items()}
    slope_, error_ = found["slope"], found.get("error")
    if slope_.high is not None and slope_.high < 0:
        figures = f"{slope_.value:+.2f} [{slope_.low:+.2f}, {slope_.high:+.2f}]"
        return f"the baseline's probabilities are too sure: calibration slope less 1 is {figures}"
    if error_ and error_.low is not None and error_.high is not None and not error_.low <= 0 <= error_.high:
        figures = f"{error_.value:+.4f} [{error_.low:+.4f}, {error_.high:+.4f}]"
        return f"the baseline's expectation of the log's own rewards is off by {figures}"
    return ""
