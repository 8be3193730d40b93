"""What the network knows of the train examples, and texts as TF-IDF vectors of hashed terms: words, and adjacent pairs.

Words, names and genres of fewer than `MIN_USERS` users (or of all users, if train has fewer) are left out, so that a
model's files say nothing of a few people.

Suffixes: v entries of a vocabulary, w hash buckets of terms, u users, i items, a artworks, h history items, n examples,
c candidates, k keys.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer

from artsel_ray.network.example_arrays import ExampleArrays, FloatArray, IntArray, split_genres
from artsel_ray.network.text_vectors import NO_VECTORS, TextVectors

BUCKETS = 1 << 15
MIN_USERS = 5
"""Users whose train examples have a word, name or genre, in a caption or among their titles, for it to be kept."""

# Counts, not signed sums: TF-IDF takes their logarithm.
_COUNTER = HashingVectorizer(
    n_features=BUCKETS, token_pattern=r"\w+", ngram_range=(1, 2), norm=None, alternate_sign=False, dtype=np.float32
)


@dataclass(frozen=True)
class Vocabulary:
    """Strings of the train examples, sorted, and what was counted of them; nothing else is ever counted.

    Attributes:
        engagements_v: engagements with each artwork in train.
        idf_w: inverse document frequency of each bucket of terms, over train's captions; 0 for those of too few users.
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
    user_n = pc.rank(train.user_ids, tiebreaker="dense").to_numpy().astype(np.int64) - 1
    titles_ui = _incidence(
        np.append(user_n, np.repeat(user_n, train.history_n)), np.append(train.title_n, train.item_h), len(train.names)
    )
    shown_ua = _incidence(np.repeat(user_n, train.candidates_n), train.artwork_c, len(train.captions))
    enough_w = _of_enough_users([(titles_ui, count_terms(train.names)), (shown_ua, count_terms(train.captions))])
    return Vocabulary(
        artwork_ids,
        _entries(train.names, np.arange(len(train.names)), titles_ui),
        _entries(*_flat_genres(train.genres), titles_ui),
        np.bincount(engaged, minlength=len(artwork_ids)),
        np.where(enough_w, inverse_document_frequency(train.captions), 0).astype(np.float32),
        mean_e,
        np.array([(vector_te - mean_e).std() or 1] if mean_e.size else [1], np.float32),
    )


def _incidence(user: IntArray, column: IntArray, columns: int) -> csr_matrix:
    """Returns which users have which columns, as ones."""
    found = csr_matrix((np.ones(len(user), np.float32), (user, column)), (int(user.max(initial=0)) + 1, columns))
    found.data[:] = 1
    return found


def _of_enough_users(seen: list[tuple[csr_matrix, csr_matrix]]) -> NDArray[np.bool_]:
    """Returns which of K keys enough users have, by users' columns, [U, X], and these columns' keys, [X, K].

    Most keys are in a column that enough users have. Only for the others, users are counted.
    """
    least = min(MIN_USERS, seen[0][0].shape[0])
    frequent_k = np.zeros(seen[0][1].shape[1], bool)
    for users_ux, keys_xk in seen:
        is_frequent = np.bincount(users_ux.indices, minlength=users_ux.shape[1]) >= least
        frequent_k[keys_xk[is_frequent].indices] = True
    rest = np.flatnonzero(~frequent_k)
    # A user may have a key by columns of both kinds.
    users_uk = sum(users_ux @ (keys_xk[:, rest] != 0).astype(np.float32) for users_ux, keys_xk in seen)
    frequent_k[rest] = np.bincount(users_uk.tocsr().nonzero()[1], minlength=len(rest)) >= least
    return frequent_k


def _entries(values: pa.Array, item: IntArray, titles_ui: csr_matrix) -> pa.Array:
    """Returns the distinct values, sorted, of the items that enough users have."""
    entries = pc.unique(values).sort()
    code = lookup(values, entries) - 1
    keys_ik = csr_matrix((np.ones(len(item), np.float32), (item, code)), (titles_ui.shape[1], len(entries)))
    return entries.filter(pa.array(_of_enough_users([(titles_ui, keys_ik)])))


def _flat_genres(joined: pa.Array) -> tuple[pa.Array, IntArray]:
    genres = split_genres(joined)
    counts = pc.list_value_length(genres).to_numpy().astype(np.int64)
    return pc.list_flatten(genres), np.repeat(np.arange(len(genres)), counts)


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
    rows = transformer.transform(count_terms(texts))
    rows.eliminate_zeros()
    return rows
