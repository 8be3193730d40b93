"""Warnings about off-policy estimates that rest on too few weights, or on a log that does not fit the policy.

Suffix: n logged choices.
"""

import numpy as np

from artsel_ray.evaluation.examples import FloatArray
from artsel_ray.evaluation.off_policy import effective_sample_size

_MIN_EFFECTIVE = 50.0
"""Effective sample size below which an estimate is not to be trusted: a percentile interval needs some tens."""
_MAX_SHARE = 0.1
"""Largest share of all weight that one example may have."""
_MEAN_WEIGHT = (0.8, 1.25)
"""Range of a log's mean weight: 1 is expected, whatever the policy, if propensities are right and cover it."""
_MAX_STANDARD_ERRORS = 5.0
"""Largest difference, in standard errors, that chance explains."""


def weight_warnings(weight_n: FloatArray, logging_n: FloatArray) -> list[str]:
    """Warns if an estimate rests on too few weights."""
    size, total = effective_sample_size(weight_n), float(weight_n.sum())
    if size < _MIN_EFFECTIVE:
        return [f"the weights rest on {size:,.0f} of {_known(logging_n):,} examples; do not trust this number"]
    if weight_n.max() > _MAX_SHARE * total:
        return [f"one example has {weight_n.max() / total:.0%} of all weight; do not trust this number"]
    return []


def overlap_warnings(weight_n: FloatArray, logging_n: FloatArray) -> list[str]:
    """Warns if a log's weights, not clipped, miss the mean that they must have.

    `E[π(a) / π0(a)] = 1` for every policy π, if the propensities are right and positive wherever π is.
    """
    mean = float(weight_n.sum()) / max(1, _known(logging_n))
    if _MEAN_WEIGHT[0] <= mean <= _MEAN_WEIGHT[1]:
        return []
    return [
        f"the mean weight is {mean:.2f} where 1 is expected: the log does not cover what this policy chooses, or its "
        "propensities are wrong"
    ]


def selection_warnings(evaluated_n: FloatArray, left_out_n: FloatArray) -> list[str]:
    """Warns if the impressions of a log to evaluate on were selected by their own reward, which biases any estimator.

    Args:
        evaluated_n: rewards, 0 or 1, of the impressions that are evaluated; one or more.
        left_out_n: rewards of the log's other impressions.
    """
    rate, count = float(evaluated_n.mean()), len(evaluated_n)
    if rate == 1:
        return [
            "every impression of the log is engaged with: impressions without engagement are missing, and so no value "
            "is right"
        ]
    if not len(left_out_n):
        return []
    # Two binomial rates: the difference's standard error under the hypothesis that they are equal.
    pooled = (rate * count + left_out_n.sum()) / (count + len(left_out_n))
    error = np.sqrt(pooled * (1 - pooled) * (1 / count + 1 / len(left_out_n)))
    if abs(rate - left_out_n.mean()) <= _MAX_STANDARD_ERRORS * error:
        return []
    return [
        f"{rate:.1%} of the impressions with predictions are engaged with, {left_out_n.mean():.1%} of the "
        f"{len(left_out_n):,} others: the predicted pairs were selected by engagement; do not trust these values"
    ]


def _known(logging_n: FloatArray) -> int:
    return int((~np.isnan(logging_n)).sum())
