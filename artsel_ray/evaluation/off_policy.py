"""Off-policy estimators as ratios of sums, so that a bootstrap can resample both sides together.

Suffixes: n logged choices, c candidates of all of them end to end.

There are two kinds of logs. Of **examples**, engaged impressions alone, `ips` and `snips` are all that can be had:
`truth_n` is the probability with which the policy chooses an example's engaged artwork, 1 or 0 (a hit or not) for a
policy that always chooses the same, 1/m for a uniform draw among m candidates. Of a **log** that also has what was
shown in vain, `log_terms` has the textbook's estimators. `logging_n` is the probability with which the artwork was
shown; NaN takes the choice out.

Why examples know no doubly robust estimate. An engaged artwork is a with probability q(a|x) ∝ π0(a|x) p(a|x), so IPS
estimates `E[Σ_a π(a|x) q(a|x) / π0(a|x)]`, the engagement under π in units of the logging policy's. For it the label
tells the outcome of *every* candidate, 1{a* = a}; the model's error is then observed at the policy's own choice, and
the direct method plus that error is IPS again, whatever the model:
`Σ_a π(a) q̂(a) / π0(a) + Σ_a π(a) (1{a* = a} - q̂(a)) / π0(a) = π(a*) / π0(a*)`.
The textbook's correction with reward 1 for the engaged artwork, `w (1 - r̂(a*))`, would be wrong: it needs artworks
drawn by π0, and engaged ones are drawn by q.
"""

from dataclasses import dataclass
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


def importance_weights(target_n: FloatArray, logging_n: FloatArray, max_weight: float = np.inf) -> FloatArray:
    """Returns `w_n = min(target_n / logging_n, max_weight)`; 0 where the logging probability is NaN.

    Clipping trades variance for bias (Ionides, "Truncated importance sampling", 2008; Bottou et al.,
    "Counterfactual reasoning and learning systems", JMLR 2013).
    """
    return np.where(np.isnan(logging_n), 0.0, np.minimum(target_n / logging_n, max_weight))


def ips(truth_n: FloatArray, logging_n: FloatArray, max_weight: float = np.inf) -> Terms:
    """Inverse propensity score of examples: `IPS = 1/N Σ_n truth_n / logging_n`.

    Unbiased for the policy's value if `logging_n` is right and positive; its variance grows with the weights
    (Horvitz and Thompson, "A generalization of sampling without replacement from a finite universe", 1952).
    With `logging_n = 1/m_n` it is the paper's primary metric, `mean(hit · m)`.
    """
    return Terms(importance_weights(truth_n, logging_n, max_weight), np.where(np.isnan(logging_n), 0.0, 1.0))


def snips(truth_n: FloatArray, logging_n: FloatArray, max_weight: float = np.inf) -> Terms:
    """Self-normalised IPS of examples: `SNIPS = Σ_n truth_n / logging_n  /  Σ_n 1 / logging_n`.

    Between 0 and 1, biased by O(1/N), of smaller variance than IPS (Swaminathan and Joachims, "The
    self-normalized estimator for counterfactual learning", NeurIPS 2015). With `logging_n = 1/m_n` it is
    `Σ hit · m / Σ m`.
    """
    ones_n = np.ones_like(truth_n)
    return Terms(importance_weights(truth_n, logging_n, max_weight), importance_weights(ones_n, logging_n, max_weight))


def direct_method(expected_n: FloatArray, logging_n: FloatArray) -> Terms:
    """Direct method: `DM = 1/N Σ_n expected_n`, what a reward model expects of the policy.

    Of little variance, and as wrong as the model (Dudík, Langford and Li, "Doubly robust policy evaluation and
    learning", ICML 2011, section 2).

    Args:
        expected_n: `Σ_a π(a|x_n) r̂(x_n, a)`; NaN takes the choice out.
        logging_n: only its NaN matter.
    """
    known_n = ~np.isnan(logging_n) & ~np.isnan(expected_n)
    return Terms(np.where(known_n, expected_n, 0.0), known_n.astype(np.float64))


@dataclass(frozen=True)
class Log:
    """N logged impressions, engaged with or not, and what a policy π and a reward model r̂ say of them.

    Attributes:
        reward_n: what the shown artwork brought.
        logging_n: probability with which the logging policy showed it; NaN takes the impression out.
        target_n: π of the shown artwork.
        predicted_n: r̂ of the shown artwork.
        expected_n: `Σ_a π(a|x_n) r̂(x_n, a)`.
    """

    reward_n: FloatArray
    logging_n: FloatArray
    target_n: FloatArray
    predicted_n: FloatArray
    expected_n: FloatArray


def log_terms(log: Log, max_weight: float = np.inf) -> dict[str, Terms]:
    """Returns the estimators of a log, with `w = min(π / π0, max_weight)`, as ratios of sums.

    - `ips`: `1/N Σ w r`. Unbiased if π0 is right and positive wherever π is.
    - `snips`: `Σ w r / Σ w`, within the rewards' bounds.
    - `dm`: `1/N Σ_n Σ_a π(a) r̂(a)`.
    - `dr`: `1/N Σ_n [Σ_a π(a) r̂(a) + w (r - r̂)]`, unbiased if π0 or r̂ is right; of smaller variance than IPS where
      r̂ explains some of the rewards (Dudík, Langford and Li, ICML 2011, equation 4).
    - `residual`: `Σ w (r - r̂) / Σ w`; `dm + residual` is the self-normalised DR (Thomas and Brunskill,
      "Data-efficient off-policy policy evaluation for reinforcement learning", ICML 2016).
    """
    weight_n = importance_weights(log.target_n, log.logging_n, max_weight)
    ones_n = np.where(np.isnan(log.logging_n), 0.0, 1.0)
    residual_n = weight_n * (log.reward_n - log.predicted_n)
    return {
        "ips": Terms(weight_n * log.reward_n, ones_n),
        "snips": Terms(weight_n * log.reward_n, weight_n),
        "dm": Terms(ones_n * log.expected_n, ones_n),
        "dr": Terms(ones_n * log.expected_n + residual_n, ones_n),
        "residual": Terms(residual_n, weight_n),
    }


def effective_sample_size(weight_n: FloatArray) -> float:
    """Returns Kish's `(Σ w)² / Σ w²`: how many equally weighted examples the estimate is worth; 0 without weight.

    Source: Kish, "Survey sampling", 1965, section 11.7.
    """
    squares = float(np.square(weight_n).sum())
    return float(weight_n.sum()) ** 2 / squares if squares else 0.0
