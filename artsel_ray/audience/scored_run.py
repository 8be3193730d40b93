"""What users watch, and what a finished scoring run chose for them.

Suffixes: u users, g genres, a artworks, n predictions, c candidates of all predictions end to end.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from artsel_ray import storage
from artsel_ray.config import AssetKind
from artsel_ray.data import checks
from artsel_ray.data.catalog import Catalog
from artsel_ray.data.checked_reader import CheckedReader
from artsel_ray.errors import InputError
from artsel_ray.runtime.run import CONFIG

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class UserGenres:
    """Users by the share of each genre in what they watched."""

    user_ids: pa.Array
    genres: list[str]
    share_ug: NDArray[np.float32]
    """Rows sum to 1, or are 0 for users without a known genre."""


@dataclass(frozen=True)
class ScoredRun:
    """A finished run's predictions, by title."""

    user_n: IntArray
    """Index into `UserGenres.user_ids`."""
    title_n: IntArray
    """Index into the catalog's `title_ids`."""
    artwork_n: IntArray
    """The chosen artwork's index into the catalog's `artwork_ids`."""
    kl_divergence_n: FloatArray
    """How personalized a prediction is, in nats: the Kullback-Leibler divergence of the candidates' probabilities from
    their mean over the title's users. 0 if not read."""
    rationale_n: pa.ChunkedArray
    """Null where the model gave none."""

    def titles(self) -> Iterator[slice]:
        """Yields the positions of each title's predictions."""
        bounds = np.flatnonzero(np.diff(self.title_n, prepend=-1, append=-1)).tolist()
        yield from (slice(first, last) for first, last in itertools.pairwise(bounds))


def asset_kind_of(predictions: str) -> AssetKind:
    """Returns what a scoring run chose among.

    Raises:
        InputError: if this is no output of `jobs/score.py`.
    """
    prompt = storage.read_json(storage.join(predictions, CONFIG))["run"].get("prompt")
    if prompt is None:
        raise InputError(f"{predictions} is no output of jobs/score.py")
    kind: AssetKind = prompt.get("asset_kind", "artwork")
    return kind


def read_user_genres(files: list[str]) -> UserGenres:
    """Reads the requests' histories; all rows of a user count together.

    Invalid rows are left out: scoring rejected them.

    Raises:
        InputError: if a file is broken or is no table of requests.
    """

    def row_checks(rows: pa.Table) -> list[checks.RowCheck]:
        return [("user_id", checks.MISSING, checks.missing(rows["user_id"]))]

    users, counts = [pa.array([], pa.string())], []
    genres: dict[str, int] = {}
    for batch in CheckedReader(files, "requests", ["user_id", "history.genres"], row_checks).batches():
        counts.append(_count(batch.valid["history"].combine_chunks(), genres))
        users.append(batch.valid["user_id"].combine_chunks())
    encoded = pa.concat_arrays(users).dictionary_encode()
    share_ug = np.zeros((len(encoded.dictionary), len(genres)), np.float32)
    user, first = encoded.indices.to_numpy(), 0
    for count in counts:
        np.add.at(share_ug[:, : count.shape[1]], user[first : first + len(count)], count)
        first += len(count)
    share_ug /= np.maximum(share_ug.sum(axis=1, keepdims=True), 1)
    return UserGenres(encoded.dictionary, list(genres), share_ug)


def _count(histories: pa.ListArray, genres: dict[str, int]) -> NDArray[np.float32]:
    """Counts each row's genres; a new genre gets the next index in `genres`."""
    items, row_of_item = pc.list_flatten(histories), pc.list_parent_indices(histories).to_numpy()
    lists = pc.struct_field(items, "genres")
    encoded = pc.list_flatten(lists).dictionary_encode()
    row = row_of_item[pc.list_parent_indices(lists).to_numpy()]
    known = np.array([genres.setdefault(name, len(genres)) for name in encoded.dictionary.to_pylist()], np.int64)
    counts = np.zeros((len(histories), len(genres)), np.float32)
    valid = encoded.is_valid().to_numpy(zero_copy_only=False)
    codes = pc.fill_null(encoded.indices, 0).to_numpy()
    np.add.at(counts, (row[valid], known[codes[valid]]), 1)
    return counts


