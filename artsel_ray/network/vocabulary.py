"""What the network knows of the train examples, and texts as TF-IDF vectors of hashed terms: words, and adjacent pairs.

Suffixes: v entries of a vocabulary, w hash buckets of terms.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer

from artsel_ray.network.example_arrays import ExampleArrays, FloatArray, IntArray, split_genres
from artsel_ray.network.text_vectors import NO_VECTORS, TextVectors

BUCKETS = 1 << 15

# Counts, not signed sums: TF-IDF takes their logarithm.
_COUNTER = HashingVectorizer(
    n_features=BUCKETS, token_pattern=r"\w+", ngram_range=(1, 2), norm=None, alternate_sign=False, dtype=np.float32
)


@dataclass(frozen=True)
class Vocabulary:
    """Strings of the train examples, sorted, and what was counted of them; nothing else is ever counted.

    Attributes:
        engagements_v: engagements with each artwork in train.
        idf_w: inverse document frequency of each bucket of terms, over train's captions.
        vector_mean_e, vector_scale: mean of the vectors of train's captions, and one standard deviation of all their
            elements around it; empty and 1 without a language model.
    """

    artwork_ids: pa.Array
    names: pa.Array
    genres: pa.Array
    engagements_v: IntArray
    idf_w: FloatArray
    vector_mean_e: FloatArray
    vector_scale: FloatArray


def make_vocabulary(train: ExampleArrays, vectors: TextVectors = NO_VECTORS) -> Vocabulary:
    """Returns the vocabulary of train examples."""
    vector_te = vectors.of(train.captions)
    mean_e = vector_te.mean(axis=0)
    artwork_ids = pc.unique(train.artwork_ids).sort()
    engaged = lookup(train.artwork_ids, artwork_ids)[train.artwork_c[train.engaged_c]] - 1
    return Vocabulary(
        artwork_ids,
        pc.unique(train.names).sort(),
        pc.unique(pc.list_flatten(split_genres(train.genres))).sort(),
        np.bincount(engaged, minlength=len(artwork_ids)),
        inverse_document_frequency(train.captions),
        mean_e,
        np.array([(vector_te - mean_e).std() or 1] if mean_e.size else [1], np.float32),
    )


def standardized(vectors: TextVectors, texts: pa.Array, vocabulary: Vocabulary) -> FloatArray:
    """Returns the vectors of texts around train's mean, in its standard deviation; zeros where there is none: [N, E].

    A model's vectors have a few elements hundreds of times as large as the others, and these are among those that tell
    most: one scale for all elements gave better choices than one for each (benchmarks/results/baseline.md).
    """
    vector_te = vectors.of(texts)
    scaled_te = (vector_te - vocabulary.vector_mean_e) / vocabulary.vector_scale
    return np.where(vector_te.any(axis=1, keepdims=True), scaled_te, 0).astype(np.float32)


def lookup(values: pa.Array, entries: pa.Array) -> IntArray:
    """Returns each value's index among the entries + 1; 0 stands for all unknown values."""
    return pc.fill_null(pc.index_in(values, value_set=entries), -1).to_numpy().astype(np.int64) + 1


def count_terms(texts: pa.Array) -> csr_matrix:
    """Returns `[texts, BUCKETS]` counts of each text's terms, in lower case; a text without words is an empty row."""
    return _COUNTER.transform(texts.to_pylist())


def inverse_document_frequency(texts: pa.Array) -> FloatArray:
    """Returns `log((1 + texts) / (1 + texts with a term of the bucket)) + 1` of every bucket."""
    return TfidfTransformer().fit(count_terms(texts)).idf_


def tf_idf(texts: pa.Array, idf_w: FloatArray) -> csr_matrix:
    """Returns `[texts, BUCKETS]` rows of length 1, in proportion to `(1 + log count) * idf_w`."""
    if not len(texts):  # which scikit-learn refuses
        return csr_matrix((0, BUCKETS), dtype=np.float32)
    transformer = TfidfTransformer(sublinear_tf=True)
    transformer.idf_ = idf_w
    return transformer.transform(count_terms(texts))
