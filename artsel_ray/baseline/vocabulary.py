"""What the network knows of the train examples. Nothing else is ever counted.

Suffixes: v entries of a vocabulary, w hash buckets of terms.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from artsel_ray.baseline.example_arrays import ExampleArrays, FloatArray, IntArray, split_genres
from artsel_ray.baseline.terms import inverse_document_frequency


@dataclass(frozen=True)
class Vocabulary:
    """Strings of the train examples, sorted, and what was counted of them.

    Attributes:
        engagements_v: engagements with each artwork in train.
        idf_w: inverse document frequency of each bucket of terms, over train's captions.
    """

    artwork_ids: pa.Array
    names: pa.Array
    genres: pa.Array
    engagements_v: IntArray
    idf_w: FloatArray


def make_vocabulary(train: ExampleArrays) -> Vocabulary:
    """Returns the vocabulary of train examples."""
    artwork_ids = pc.unique(train.artwork_ids).sort()
    engaged = lookup(train.artwork_ids, artwork_ids)[train.artwork_c[train.engaged_c]] - 1
    return Vocabulary(
        artwork_ids,
        pc.unique(train.names).sort(),
        pc.unique(pc.list_flatten(split_genres(train.genres))).sort(),
        np.bincount(engaged, minlength=len(artwork_ids)),
        inverse_document_frequency(train.captions),
    )


def lookup(values: pa.Array, entries: pa.Array) -> IntArray:
    """Returns each value's index among the entries + 1; 0 stands for all unknown values."""
    return pc.fill_null(pc.index_in(values, value_set=entries), -1).to_numpy().astype(np.int64) + 1
