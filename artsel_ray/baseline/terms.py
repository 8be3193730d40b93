"""Captions and names as TF-IDF vectors of hashed terms: words, and pairs of adjacent words.

Suffixes: w hash buckets of terms.
"""

import numpy as np
import pyarrow as pa
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer

from artsel_ray.baseline.example_arrays import FloatArray

BUCKETS = 1 << 15

# Counts, not signed sums: TF-IDF takes their logarithm.
_COUNTER = HashingVectorizer(
    n_features=BUCKETS, token_pattern=r"\w+", ngram_range=(1, 2), norm=None, alternate_sign=False, dtype=np.float32
)


def count_terms(texts: pa.Array) -> csr_matrix:
    """Returns `[texts, BUCKETS]` counts of each text's terms, in lower case; a text without words is an empty row."""
    return _COUNTER.transform(texts.to_pylist())


def inverse_document_frequency(texts: pa.Array) -> FloatArray:
    """Returns `log((1 + texts) / (1 + texts with a term of the bucket)) + 1` of every bucket."""
    return TfidfTransformer().fit(count_terms(texts)).idf_


def tf_idf(texts: pa.Array, idf_w: FloatArray) -> csr_matrix:
    """Returns `[texts, BUCKETS]` rows of length 1, in proportion to `(1 + log count) * idf_w`."""
    transformer = TfidfTransformer(sublinear_tf=True)
    transformer.idf_ = idf_w
    return transformer.transform(count_terms(texts))
