"""Which artwork is served: the most likely one, or one drawn to explore, with its propensity.

Only with propensities can the next model learn from a run without bias. Suffix: M candidates of a title.
"""

import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from artsel_ray.score.settings import Exploration, ServingSettings

# So few that a uniform number below 1 times a sum, rounded, stays below the sum.
_BITS = 48


def propensities(
    probability_m: NDArray, explore: Exploration, epsilon: float, temperature: float, best: int | None = None
) -> NDArray:
    """Returns the probability with which each candidate is served: [M], which sums to 1.

    `none` serves the most likely candidate, the first of equals. `epsilon` does too, but with probability ε draws among
    all candidates: `ε/M + (1 − ε)·[m is the most likely]`. `softmax` draws with `p_m^(1/T) / Σ p^(1/T)`: the model's
    own probabilities at T = 1, closer to uniform above, closer to `none` below. (Sutton and Barto, "Reinforcement
    learning", 2nd edition, sections 2.2 and 2.8.)

    Args:
        probability_m: the model's distribution over the candidates.
        epsilon: ε, in [0, 1].
        temperature: T, more than 0.
        best: the model's choice; without it the first of the most likely candidates. They differ where candidates read
            the same, which share one probability.
    """
    if explore == "softmax":
        with np.errstate(divide="ignore"):  # a probability of 0 stays 0
            log_m = np.log(probability_m) / temperature
        weight_m = np.exp(log_m - log_m.max())
        return weight_m / weight_m.sum()
    served_m = np.zeros(len(probability_m))
    served_m[np.argmax(probability_m) if best is None else best] = 1.0
    return served_m if explore == "none" else epsilon / len(served_m) + (1 - epsilon) * served_m


def draw(propensity_m: NDArray, seed: int, user_id: str, title_id: str) -> int:
    """Returns the candidate that a user is served: always the same for the same arguments, so that a run can resume."""
    digest = hashlib.blake2b(repr((seed, user_id, title_id)).encode("utf-8", "surrogatepass"), digest_size=_BITS // 8)
    uniform = int.from_bytes(digest.digest()) / 2**_BITS
    below_m = np.cumsum(propensity_m)
    return int(np.searchsorted(below_m, uniform * below_m[-1], side="right"))


def serve(predictions: pa.Table, policy: ServingSettings) -> pa.Table:
    """Returns predictions whose `artwork_id`, `probability` and `propensity` follow the policy.

    The choice of a row without a propensity is its artwork, that of a row drawn by another run its most likely one.
    """
    explores = policy.explore != "none"
    if not explores and predictions["propensity"].null_count == predictions.num_rows:
        return predictions

    # Draw each row's candidate; `drawn` holds indices of all rows' candidates, one after another.
    lists = predictions["candidates"].combine_chunks()
    artwork_ids, probability_c = (pc.struct_field(lists.values, name) for name in ("artwork_id", "probability"))
    bounds, values = lists.offsets.to_numpy(), probability_c.to_numpy()
    drawn, propensity = np.empty(predictions.num_rows, dtype=np.int64), np.empty(predictions.num_rows)
    best = _choices(predictions, lists, artwork_ids)
    ids = zip(predictions["user_id"].to_pylist(), predictions["title_id"].to_pylist(), strict=True)
    for row, (user_id, title_id) in enumerate(ids):
        probability_m = values[bounds[row] : bounds[row + 1]]
        served_m = propensities(probability_m, policy.explore, policy.epsilon, policy.temperature, best.get(row))
        position = draw(served_m, policy.seed, user_id, title_id)
        drawn[row], propensity[row] = bounds[row] + position, served_m[position]

    columns = {
        "artwork_id": artwork_ids.take(pa.array(drawn)),
        "probability": probability_c.take(pa.array(drawn)),
        "propensity": pa.array(propensity) if explores else pa.nulls(len(drawn), pa.float64()),
    }
    for name, column in columns.items():
        index = predictions.schema.get_field_index(name)
        predictions = predictions.set_column(index, predictions.schema.field(name), column)
    return predictions


def _choices(predictions: pa.Table, lists: pa.ListArray, artwork_ids: pa.Array) -> dict[int, int]:
    """Returns the index of each row's artwork among its candidates, for rows that no other run has drawn."""
    row_c = pc.list_parent_indices(lists)
    is_chosen_c = pc.equal(artwork_ids, predictions["artwork_id"].combine_chunks().take(row_c))
    is_own_c = pc.and_(is_chosen_c, predictions["propensity"].combine_chunks().is_null().take(row_c))
    index_c = np.flatnonzero(pc.fill_null(is_own_c, False).to_numpy(zero_copy_only=False))
    rows = row_c.to_numpy()[index_c]
    return dict(zip(rows.tolist(), (index_c - lists.offsets.to_numpy()[rows]).tolist(), strict=True))
