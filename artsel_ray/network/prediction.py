"""A network's distributions over the candidates, and the fingerprints of what it was asked.

Suffixes: n examples, b examples of a batch, m most candidates of an example, c candidates of all examples end to end,
a distinct artworks, i distinct items.
"""

import hashlib
import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from artsel_ray import storage
from artsel_ray.engines.base import check_finite
from artsel_ray.network.encoding import NetworkInputs, make_batch
from artsel_ray.network.example_arrays import ExampleArrays, IntArray
from artsel_ray.network.network_files import AnyNetwork
from artsel_ray.network.towers import Network

_BATCH = 1_024


class Predicted(NamedTuple):
    """What a network says of N examples.

    Attributes:
        probability_c: of each candidate, one example after another.
        chosen_n: index in `probability_c` of the most likely candidate, the first of equals.
    """

    probability_c: NDArray[np.float64]
    chosen_n: IntArray


def predict(network: Network | AnyNetwork, inputs: NetworkInputs) -> Iterator[tuple[IntArray, Tensor]]:
    """Yields, batch by batch, the examples' indices and their `[B, M]` log-probabilities."""
    network.eval()
    for first in range(0, len(inputs.label_n), _BATCH):
        picked_b = np.arange(first, min(first + _BATCH, len(inputs.label_n)))
        with torch.no_grad():
            yield picked_b, network(make_batch(inputs, picked_b))


def choose(network: AnyNetwork, inputs: NetworkInputs) -> Predicted:
    """Returns each example's distribution and choice.

    Raises:
        InputError: if the network answers with NaN.
    """
    parts, chosen = [np.empty(0)], [np.empty(0, np.int64)]
    for picked_b, log_bm in predict(network, inputs):
        probability_bm = log_bm.double().exp().numpy()
        parts.append(probability_bm[np.arange(probability_bm.shape[1]) < inputs.candidates_n[picked_b][:, None]])
        chosen.append(probability_bm.argmax(axis=1) + inputs.first_candidate_n[picked_b])
    probability_c = np.concatenate(parts)
    check_finite(probability_c)
    return Predicted(probability_c, np.concatenate(chosen))


def fingerprints(rows: ExampleArrays, history_hf: NDArray[np.float32], shared: object) -> list[str]:
    """Returns a digest of all that an example's distribution depends on.

    Args:
        history_hf: the features of the history items, as `NetworkInputs` has them.
        shared: what all examples depend on: the network, above all.
    """
    artworks, items = _digests(rows.artwork_ids, rows.captions), _digests(rows.names, rows.genres)
    shared_bytes = storage.fingerprint(shared).encode()
    titles, title_n = np.unique(rows.title_n, return_inverse=True)
    digests = [hashlib.blake2b(shared_bytes + items[title].tobytes(), digest_size=16) for title in titles.tolist()]
    # One string of bytes for all candidates, and one for all history items.
    artwork_c = artworks[rows.artwork_c].tobytes()
    item_h = np.empty(len(rows.item_h), dtype=[("item", "V16"), ("features", np.float32, history_hf.shape[1])])
    item_h["item"], item_h["features"] = items[rows.item_h], history_hf
    history, width = item_h.tobytes(), item_h.itemsize
    bounds = (itertools.pairwise([0, *np.cumsum(count).tolist()]) for count in (rows.candidates_n, rows.history_n))
    found = []
    for title, (first, last), (oldest, end) in zip(title_n.tolist(), *bounds, strict=True):
        digest = digests[title].copy()
        digest.update(artwork_c[first * 16 : last * 16])
        digest.update(history[oldest * width : end * width])
        found.append(digest.hexdigest())
    return found


def _digests(*columns: pa.Array) -> NDArray[np.void]:
    """Returns a digest of the strings in each row: 16 bytes."""
    rows = zip(*(column.to_pylist() for column in columns), strict=True)
    digests = [hashlib.blake2b(repr(row).encode("utf-8", "surrogatepass"), digest_size=16).digest() for row in rows]
    return np.array(digests, dtype="V16")
