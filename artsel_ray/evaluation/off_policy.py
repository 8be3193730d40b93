"""Off-policy estimators as ratios of sums, so that a bootstrap can resample both sides together, and their warnings.

Suffix: n logged choices.

There are two kinds of logs. **Examples** are engaged impressions alone; `ips`, `snips` and `direct_method` are all that
they allow. A **log of impressions** also has the artworks that were shown without engagement; the `log_…` functions
are the textbook's estimators for it. `logging_n` is the probability with which the artwork was shown; NaN leaves the
choice out.

Why examples have no doubly robust estimate: an engaged artwork is a with probability q(a|x) ∝ π0(a|x) p(a|x), so IPS
estimates `E[Σ_a π(a|x) q(a|x) / π0(a|x)]`, the engagement under π in units of the logging policy's. For this quantity
the label gives the outcome of *every* candidate, 1{a* = a}. The model's error is then observed at the policy's own
choice, and the direct method plus that error is IPS again, whatever the model:
`Σ_a π(a) q̂(a) / π0(a) + Σ_a π(a) (1{a* = a} - q̂(a)) / π0(a) = π(a*) / π0(a*)`.
The textbook's correction with reward 1 for the engaged artwork, `w (1 - r̂(a*))`, would be wrong: it needs artworks
drawn by π0, and engaged ones are drawn by q.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from artsel_ray.evaluation.examples import FloatArray

_MIN_EFFECTIVE_SIZE = 50.0
"""Below it an estimate is not to be trusted: a percentile interval needs some tens."""
_MAX_SHARE = 0.1
"""Largest share of all weight that one example may have."""
_MEAN_WEIGHT = (0.8, 1.25)
"""Range of a log's mean weight: 1 is expected, whatever the policy, if propensities are right and cover it."""
_MAX_STANDARD_ERRORS = 5.0
"""Largest difference, in standard errors, that chance explains."""


class Terms(NamedTuple):
    """An estimator: the sum of the numerators over the sum of the denominators."""

    numerator_n: FloatArray
    denominator_n: FloatArray

    @property
    def value(self) -> float:
        """The ratio; NaN if the denominators sum to zero."""
        total = float(self.denominator_n.sum())
        return float(self.numerator_n.sum()) / total if total else float("nan")


def importance_weights(target_n: FloatArray, logging_n: FloatArray, max_weight: float = np.inf) -> FloatArray:
    """Returns `w_n = min(target_n / logging_n, max_weight)`; 0 where the logging probability is NaN.

    Clipping trades variance for bias (Ionides, "Truncated importance sampling", 2008; Bottou et al.,
    "Counterfactual reasoning and learning systems", JMLR 2013).
    """
    return np.where(np.isnan(logging_n), 0.0, np.minimum(target_n / logging_n, max_weight))


def _known(logging_n: FloatArray) -> FloatArray:
    return np.where(np.isnan(logging_n), 0.0, 1.0)


def effective_sample_size(weight_n: FloatArray) -> float:
    """Returns Kish's `(Σ w)² / Σ w²`: how many equally weighted examples the estimate is worth; 0 without weight.

    Source: Kish, "Survey sampling", 1965, section 11.7.
    """
    squares = float(np.square(weight_n).sum())
    return float(weight_n.sum()) ** 2 / squares if squares else 0.0


def ips(truth_n: FloatArray, logging_n: FloatArray, max_weight: float = np.inf) -> Terms:
    """Inverse propensity score of examples: `IPS = 1/N Σ_n truth_n / logging_n`.

    Unbiased for the policy's value if `logging_n` is right and positive; its variance grows with the weights
    (Horvitz and Thompson, "A generalization of sampling without replacement from a finite universe", 1952).
    With `logging_n = 1/m_n` it is the paper's primary metric, `mean(hit · m)`. `truth_n` is the probability with which
    the policy chooses the engaged artwork: 1 or 0 for a deterministic policy.
    """
    return Terms(importance_weights(truth_n, logging_n, max_weight), _known(logging_n))


def snips(truth_n: FloatArray, logging_n: FloatArray, max_weight: float = np.inf) -> Terms:
    """Self-normalized IPS of examples: `SNIPS = Σ_n truth_n / logging_n  /  Σ_n 1 / logging_n`.

    Between 0 and 1, biased by O(1/N), of smaller variance than IPS. With `logging_n = 1/m_n` it is `Σ hit · m / Σ m`.
    It estimates `E Σ_a π(a) p(a)  /  E Σ_a p(a)` with p the engagement probability: the engagement with the policy's
    choices in units of the engagement with all candidates. So it is not the estimator of Swaminathan and Joachims ("The
    self-normalized estimator for counterfactual learning", NeurIPS 2015), whose divisor is the sum of the policy's own
    weights, `Σ π / π0` over all impressions: on engaged ones alone that sum is the numerator, and the ratio 1.
    `log_snips` is theirs.
    """
    ones_n = np.ones_like(truth_n)
    return Terms(importance_weights(truth_n, logging_n, max_weight), importance_weights(ones_n, logging_n, max_weight))


def direct_method(expected_n: FloatArray, logging_n: FloatArray) -> Terms:
    """Direct method: `DM = 1/N Σ_n expected_n`, the value that a reward model expects of the policy.

    Its variance is small, and its bias is the model's (Dudík, Langford and Li, "Doubly robust policy evaluation and
    learning", ICML 2011, section 2). `expected_n` is `Σ_a π(a|x_n) r̂(x_n, a)`; NaN leaves the choice out. Of
    `logging_n` only the NaN matter.
    """
    known_n = ~np.isnan(logging_n) & ~np.isnan(expected_n)
    return Terms(np.where(known_n, expected_n, 0.0), known_n.astype(np.float64))


