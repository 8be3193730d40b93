"""Examples as the network takes them: indices into a vocabulary, sparse vectors and features; and batches of them.

Suffixes: n examples, b examples of a batch, c their candidates end to end, h their history items end to end, a their
distinct artworks, i their distinct items (titles and history items), f features of a history item,
e elements of a vector.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from artsel_ray.data import checks
from artsel_ray.evaluation.examples import told_apart
from artsel_ray.network.example_arrays import ExampleArrays, FloatArray, IntArray, split_genres
from artsel_ray.network.text_vectors import NO_VECTORS, TextVectors
from artsel_ray.network.vocabulary import Vocabulary, lookup, standardized, tf_idf
from artsel_ray.prompts.escaping import escape

HISTORY_FEATURES = 4

SparseRows = tuple[Tensor, Tensor, Tensor]
"""Column indices, row offsets and values, as `EmbeddingBag` takes them."""


@dataclass(frozen=True)
class NetworkInputs:
    """A split's examples, with each distinct artwork and item once.

    Attributes:
        label_n: index of the engaged artwork among the example's candidates.
        propensity_n: probability with which it was shown; NaN where it is not known.
        candidates_n: number of candidates; `first_candidate_n` is the index in `artwork_c` of the first.
        history_n: number of history items; `first_history_n` is the index in `item_h` of the first.
        history_hf: log days before the newest item, log minutes watched, 1 where these are unknown, log position from
            the newest.
        id_a, name_i: indices into the vocabulary, 0 if unknown.
        captions_a, name_terms_i: TF-IDF of terms. `genres_i`: one over the number of genres, at each genre's index.
        vector_ae, vector_ie: a language model's vectors of captions and names; no columns without a model.
        text_c: number of each candidate's caption; see `Examples.text_c`.
        engaged_c: True at the engaged candidate in train, whose own engagement popularity must not count; else False.
    """

    label_n: IntArray
    propensity_n: NDArray[np.float64]
    candidates_n: IntArray
    first_candidate_n: IntArray
    artwork_c: IntArray
    text_c: IntArray
    engaged_c: NDArray[np.bool_]
    title_n: IntArray
    history_n: IntArray
    first_history_n: IntArray
    item_h: IntArray
    history_hf: FloatArray
    id_a: IntArray
    engagements_a: IntArray
    captions_a: csr_matrix
    name_i: IntArray
    name_terms_i: csr_matrix
    genres_i: csr_matrix
    vector_ae: FloatArray
    vector_ie: FloatArray


def encode(
    rows: ExampleArrays, vocabulary: Vocabulary, train: bool = False, vectors: TextVectors = NO_VECTORS
) -> NetworkInputs:
    """Returns the network's inputs; with `train` those of the examples that the vocabulary was made of."""
    id_a = lookup(rows.artwork_ids, vocabulary.artwork_ids)
    return NetworkInputs(
        label_n=rows.label_n,
        propensity_n=rows.propensity_n,
        candidates_n=rows.candidates_n,
        first_candidate_n=np.cumsum(rows.candidates_n) - rows.candidates_n,
        artwork_c=rows.artwork_c,
        text_c=told_apart(_caption_numbers(rows.captions)[rows.artwork_c], rows.candidates_n),
        engaged_c=rows.engaged_c if train else np.zeros(len(rows.artwork_c), bool),
        title_n=rows.title_n,
        history_n=rows.history_n,
        first_history_n=np.cumsum(rows.history_n) - rows.history_n,
        item_h=rows.item_h,
        history_hf=_history_features(rows),
        id_a=id_a,
        engagements_a=np.concatenate([[0], vocabulary.engagements_v])[id_a],
        captions_a=tf_idf(rows.captions, vocabulary.idf_w),
        name_i=lookup(rows.names, vocabulary.names),
        name_terms_i=_name_terms(rows.names, vocabulary),
        genres_i=_genre_shares(rows.genres, vocabulary.genres),
        vector_ae=standardized(vectors, rows.captions, vocabulary),
        vector_ie=standardized(vectors, rows.names, vocabulary),
    )


def _name_terms(names: pa.Array, vocabulary: Vocabulary) -> csr_matrix:
    distinct = names.dictionary_encode()  # items differ in their genres too
    return tf_idf(distinct.dictionary, (vocabulary.idf_w > 0).astype(np.float32))[distinct.indices.to_numpy()]


def _caption_numbers(captions: pa.Array) -> IntArray:
    """Returns a number for each caption, the same where prompts show the same text; one of its own without any."""
    texts = pa.array([escape(text) for text in captions.to_pylist()], pa.string()).dictionary_encode()
    own = len(texts) + np.arange(len(texts))
    is_empty = checks.mask(pc.equal(pc.binary_length(captions), 0))
    return np.where(is_empty, own, texts.indices.to_numpy().astype(np.int64))


