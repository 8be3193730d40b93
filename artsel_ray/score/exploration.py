"""Drawing the artwork that is served: without its propensity a night teaches nothing without bias to the next model.

Suffix: m candidates of a title.
"""

import hashlib
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Exploration = Literal["none", "epsilon", "softmax"]
# So few bits that a product with them, rounded, stays below the other factor.
_BITS = 48


def propensities(probability_m: NDArray, how: Exploration, epsilon: float, temperature: float) -> NDArray:
    """Returns the probability with which each candidate is served: [M], which sums to 1.

    `none` serves the likeliest candidate, the first of equals. `epsilon` does so too, but with probability epsilon
    draws among all candidates: `ε/M + (1 − ε)·[m is the likeliest]`. `softmax` draws with `p_m^(1/T) / Σ p^(1/T)`:
    the model's own probabilities at T = 1, nearer to uniform above, nearer to `none` below. (Sutton and Barto,
    "Reinforcement learning", 2nd edition, sections 2.2 and 2.8.)

    Args:
        probability_m: the model's, from `trie.rank`.
        how: as above.
        epsilon: in [0, 1].
        temperature: T, above 0.
    """
    if how == "softmax":
        with np.errstate(divide="ignore"):  # a probability of 0 stays one
            log_m = np.log(probability_m) / temperature
        weight_m = np.exp(log_m - log_m.max())
        return weight_m / weight_m.sum()
    served_m = np.zeros(len(probability_m))
    served_m[np.argmax(probability_m)] = 1.0
    return served_m if how == "none" else epsilon / len(served_m) + (1 - epsilon) * served_m


def draw(propensity_m: NDArray, seed: int, user_id: str, title_id: str) -> int:
    """Returns the candidate that a user is served: always the same for the same arguments, so that a run can resume."""
    digest = hashlib.blake2b(repr((seed, user_id, title_id)).encode("utf-8", "surrogatepass"), digest_size=_BITS // 8)
    uniform = int.from_bytes(digest.digest()) / 2**_BITS
    below_m = np.cumsum(propensity_m)
    return int(np.searchsorted(below_m, uniform * below_m[-1], side="right"))
