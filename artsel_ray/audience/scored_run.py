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
from scipy.sparse import csr_array

from artsel_ray import storage
from artsel_ray.config import DEFAULT_LIMITS, AssetKind, RowLimits
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
    """Rows sum to 1 with the genres that are left out, or are 0 for users without a genre."""


@dataclass(frozen=True)
class ScoredRun:
    """A finished run's predictions, by title: indices into `user_genres` and into the catalog's titles and artworks."""

    user_genres: UserGenres
    user_n: IntArray
    title_n: IntArray
    artwork_n: IntArray
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
    run = storage.read_json(storage.join(predictions, CONFIG))["run"]
    if not {"prompt", "decoding"} & run.keys():
        raise InputError(f"{predictions} is no output of jobs/score.py")
    return run.get("prompt", run).get("asset_kind", "artwork")  # a network has no prompt


def read_user_genres(files: list[str], min_users: int = 1, limits: RowLimits = DEFAULT_LIMITS) -> UserGenres:
    """Reads the requests' histories; all rows of a user count together. Leaves out invalid rows: scoring rejected them.

    Genres that fewer than `min_users` have are left out, too: they could tell who a user is.

    Raises:
        InputError: if a file is broken or is no table of requests.
    """

    def row_checks(rows: pa.Table) -> list[checks.RowCheck]:
        return [("user_id", checks.MISSING, checks.missing(rows["user_id"]))]

    users, first = [pa.array([], pa.string())], 0
    watched = [pa.table({"row": pa.array([], pa.int64()), "genre": users[0], "count_all": pa.array([], pa.int64())})]
    reader = CheckedReader(files, "requests", ["user_id", "history.genres"], row_checks, limits=limits)
    for batch in reader.batches():
        lists, row_of_item = checks.items(batch.valid["history"], "genres")
        row = first + row_of_item[pc.list_parent_indices(lists).to_numpy()]
        items = pa.table({"row": row, "genre": pc.list_flatten(lists)}).filter(pc.field("genre").is_valid())
        # One thread: the groups come in the order of their first rows, and so do the genres.
        watched.append(items.group_by(["row", "genre"], use_threads=False).aggregate([([], "count_all")]))
        users.append(batch.valid["user_id"].combine_chunks())
        first += batch.valid.num_rows
    counts, encoded = pa.concat_tables(watched), pa.concat_arrays(users).dictionary_encode()
    genres = counts["genre"].unique()
    user, genre = encoded.indices.to_numpy()[counts["row"].to_numpy()], checks.codes(counts["genre"], genres)
    watched_ug = csr_array(
        (counts["count_all"].to_numpy().astype(np.float32), (user, genre)), (len(encoded.dictionary), len(genres))
    )
    watched_ug.sum_duplicates()
    total_u = np.maximum(watched_ug.sum(axis=1), 1)
    kept = np.flatnonzero(np.bincount(watched_ug.indices, minlength=len(genres)) >= min_users)
    share_ug = watched_ug[:, kept].toarray() / total_u[:, None].astype(np.float32)
    return UserGenres(encoded.dictionary, genres.take(pa.array(kept)).to_pylist(), share_ug)


def read_scored_run(
    parts: list[str], requests: list[str], catalog: Catalog, ranked: bool, min_users: int = 1,
    limits: RowLimits = DEFAULT_LIMITS,
) -> ScoredRun:  # fmt: skip
    """Reads the files of a run's predictions and requests; `kl_divergence_n` only if `ranked`.

    Raises:
        InputError: if a prediction's id is in no table, or if `ranked` and it has no candidates' probabilities.
    """
    user_genres = read_user_genres(requests, min_users, limits)
    columns = ["user_id", "title_id", "artwork_id", "rationale", *(["candidates"] if ranked else [])]
    mean_a = _mean_probabilities(parts, catalog) if ranked else np.zeros(0)
    codes, divergences, rationales = [np.zeros((3, 0), np.int64)], [np.zeros(0)], [pa.array([], pa.string())]
    for batch in CheckedReader(parts, "predictions", columns, limits=limits).valid_batches():
        codes.append(_codes(batch, parts, catalog, user_genres))
        divergences.append(_kl_divergence(batch, catalog, mean_a) if ranked else np.zeros(batch.num_rows))
        rationales += batch["rationale"].chunks
    code_n = np.concatenate(codes, axis=1)
    order = np.argsort(code_n[1], kind="stable")
    user_n, title_n, artwork_n = code_n[:, order]
    rationale_n = pa.chunked_array(rationales).take(order)
    return ScoredRun(user_genres, user_n, title_n, artwork_n, np.concatenate(divergences)[order], rationale_n)


def _codes(predictions: pa.Table, parts: list[str], catalog: Catalog, user_genres: UserGenres) -> IntArray:
    """Returns each prediction's user, title and artwork as indices: [3, n]."""
    known = {"user_id": user_genres.user_ids, "title_id": catalog.title_ids, "artwork_id": catalog.artwork_ids}
    code_n = np.stack([checks.codes(predictions[name], ids) for name, ids in known.items()]).astype(np.int64)
    if (code_n < 0).any():
        column, n = np.argwhere(code_n < 0)[0].tolist()
        where = f"{_source(predictions, parts, n)}, '{[*known][column]}'"
        raise InputError(f"{where} is not in the tables; give those of that run")
    return code_n


def _mean_probabilities(parts: list[str], catalog: Catalog) -> FloatArray:
    """Returns each artwork's mean probability over its title's users: [a]."""
    sum_a, count_a = np.zeros(len(catalog.artwork_ids)), np.zeros(len(catalog.artwork_ids))
    for batch in CheckedReader(parts, "predictions", ["candidates"]).valid_batches():
        empty = pc.fill_null(pc.list_value_length(batch["candidates"]), 0).to_numpy() == 0
        if empty.any():
            source = _source(batch, parts, int(np.argmax(empty)))
            raise InputError(f"{source} has no candidates' probabilities; score with --decoding rank")
        probability_c, artwork_c, _ = _probabilities(batch, catalog)
        np.add.at(sum_a, artwork_c[artwork_c >= 0], probability_c[artwork_c >= 0])
        np.add.at(count_a, artwork_c[artwork_c >= 0], 1)
    return sum_a / np.maximum(count_a, 1)


def _source(predictions: pa.Table, parts: list[str], n: int) -> str:
    return f"{parts[predictions['file'][n].as_py()]}: row {predictions['row'][n]} (from 0)"


def _probabilities(predictions: pa.Table, catalog: Catalog) -> tuple[FloatArray, IntArray, IntArray]:
    """Returns each candidate's probability, its artwork, and the row of its prediction: [c] each."""
    artwork_id, row_c = checks.items(predictions["candidates"], "artwork_id")
    probability, _ = checks.items(predictions["candidates"], "probability")
    return pc.fill_null(probability, 0.0).to_numpy(), checks.codes(artwork_id, catalog.artwork_ids), row_c


def _kl_divergence(predictions: pa.Table, catalog: Catalog, mean_a: FloatArray) -> FloatArray:
    """Returns the divergence of each prediction's probabilities from the means: [n]."""
    probability_c, artwork_c, row_c = _probabilities(predictions, catalog)
    counts = (artwork_c >= 0) & (probability_c > 0)
    nats_c = probability_c[counts] * np.log(probability_c[counts] / mean_a[artwork_c[counts]])
    return np.bincount(row_c[counts], nats_c, predictions.num_rows).astype(np.float64)
