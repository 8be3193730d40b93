"""Two models' distributions over the same candidates, added as weighted log-probabilities.

Suffixes: n examples, m candidates of one, k models (the language model, then the prior).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

Logs = Sequence[NDArray[np.float64]]
"""[N] arrays of [M] log-probabilities."""

SMALLEST = 1e-6
"""What counts as the probability of a candidate with less: one model alone must not rule a candidate out."""

_MAX_WEIGHT = 10.0
_MIN_EXAMPLES = 20


Weights = tuple[float, float]
"""What the language model's and the prior's log-probabilities count."""


def fused(log_km: NDArray[np.float64], weights: Weights) -> NDArray[np.float64]:
    """Returns the softmax of a weighted sum of two models' log-probabilities: [M]."""
    score_m = np.array(weights) @ log_km
    probability_m = np.exp(score_m - score_m.max())
    return probability_m / probability_m.sum()


def log_probabilities(probability_m: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns logarithms of probabilities of at least `SMALLEST`."""
    return np.log(np.maximum(probability_m, SMALLEST))


def fit_weights(
    model_n: Logs, prior_n: Logs, label_n: Sequence[int], is_known_n: Sequence[bool]
) -> tuple[Weights, Weights]:
    """Returns the weights with the lowest mean of `-log p(label)`: of known titles, and of new ones.

    A kind with fewer than 20 examples has the weights of all examples together.
    """
    known_n = np.array(is_known_n, dtype=bool)

    def fit(of_kind: NDArray[np.bool_]) -> Weights:
        picked = np.flatnonzero(of_kind if of_kind.sum() >= _MIN_EXAMPLES else np.ones(len(known_n), dtype=bool))
        return _fit([np.stack([model_n[n], prior_n[n]]) for n in picked], [label_n[n] for n in picked])

    return fit(known_n), fit(~known_n)


def _fit(log_nkm: list[NDArray[np.float64]], label_n: list[int]) -> Weights:
    # Examples of equal numbers of candidates are computed together.
    by_size: dict[int, list[int]] = {}
    for n, log_km in enumerate(log_nkm):
        by_size.setdefault(log_km.shape[1], []).append(n)
    parts = [
        (np.stack([log_nkm[n] for n in picked]), np.array([label_n[n] for n in picked])) for picked in by_size.values()
    ]

    def loss(weight_k: NDArray[np.float64]) -> float:
        total = 0.0
        for log_bkm, label_b in parts:
            score_bm = np.einsum("k,bkm->bm", weight_k, log_bkm)
            total += float((np.logaddexp.reduce(score_bm, axis=1) - score_bm[np.arange(len(label_b)), label_b]).sum())
        return total

    found = minimize(loss, np.ones(2), method="L-BFGS-B", bounds=[(0, _MAX_WEIGHT)] * 2)
    model, prior = found.x.tolist()
    return model, prior
