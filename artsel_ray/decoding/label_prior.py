"""A model's liking for an option's number, whatever stands there, and how to divide it out.

Source: Zheng, Zhou, Meng, Zhou and Huang, "Large language models are not robust multiple choice selectors" (PriDe),
ICLR 2024: what a model answers is the product of a prior of the option's number and of what it thinks of its content.
Over permutations of the contents the latter evens out, so that the prior is the softmax of the mean log-probability of
each number. Estimated on a few percent of the questions, it is divided out of all others.
"""

from collections.abc import Sequence

import numpy as np

_MIN_PROBABILITY = 1e-12


def prior(distributions: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the prior of each number, [M] for the longest of the distributions; its mean logarithm is 0 by number.

    Args:
        distributions: [N] arrays of [m] probabilities in the order shown, of pairs in several permutations. Numbers of
            options may differ: a number's liking is taken relative to the mean of the numbers beside it.
    """
    longest = max(len(each) for each in distributions)
    sums_m, counts_m = np.zeros(longest), np.zeros(longest)
    for each in distributions:
        logs = np.log(np.maximum(each, _MIN_PROBABILITY))
        sums_m[: len(each)] += logs - logs.mean()
        counts_m[: len(each)] += 1
    return np.exp(sums_m / counts_m)


def divide(distribution: np.ndarray, prior_m: Sequence[float]) -> np.ndarray:
    """Returns the distribution in the order shown with the prior divided out; numbers beyond the prior keep theirs."""
    weights = np.ones(len(distribution))
    known = min(len(distribution), len(prior_m))
    weights[:known] = prior_m[:known]
    divided = distribution / weights
    return divided / divided.sum()
