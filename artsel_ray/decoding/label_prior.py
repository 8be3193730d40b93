"""PriDe: a model's prior preference for option numbers, estimated and divided out.

Source: Zheng, Zhou, Meng, Zhou and Huang, "Large language models are not robust multiple choice selectors", ICLR 2024.
The probability of option i with content c is modeled as p(i) ∝ prior(i) · belief(c). So a question's log-probabilities
are the log-prior of each number plus a constant of the question, plus beliefs that average to the same for all numbers
over permutations of the contents. Least squares for numbers and questions together is exact in this model, also where
questions differ in their number of options: the mean of a number's log-probabilities, relative to its question's, is
not, because a question of three options says nothing about the fourth number. The prior is estimated on a few percent
of the questions and divided out of all others.
"""

from collections.abc import Sequence

import numpy as np

_MIN_PROBABILITY = 1e-12


def prior(distributions: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the prior of each number: [M] for the longest distribution, with a geometric mean of 1.

    Args:
        distributions: [N] arrays of [m] probabilities in the order shown, for pairs in several permutations. Lengths
            may differ.
    """
    longest = max(len(each) for each in distributions)
    # The normal equations without the questions' constants, which each question's mean removes.
    normal_mm, sums_m = np.zeros((longest, longest)), np.zeros(longest)
    for each in distributions:
        size, logs = len(each), np.log(np.maximum(each, _MIN_PROBABILITY))
        normal_mm[:size, :size] += np.eye(size) - 1 / size
        sums_m[:size] += logs - logs.mean()
    # They leave a common factor open: of all solutions this is the one whose logarithms have a mean of 0.
    return np.exp(np.linalg.lstsq(normal_mm, sums_m)[0])


def divide(distribution: np.ndarray, prior_m: Sequence[float]) -> np.ndarray:
    """Returns a distribution, in the order shown, with the prior divided out.

    Numbers beyond the prior have a prior of 1, the geometric mean of the others.
    """
    weights = np.ones(len(distribution))
    weights[: len(prior_m)] = prior_m[: len(distribution)]
    divided = distribution / weights
    return divided / divided.sum()
