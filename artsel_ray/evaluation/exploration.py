"""What a run that explored would choose, and the policy that it served, from its probabilities and propensities.

A drawn artwork says nothing about the policy that drew it: judged as a choice on its own log, it is always right.
Suffixes: r predictions, l candidates of all of them end to end.
"""

import numpy as np
from numpy.typing import NDArray

from artsel_ray.evaluation.examples import FloatArray, IntArray

_TOLERANCE = 1e-4
"""Largest difference between a propensity and the recovered policy: a stored float32 differs by less."""
_TEMPERATURES = (1e-3, 1e3)
_ROWS, _GRID, _ZOOMS = 2_000, 41, 10


def most_likely(probability_l: FloatArray, size_r: IntArray, text_l: IntArray) -> IntArray:
    """Returns the index among all candidates of each prediction's choice: the first of the most likely text.

    Args:
        size_r: number of candidates of each prediction, at least 1.
        text_l: number of each candidate's text; candidates that read the same share one probability.
    """
    owner_l = np.repeat(np.arange(len(size_r)), size_r)
    _, group_l = np.unique(owner_l * (int(text_l.max()) + 1) + text_l, return_inverse=True)
    mass_l, start_r = np.bincount(group_l, probability_l)[group_l], np.cumsum(size_r) - size_r
    best_l = mass_l == np.repeat(np.maximum.reduceat(mass_l, start_r), size_r)
    index_l = np.where(best_l, np.arange(len(probability_l)), len(probability_l))
    return np.minimum.reduceat(index_l, start_r)


def epsilon_policy(greedy_r: IntArray, size_r: IntArray, epsilon: float) -> FloatArray:
    """Returns `ε/M + (1 − ε)·[m is greedy]` of every candidate."""
    policy_l = np.repeat(epsilon / size_r, size_r)
    policy_l[greedy_r] += 1 - epsilon
    return policy_l


def softmax_policy(probability_l: FloatArray, size_r: IntArray, temperature: float) -> FloatArray:
    """Returns `p^(1/T) / Σ p^(1/T)` of every candidate."""
    start_r = np.cumsum(size_r) - size_r
    with np.errstate(divide="ignore"):  # a probability of 0 stays 0
        log_l = np.log(probability_l) / temperature
    weight_l = np.exp(log_l - np.repeat(np.maximum.reduceat(log_l, start_r), size_r))
    return weight_l / np.repeat(np.add.reduceat(weight_l, start_r), size_r)


def served_policy(
    probability_l: FloatArray, size_r: IntArray, greedy_r: IntArray, served_r: IntArray, propensity_r: FloatArray
) -> FloatArray | None:
    """Returns the probability with which a run served every candidate; None if it is neither `epsilon` nor `softmax`.

    A run has one ε or one temperature, which its propensities determine.

    Args:
        greedy_r: from `most_likely`.
        served_r: index among all candidates of the one that was served with the probability `propensity_r`.
    """
    for policy_l in (
        epsilon_policy(greedy_r, size_r, _epsilon(size_r, served_r == greedy_r, propensity_r)),
        softmax_policy(probability_l, size_r, _temperature(probability_l, size_r, served_r, propensity_r)),
    ):
        if np.abs(policy_l[served_r] - propensity_r).max() <= _TOLERANCE:
            return policy_l
    return None


def _epsilon(size_r: IntArray, is_greedy_r: NDArray[np.bool_], propensity_r: FloatArray) -> float:
    several_r = size_r > 1  # a single candidate is served with certainty
    if not several_r.any():
        return 0.0
    size_r, is_greedy_r, propensity_r = size_r[several_r], is_greedy_r[several_r], propensity_r[several_r]
    epsilon_r = np.where(is_greedy_r, (1 - propensity_r) * size_r / (size_r - 1), propensity_r * size_r)
    return float(np.clip(np.median(epsilon_r), 0, 1))


def _temperature(probability_l: FloatArray, size_r: IntArray, served_r: IntArray, propensity_r: FloatArray) -> float:
    """Returns the temperature that fits the first propensities best, by a grid that zooms in."""
    size_r = size_r[:_ROWS]
    probability_l, served_r, propensity_r = probability_l[: size_r.sum()], served_r[:_ROWS], propensity_r[:_ROWS]

    def error(log_temperature: float) -> float:
        policy_l = softmax_policy(probability_l, size_r, float(np.exp(log_temperature)))
        return float(np.square(policy_l[served_r] - propensity_r).sum())

    low, high = np.log(_TEMPERATURES)
    for _ in range(_ZOOMS):
        grid = np.linspace(low, high, _GRID)
        best = int(np.argmin([error(each) for each in grid]))
        low, high = grid[max(best - 1, 0)], grid[min(best + 1, _GRID - 1)]
    return float(np.exp((low + high) / 2))
