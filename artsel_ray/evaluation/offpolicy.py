"""Off-policy estimators as ratios of sums, so that a bootstrap can resample both sides together.

Suffixes: n examples. `truth_n` is the probability with which the policy chooses an example's engaged artwork:
1 or 0 (a hit or not) for a policy that always chooses the same, 1/m for a uniform draw among m candidates.
`logging_n` is the probability with which the engaged artwork was shown; NaN takes the example out.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


class Terms(NamedTuple):
    """An estimator: the sum of the numerators over the sum of the denominators."""

    numerator_n: FloatArray
    denominator_n: FloatArray

    def value(self) -> float:
        """Returns the estimate; NaN if the denominators sum to zero."""
        total = float(self.denominator_n.sum())
        return float(self.numerator_n.sum()) / total if total else float("nan")


def importance_weights(truth_n: FloatArray, logging_n: FloatArray) -> FloatArray:
    """Returns `w_n = truth_n / logging_n`; 0 where the logging probability is NaN."""
    return np.where(np.isnan(logging_n), 0.0, truth_n / logging_n)


def ips(truth_n: FloatArray, logging_n: FloatArray) -> Terms:
    """Inverse propensity score: `IPS = 1/N Σ_n truth_n / logging_n`.

    Unbiased for the policy's value if `logging_n` is right and positive; its variance grows with the weights
    (Horvitz and Thompson, "A generalization of sampling without replacement from a finite universe", 1952).
    With `logging_n = 1/m_n` it is the paper's primary metric, `mean(hit · m)`.
    """
    return Terms(importance_weights(truth_n, logging_n), np.where(np.isnan(logging_n), 0.0, 1.0))


def snips(truth_n: FloatArray, logging_n: FloatArray) -> Terms:
    """Self-normalised IPS: `SNIPS = Σ_n truth_n / logging_n  /  Σ_n 1 / logging_n`.

    Between 0 and 1, biased by O(1/N), of smaller variance than IPS (Swaminathan and Joachims, "The
    self-normalized estimator for counterfactual learning", NeurIPS 2015). With `logging_n = 1/m_n` it is
    `Σ hit · m / Σ m`.
    """
    return Terms(importance_weights(truth_n, logging_n), importance_weights(np.ones_like(truth_n), logging_n))


def effective_sample_size(weight_n: FloatArray) -> float:
    """Returns Kish's `(Σ w)² / Σ w²`: how many equally weighted examples the estimate is worth; 0 without weight.

    Source: Kish, "Survey sampling", 1965, section 11.7.
    """
    squares = float(np.square(weight_n).sum())
    return float(weight_n.sum()) ** 2 / squares if squares else 0.0