def _history_features(rows: ExampleArrays) -> FloatArray:
    minutes_h = np.clip(np.nan_to_num(rows.watch_seconds_h, posinf=0.0, neginf=0.0), 0, None) / 60
    position_h = ranges(np.zeros_like(rows.history_n), rows.history_n)
    from_newest_h = np.repeat(rows.history_n, rows.history_n) - position_h
    features = np.log1p(rows.age_days_h), np.log1p(minutes_h), np.isnan(rows.watch_seconds_h), np.log(from_newest_h)
    return np.stack(features, axis=1).astype(np.float32)


def _genre_shares(joined: pa.Array, entries: pa.Array) -> csr_matrix:
    genres = split_genres(joined)
    counts = pc.list_value_length(genres).to_numpy().astype(np.int64)
    shares = np.repeat(1 / np.maximum(counts, 1), counts).astype(np.float32)
    columns = lookup(pc.list_flatten(genres), entries)
    return csr_matrix((shares, columns, np.concatenate([[0], np.cumsum(counts)])), (len(counts), len(entries) + 1))


@dataclass(frozen=True)
class Batch:
    """The tensors of one optimizer step: examples, with each artwork and item that they share once.

    Attributes:
        example_c, example_h: index of the candidate's or the history item's example.
        position_c: index of the candidate among its example's.
        artwork_c, title_b, item_h: indices into the batch's artworks and items.
        own_engagement_c: 1 where `engaged_c` is True, else 0.
    """

    label_b: Tensor
    title_b: Tensor
    example_c: Tensor
    position_c: Tensor
    artwork_c: Tensor
    own_engagement_c: Tensor
    example_h: Tensor
    item_h: Tensor
    history_hf: Tensor
    id_a: Tensor
    engagements_a: Tensor
    captions_a: SparseRows
    name_i: Tensor
    name_terms_i: SparseRows
    genres_i: SparseRows
    vector_ae: Tensor
    vector_ie: Tensor


def make_batch(inputs: NetworkInputs, picked_b: IntArray) -> Batch:
    """Returns the batch of the examples at these indices."""
    candidates_b, history_b = inputs.candidates_n[picked_b], inputs.history_n[picked_b]
    candidate_c = ranges(inputs.first_candidate_n[picked_b], candidates_b)
    history_h = ranges(inputs.first_history_n[picked_b], history_b)
    artwork_a, artwork_c = np.unique(inputs.artwork_c[candidate_c], return_inverse=True)
    items = np.concatenate([inputs.title_n[picked_b], inputs.item_h[history_h]])
    item_i, local = np.unique(items, return_inverse=True)
    example_b = np.arange(len(picked_b))
    return Batch(
        label_b=torch.from_numpy(inputs.label_n[picked_b]),
        title_b=torch.from_numpy(local[: len(picked_b)]),
        example_c=torch.from_numpy(np.repeat(example_b, candidates_b)),
        position_c=torch.from_numpy(ranges(np.zeros_like(candidates_b), candidates_b)),
        artwork_c=torch.from_numpy(artwork_c),
        own_engagement_c=torch.from_numpy(inputs.engaged_c[candidate_c].astype(np.float32)),
        example_h=torch.from_numpy(np.repeat(example_b, history_b)),
        item_h=torch.from_numpy(local[len(picked_b) :]),
        history_hf=torch.from_numpy(inputs.history_hf[history_h]),
        id_a=torch.from_numpy(inputs.id_a[artwork_a]),
        engagements_a=torch.from_numpy(inputs.engagements_a[artwork_a].astype(np.float32)),
        captions_a=_tensors(inputs.captions_a[artwork_a]),
        name_i=torch.from_numpy(inputs.name_i[item_i]),
        name_terms_i=_tensors(inputs.name_terms_i[item_i]),
        genres_i=_tensors(inputs.genres_i[item_i]),
        vector_ae=torch.from_numpy(inputs.vector_ae[artwork_a]),
        vector_ie=torch.from_numpy(inputs.vector_ie[item_i]),
    )


def _tensors(rows: csr_matrix) -> SparseRows:
    return torch.from_numpy(rows.indices), torch.from_numpy(rows.indptr), torch.from_numpy(rows.data)


def ranges(start: IntArray, length: IntArray) -> IntArray:
    """Returns the integers of `[start, start + length)` of all ranges, one range after another."""
    ends = np.cumsum(length)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(start - ends + length, length)
