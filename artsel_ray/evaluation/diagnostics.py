"""Gates: plain words where the weights of an off-policy estimate do not carry it.

Suffixes: n logged choices.
"""

import numpy as np

from artsel_ray.evaluation.off_policy import FloatArray, effective_sample_size

FEWEST = 50.0
"""Effective examples below which an estimate is not to be trusted: an interval of percentiles needs some tens."""
LARGEST_WEIGHT = 0.1
"""Share of all weight that one example may have."""
MEAN_WEIGHT = (0.8, 1.25)
"""Mean weight of a log: 1 is expected, whatever the policy, if propensities are right and cover it."""


def weight_warnings(weight_n: FloatArray, logging_n: FloatArray) -> list[str]:
    """Returns what is wrong with the weights of an estimate; nothing if they carry it."""
    size, total = effective_sample_size(weight_n), float(weight_n.sum())
    if size < FEWEST:
        return [f"the weights rest on {size:,.0f} of {_known(logging_n):,} examples; do not trust this number"]
    if weight_n.max() > LARGEST_WEIGHT * total:
        return [f"one example has {weight_n.max() / total:.0%} of all weight; do not trust this number"]
    return []


def overlap_warnings(weight_n: FloatArray, logging_n: FloatArray) -> list[str]:
    """Returns whether a log's weights, not clipped, miss the mean that they must have.

    `E[π(a) / π0(a)] = 1` for every policy π, if the propensities are right and positive wherever π is.
    """
    mean = float(weight_n.sum()) / max(1, _known(logging_n))
    if MEAN_WEIGHT[0] <= mean <= MEAN_WEIGHT[1]:
        return []
    return [
        f"the mean weight is {mean:.2f} where 1 is expected: the log does not cover what this policy chooses, or its "
        "propensities are wrong"
    ]


def _known(logging_n: FloatArray) -> int:
    return int((~np.isnan(logging_n)).sum())