@dataclass(frozen=True)
class Log:
    """N logged impressions, engaged with or not, as a policy π and a reward model r̂ see them."""

    reward_n: FloatArray
    logging_n: FloatArray
    """Probability with which the logging policy π0 showed it; NaN leaves the impression out."""
    target_n: FloatArray
    """π of the shown artwork."""
    predicted_n: FloatArray
    """r̂ of the shown artwork."""
    expected_n: FloatArray
    """`Σ_a π(a|x_n) r̂(x_n, a)`."""

    @property
    def known_n(self) -> FloatArray:
        """1 where the logging probability is known, else 0."""
        return _known(self.logging_n)

    def weight_n(self, max_weight: float = np.inf) -> FloatArray:
        """Returns `w_n = min(π / π0, max_weight)`."""
        return importance_weights(self.target_n, self.logging_n, max_weight)

    def residual_n(self, max_weight: float) -> FloatArray:
        """Returns `w (r - r̂)`, the reward model's weighted errors."""
        return self.weight_n(max_weight) * (self.reward_n - self.predicted_n)


def log_ips(log: Log, max_weight: float = np.inf) -> Terms:
    """IPS of a log: `1/N Σ w r`. Unbiased if π0 is right, and positive wherever π is."""
    return Terms(log.weight_n(max_weight) * log.reward_n, log.known_n)


def log_snips(log: Log, max_weight: float = np.inf) -> Terms:
    """Self-normalized IPS of a log: `Σ w r / Σ w`, within the rewards' bounds."""
    return Terms(log.weight_n(max_weight) * log.reward_n, log.weight_n(max_weight))


def log_dm(log: Log, max_weight: float = np.inf) -> Terms:
    """Direct method on a log: `1/N Σ_n Σ_a π(a) r̂(a)`. It has no weights to clip."""
    return Terms(log.known_n * log.expected_n, log.known_n)


def log_dr(log: Log, max_weight: float = np.inf) -> Terms:
    """Doubly robust estimate of a log: `1/N Σ_n [Σ_a π(a) r̂(a) + w (r - r̂)]`.

    Unbiased if π0 or r̂ is right; of smaller variance than IPS where r̂ explains some of the rewards (Dudík, Langford
    and Li, ICML 2011, equation 4).
    """
    return Terms(log.known_n * log.expected_n + log.residual_n(max_weight), log.known_n)


def log_residual(log: Log, max_weight: float = np.inf) -> Terms:
    """Self-normalized error of the reward model: `Σ w (r - r̂) / Σ w`.

    Added to the direct method it is the self-normalized DR (Thomas and Brunskill, "Data-efficient off-policy policy
    evaluation for reinforcement learning", ICML 2016).
    """
    return Terms(log.residual_n(max_weight), log.weight_n(max_weight))


def weight_warnings(weight_n: FloatArray, logging_n: FloatArray) -> list[str]:
    """Warns if an estimate rests on too few weights."""
    size, total = effective_sample_size(weight_n), float(weight_n.sum())
    if size < _MIN_EFFECTIVE_SIZE:
        return [f"the weights rest on {size:,.0f} of {_known(logging_n).sum():,.0f} examples; do not trust this number"]
    if weight_n.max() > _MAX_SHARE * total:
        return [f"one example has {weight_n.max() / total:.0%} of all weight; do not trust this number"]
    return []


def overlap_warnings(weight_n: FloatArray, logging_n: FloatArray) -> list[str]:
    """Warns if a log's weights, not clipped, miss the mean that they must have.

    `E[π(a) / π0(a)] = 1` for every policy π, if the propensities are right and positive wherever π is.
    """
    mean = float(weight_n.sum()) / max(1, _known(logging_n).sum())
    if _MEAN_WEIGHT[0] <= mean <= _MEAN_WEIGHT[1]:
        return []
    wrong = "the log does not cover what this policy chooses, or its propensities are wrong"
    return [f"the mean weight is {mean:.2f} where 1 is expected: {wrong}"]


def selection_warnings(evaluated_n: FloatArray, left_out_n: FloatArray) -> list[str]:
    """Warns if the impressions of a log to evaluate on were selected by their own reward, which biases any estimator.

    Rewards are 0 or 1; `evaluated_n` has at least one, `left_out_n` those of the log's other impressions.
    """
    rate, count = float(evaluated_n.mean()), len(evaluated_n)
    if rate == 1:
        missing = "impressions without engagement are missing, and so no value is right"
        return [f"every impression of the log is engaged with: {missing}"]
    if not len(left_out_n):
        return []
    # Two binomial rates: the difference's standard error under the hypothesis that they are equal.
    left_out_rate, pooled = left_out_n.mean(), np.concatenate([evaluated_n, left_out_n]).mean()
    error = np.sqrt(pooled * (1 - pooled) * (1 / count + 1 / len(left_out_n)))
    if abs(rate - left_out_rate) <= _MAX_STANDARD_ERRORS * error:
        return []
    return [
        f"{rate:.1%} of the impressions with predictions are engaged with, {left_out_rate:.1%} of the "
        f"{len(left_out_n):,} others: the predicted pairs were selected by engagement; do not trust these values"
    ]
