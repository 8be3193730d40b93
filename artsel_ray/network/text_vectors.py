"""Frozen vectors of captions and titles' names, computed once each by a language model on Ray Data, and kept.

Suffixes: t texts, e elements of a vector.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray

from artsel_ray import storage
from artsel_ray.data.checked_reader import read_table
from artsel_ray.engines.text_encoder import TextEncoder
from artsel_ray.models.load import load
from artsel_ray.network.example_arrays import FloatArray
from artsel_ray.runtime.engine_pool import actor_options
from artsel_ray.runtime.task_result import capture, results, wrap

VECTORS = "_vectors"
"""Folder of a run's output where its vectors are kept, if no other is named."""

_PART_TEXTS = 2_048  # what a run that is killed loses


@dataclass(frozen=True)
class TextVectors:
    """Vectors of distinct texts; a text without one, such as an absent caption, has zeros."""

    texts: pa.Array
    vector_te: FloatArray

    def of(self, texts: pa.Array) -> FloatArray:
        """Returns the vectors of texts: [len(texts), E]."""
        zeros = np.zeros((1, self.vector_te.shape[1]), np.float32)
        found = pc.fill_null(pc.index_in(texts, value_set=self.texts), -1).to_numpy() + 1
        return np.concatenate([zeros, self.vector_te])[found]


NO_VECTORS = TextVectors(pa.array([], pa.string()), np.zeros((0, 0), np.float32))


def text_vectors(encoder: str, texts: pa.Array, kept: str, encoders: int, gpus: float) -> TextVectors:
    """Returns the vectors of distinct texts; computes those that are not below `kept` yet, and keeps them there.

    What is kept holds no text: each vector is found by a fingerprint of the model and the text.

    Args:
        encoders: processes that compute, each with so many `gpus`.

    Raises:
        InputError: if there is no such model, or it answers with NaN.
    """
    model_id = load(encoder, options=False).model_id
    texts = texts.filter(pc.greater(pc.binary_length(texts), 0))
    fingerprints = pa.array([storage.fingerprint(model_id, text) for text in texts.to_pylist()], pa.string())
    folder = storage.join(kept, storage.fingerprint(model_id)[:12])
    known = _read(folder)
    missing = texts.filter(pc.invert(pc.is_in(fingerprints, value_set=known["text_fingerprint"])))
    if len(missing):
        print(f"computing the vectors of {len(missing):,} texts with {model_id}", flush=True)
        _compute(encoder, model_id, missing, folder, encoders, gpus)
        known = _read(folder)
    found = known["vector"].combine_chunks().take(pc.index_in(fingerprints, value_set=known["text_fingerprint"]))
    return TextVectors(texts, pc.list_flatten(found).to_numpy().reshape(len(texts), -1))


def _read(folder: str) -> pa.Table:
    if not storage.find_files(folder):
        return pa.table({"text_fingerprint": pa.array([], pa.string()), "vector": pa.array([], pa.list_(pa.float32()))})
    return read_table(folder, "text_vectors")


def _compute(encoder: str, model_id: str, texts: pa.Array, folder: str, encoders: int, gpus: float) -> None:
    parts = [texts[first : first + _PART_TEXTS] for first in range(0, len(texts), _PART_TEXTS)]
    shared = ray.put([part.to_pylist() for part in parts])
    rows = ray.data.range(len(parts), override_num_blocks=len(parts))
    workers: Any = actor_options(min(encoders, len(parts)), gpus)
    computed = rows.map_batches(_Encode, fn_constructor_args=(encoder, model_id, shared, folder), **workers)
    done = 0
    for count in results(computed):
        done += count
        print(f"{done:,} of {len(texts):,} texts", flush=True)


class _Encode:
    """An actor of Ray Data that computes parts of the texts and writes them."""

    def __init__(self, encoder: str, model_id: str, shared: ray.ObjectRef, folder: str) -> None:
        self._encoder, self._model_id, self._folder = TextEncoder(load(encoder, options=False)), model_id, folder
        self._parts: list[list[str]] = ray.get(shared)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return wrap(capture(self._write, self._parts[int(batch["id"][0])]))

    def _write(self, texts: list[str]) -> int:
        fingerprints = [storage.fingerprint(self._model_id, text) for text in texts]
        vectors = pa.FixedSizeListArray.from_arrays(*_flat(self._encoder.encode(texts)))
        part = storage.join(self._folder, f"{storage.fingerprint(fingerprints)}.parquet")
        table = pa.table({"text_fingerprint": fingerprints, "vector": vectors.cast(pa.list_(pa.float32()))})
        storage.write_table(part, table, "text_vectors")
        return len(texts)


def _flat(vector_te: FloatArray) -> tuple[pa.Array, int]:
    return pa.array(vector_te.ravel()), vector_te.shape[1]
