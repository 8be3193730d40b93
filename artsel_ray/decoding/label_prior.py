"""PriDe: a model's prior preference for option numbers, estimated and divided out.

Source: Zheng, Zhou, Meng, Zhou and Huang, "Large language models are not robust multiple choice selectors", ICLR 2024.
The probability of option i with content c is modeled as p(i) ∝ prior(i) · belief(c). Averaged over permutations of the
contents, the beliefs are equal for all i, so the prior is the softmax of each number's mean log-probability. It is
estimated on a few percent of the questions and divided out of all others.
"""

from collections.abc import Sequence

import numpy as np

_MIN_PROBABILITY = 1e-12


def prior(distributions: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the prior of each number: [M] for the longest distribution, unnormalized.

    Args:
        distributions: [N] arrays of [m] probabilities in the order shown, for pairs in several permutations. Lengths
            may differ: each log-probability is taken relative to the mean of its distribution.
    """
    longest = max(len(each) for each in distributions)
    sums_m, counts_m = np.zeros(longest), np.zeros(longest)
    for each in distributions:
        logs = np.log(np.maximum(each, _MIN_PROBABILITY))
        sums_m[: len(each)] += logs - logs.mean()
        counts_m[: len(each)] += 1
    return np.exp(sums_m / counts_m)


def divide(distribution: np.ndarray, prior_m: Sequence[float]) -> np.ndarray:
    """Returns a distribution, in the order shown, with the prior divided out; numbers that it lacks are neutral."""
    weights = np.ones(len(distribution))
    weights[: len(prior_m)] = prior_m[: len(distribution)]
    divided = distribution / weights
    return divided / divided.sum()
