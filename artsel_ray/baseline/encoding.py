"""Examples as the network takes them: indices into a vocabulary, sparse vectors and features.

Suffixes: n examples, c candidates of all examples end to end, h history items of all examples end to end,
a distinct artworks, i distinct items, f features of a history item.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from artsel_ray.baseline.example_arrays import ExampleArrays, FloatArray, IntArray, split_genres
from artsel_ray.baseline.terms import BUCKETS, tf_idf
from artsel_ray.baseline.vocabulary import Vocabulary, lookup

HISTORY_FEATURES = 4


@dataclass(frozen=True)
class NetworkInputs:
    """A split's examples, with each distinct artwork and item once.

    Attributes:
        label_n: index of the engaged artwork among the example's candidates.
        candidates_n: number of candidates; `first_candidate_n` is the index in `artwork_c` of the first.
        history_n: number of history items; `first_history_n` is the index in `item_h` of the first.
        history_hf: log days before the example, log minutes watched, 1 where these are unknown, log position from the
            newest.
        id_a, name_i: indices into the vocabulary, 0 if unknown.
        captions_a, name_terms_i: TF-IDF of terms. `genres_i`: one over the number of genres, at each genre's index.
        engaged_c: True at the engaged candidate in train, whose own engagement popularity must not count; else False.
    """

    label_n: IntArray
    candidates_n: IntArray
    first_candidate_n: IntArray
    artwork_c: IntArray
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


def encode(rows: ExampleArrays, vocabulary: Vocabulary, train: bool = False) -> NetworkInputs:
    """Returns the network's inputs.

    Args:
        train: these are the examples that the vocabulary's engagements were counted in.
    """
    id_a = lookup(rows.artwork_ids, vocabulary.artwork_ids)
    return NetworkInputs(
        label_n=rows.label_n,
        candidates_n=rows.candidates_n,
        first_candidate_n=np.cumsum(rows.candidates_n) - rows.candidates_n,
        artwork_c=rows.artwork_c,
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
        name_terms_i=tf_idf(rows.names, np.ones(BUCKETS, np.float32)),
        genres_i=_genre_shares(rows.genres, vocabulary.genres),
    )


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


def ranges(start: IntArray, length: IntArray) -> IntArray:
    """Returns the integers of `[start, start + length)` of all ranges, one range after another."""
    ends = np.cumsum(length)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(start - ends + length, length)
