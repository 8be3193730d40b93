"""The baseline's predictions, as the table that `evaluate` reads.

Suffixes: n examples, c candidates of all examples end to end, b examples of a batch, m most candidates of an example.
"""

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

from artsel_ray import storage
from artsel_ray.baseline.encoding import NetworkInputs
from artsel_ray.baseline.example_arrays import ExampleArrays, IntArray
from artsel_ray.baseline.towers import Towers
from artsel_ray.baseline.trials import predict


def make_predictions(network: Towers, inputs: NetworkInputs, rows: ExampleArrays, model_id: str) -> pa.Table:
    """Returns one prediction, with all candidates' probabilities, for every user-title pair (its first example)."""
    probability_c, chosen_n, top_n = _choose(network, inputs)
    ids_c = rows.artwork_ids.take(pa.array(rows.artwork_c))
    offsets = pa.array(np.append(inputs.first_candidate_n, len(rows.artwork_c)).astype(np.int32))
    candidates = pa.StructArray.from_arrays([ids_c, pa.array(probability_c)], names=["artwork_id", "probability"])
    count = len(rows.label_n)
    table = pa.table(
        {
            "user_id": rows.user_ids,
            "title_id": rows.title_ids,
            "artwork_id": ids_c.take(pa.array(chosen_n)),
            "probability": top_n,
            "propensity": pa.nulls(count, pa.float64()),
            "candidates": pa.ListArray.from_arrays(offsets, candidates),
            "rationale": pa.nulls(count, pa.string()),
            "model_id": pa.array([model_id] * count),
            "fingerprint": pa.array([_fingerprint(rows, inputs, n, model_id) for n in range(count)]),
            "scored_at": pa.array([datetime.now(UTC)] * count, pa.timestamp("us", "UTC")),
        }
    )
    pairs = list(zip(rows.user_ids.to_pylist(), rows.title_ids.to_pylist(), strict=True))
    first = {pair: n for n, pair in reversed(list(enumerate(pairs)))}
    return table.take(pa.array(sorted(first.values())))


def _choose(network: Towers, inputs: NetworkInputs) -> tuple[np.ndarray, IntArray, np.ndarray]:
    """Returns all candidates' probabilities end to end, and each example's best: its index there, its probability."""
    parts, best, top = [], [], []
    for picked_b, log_bm in predict(network, inputs):
        probability_bm = log_bm.double().exp().numpy()
        parts.append(probability_bm[np.arange(probability_bm.shape[1]) < inputs.candidates_n[picked_b][:, None]])
        best.append(probability_bm.argmax(axis=1) + inputs.first_candidate_n[picked_b])
        top.append(probability_bm.max(axis=1))
    return np.concatenate(parts), np.concatenate(best), np.concatenate(top)


def _fingerprint(rows: ExampleArrays, inputs: NetworkInputs, n: int, model_id: str) -> str:
    """Returns a digest of the model and of everything that it reads of an example."""
    candidates = slice(inputs.first_candidate_n[n], inputs.first_candidate_n[n] + rows.candidates_n[n])
    history = slice(inputs.first_history_n[n], inputs.first_history_n[n] + rows.history_n[n])
    artworks = pa.array(rows.artwork_c[candidates])
    items = pa.array(np.append(rows.title_n[n], rows.item_h[history]))
    texts = (rows.artwork_ids, artworks), (rows.captions, artworks), (rows.names, items), (rows.genres, items)
    return storage.fingerprint(
        model_id, [values.take(taken).to_pylist() for values, taken in texts], inputs.history_hf[history].tolist()
    )
