"""Drawing the artwork that is served: only with its propensity can the next model learn from a run without bias.

Suffix: M candidates of a title.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from artsel_ray.score.settings import Exploration

# So few bits that a product with them, rounded, stays below the other factor.
_BITS = 48


@dataclass(frozen=True)
class ServingPolicy:
    """How the served artwork is drawn."""

    explore: Exploration = "none"
    epsilon: float = 0.0
    """Probability of a uniform draw, in [0, 1]; `epsilon` only."""
    temperature: float = 1.0
    """More than 0; `softmax` only."""
    seed: int = 0


def propensities(probability_m: NDArray, explore: Exploration, epsilon: float, temperature: float) -> NDArray:
    """Returns the probability with which each candidate is served: [M], which sums to 1.

    `none` serves the most likely candidate, the first of equals. `epsilon` does too, but with probability ε draws among
    all candidates: `ε/M + (1 − ε)·[m is the most likely]`. `softmax` draws with `p_m^(1/T) / Σ p^(1/T)`: the model's
    own probabilities at T = 1, closer to uniform above, closer to `none` below. (Sutton and Barto, "Reinforcement
    learning", 2nd edition, sections 2.2 and 2.8.)

    Args:
        probability_m: the model's distribution over the candidates.
        explore: as above.
        epsilon: ε, in [0, 1].
        temperature: T, more than 0.
    """
    if explore == "softmax":
        with np.errstate(divide="ignore"):  # a probability of 0 stays 0
            log_m = np.log(probability_m) / temperature
        weight_m = np.exp(log_m - log_m.max())
        return weight_m / weight_m.sum()
    served_m = np.zeros(len(probability_m))
    served_m[np.argmax(probability_m)] = 1.0
    return served_m if explore == "none" else epsilon / len(served_m) + (1 - epsilon) * served_m


def draw(propensity_m: NDArray, seed: int, user_id: str, title_id: str) -> int:
    """Returns the candidate that a user is served: always the same for the same arguments, so that a run can resume."""
    digest = hashlib.blake2b(repr((seed, user_id, title_id)).encode("utf-8", "surrogatepass"), digest_size=_BITS // 8)
    uniform = int.from_bytes(digest.digest()) / 2**_BITS
    below_m = np.cumsum(propensity_m)
    return int(np.searchsorted(below_m, uniform * below_m[-1], side="right"))