def read_scored_run(parts: list[str], catalog: Catalog, user_genres: UserGenres, ranked: bool) -> ScoredRun:
    """Reads a run's predictions.

    Args:
        parts: URIs of the files that the run's manifest lists.
        ranked: whether to compute `kl_divergence_n`.

    Raises:
        InputError: if a user, title or artwork of a prediction is not in the tables, or if it is `ranked` and has no
            candidates' probabilities.
    """
    columns = ["user_id", "title_id", "artwork_id", "rationale", *(["candidates"] if ranked else [])]
    mean_a = _mean_probabilities(parts, catalog) if ranked else np.zeros(0)
    codes, divergences, rationales = [np.zeros((3, 0), np.int64)], [np.zeros(0)], [pa.chunked_array([], pa.string())]
    for batch in CheckedReader(parts, "predictions", columns).valid_batches():
        codes.append(_codes(batch, parts, catalog, user_genres))
        divergences.append(_kl_divergence(batch, catalog, mean_a) if ranked else np.zeros(batch.num_rows))
        rationales.append(batch["rationale"])
    code_n = np.concatenate(codes, axis=1)
    order = np.argsort(code_n[1], kind="stable")
    rationale_n = pa.chunked_array([chunk for column in rationales for chunk in column.chunks], pa.string())
    user_n, title_n, artwork_n = code_n[:, order]
    return ScoredRun(user_n, title_n, artwork_n, np.concatenate(divergences)[order], rationale_n.take(order))


def _codes(predictions: pa.Table, parts: list[str], catalog: Catalog, user_genres: UserGenres) -> IntArray:
    """Returns each prediction's user, title and artwork as indices: [3, n]."""
    known = {"user_id": user_genres.user_ids, "title_id": catalog.title_ids, "artwork_id": catalog.artwork_ids}
    found = {name: checks.codes(predictions[name], ids) for name, ids in known.items()}
    for name, code in found.items():
        if (code < 0).any():
            first = int(np.argmax(code < 0))
            file, row = parts[predictions["file"][first].as_py()], predictions["row"][first]
            raise InputError(f"{file}: row {row} (from 0), '{name}' is not in the tables; give those of that run")
    return np.stack(list(found.values())).astype(np.int64)


def _mean_probabilities(parts: list[str], catalog: Catalog) -> FloatArray:
    """Returns each artwork's mean probability over its title's users: [a]."""
    sum_a, count_a = np.zeros(len(catalog.artwork_ids)), np.zeros(len(catalog.artwork_ids))
    for batch in CheckedReader(parts, "predictions", ["candidates"]).valid_batches():
        empty = pc.fill_null(pc.list_value_length(batch["candidates"]), 0).to_numpy() == 0
        if empty.any():
            first = int(np.argmax(empty))
            file, row = parts[batch["file"][first].as_py()], batch["row"][first]
            raise InputError(f"{file}: row {row} (from 0) has no candidates' probabilities; score with --decoding rank")
        probability_c, artwork_c, _ = _probabilities(batch, catalog)
        np.add.at(sum_a, artwork_c[artwork_c >= 0], probability_c[artwork_c >= 0])
        np.add.at(count_a, artwork_c[artwork_c >= 0], 1)
    return sum_a / np.maximum(count_a, 1)


def _probabilities(predictions: pa.Table, catalog: Catalog) -> tuple[FloatArray, IntArray, IntArray]:
    """Returns each candidate's probability, its artwork, and the row of its prediction: [c] each."""
    lists = predictions["candidates"].combine_chunks()
    artwork_id, probability = (pc.struct_field(pc.list_flatten(lists), name) for name in ("artwork_id", "probability"))
    artwork_c = checks.codes(pa.chunked_array([artwork_id]), catalog.artwork_ids)
    return pc.fill_null(probability, 0.0).to_numpy(), artwork_c, pc.list_parent_indices(lists).to_numpy()


def _kl_divergence(predictions: pa.Table, catalog: Catalog, mean_a: FloatArray) -> FloatArray:
    """Returns the divergence of each prediction's probabilities from the means: [n]."""
    probability_c, artwork_c, row_c = _probabilities(predictions, catalog)
    counts = (artwork_c >= 0) & (probability_c > 0)
    nats_c = probability_c[counts] * np.log(probability_c[counts] / mean_a[artwork_c[counts]])
    return np.bincount(row_c[counts], nats_c, predictions.num_rows).astype(np.float64)
