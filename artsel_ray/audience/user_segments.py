"""What a night's users watch, and in what some of a title's users differ from its others.

Suffixes: u users, g genres, a artworks, n predictions, c candidates of all predictions end to end.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from artsel_ray import storage
from artsel_ray.config import AssetKind
from artsel_ray.data import checks
from artsel_ray.data.catalog import Catalog
from artsel_ray.errors import InputError
from artsel_ray.runtime import run as runs

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
# Standard errors from which a difference counts: of dozens of genres some are two away by chance.
_MIN_STANDARD_ERRORS = 3.0
_MAX_GENRES = 3


@dataclass(frozen=True)
class UserGenres:
    """Users by the share of each genre in what they watched.

    Attributes:
        share_ug: rows sum to 1, or are 0 for users of whom no genre is known.
    """

    user_ids: pa.Array
    genres: list[str]
    share_ug: NDArray[np.float32]


@dataclass(frozen=True)
class ScoredRun:
    """A finished night's predictions, ordered by title.

    Attributes:
        user_n: place in the tastes' `user_ids`.
        title_n: place in the catalogue's `title_ids`.
        artwork_n: of the served artwork, in the catalogue's `artwork_ids`.
        known_n: how much the model knows of what this user would like beyond what all do, in nats: the
            Kullback-Leibler divergence of the candidates' probabilities from their mean over the title's users.
        reason_n: what the model wrote; nulls where it wrote none.
    """

    user_n: IntArray
    title_n: IntArray
    artwork_n: IntArray
    kl_divergence_n: FloatArray
    reason_n: pa.ChunkedArray

    def titles(self) -> Iterator[slice]:
        """Yields the places of each title's predictions."""
        bounds = np.flatnonzero(np.diff(self.title_n, prepend=-1, append=-1)).tolist()
        yield from (slice(first, last) for first, last in itertools.pairwise(bounds))


def asset_kind_of(predictions: str) -> AssetKind:
    """Returns what a night chose among.

    Raises:
        InputError: if these are no predictions of `jobs/score.py`.
    """
    prompt = storage.read_json(storage.join(predictions, runs.CONFIG))["run"].get("prompt")
    if prompt is None:
        raise InputError(f"{predictions} is no output of jobs/score.py")
    kind: AssetKind = prompt.get("asset_kind", "artwork")
    return kind


def read_user_genres(files: list[str]) -> UserGenres:
    """Reads the requests' histories; a user of several rows has them all counted.

    Raises:
        InputError: if a file is broken or is no table of requests.
    """
    users, counts = [], []
    genres: dict[str, int] = {}
    for file in files:
        for _, batch in storage.iter_batches(file, "requests", ["user_id", "history"]):
            counts.append(_count(batch["history"].combine_chunks(), genres))
            users.append(batch["user_id"].combine_chunks())
    whole = pa.concat_arrays(users) if users else pa.array([], pa.string())
    encoded = whole.dictionary_encode()
    share_ug = np.zeros((len(encoded.dictionary), len(genres)), np.float32)
    place = encoded.indices.to_numpy()
    first = 0
    for count in counts:
        np.add.at(share_ug[:, : count.shape[1]], place[first : first + len(count)], count)
        first += len(count)
    share_ug /= np.maximum(share_ug.sum(axis=1, keepdims=True), 1)
    return UserGenres(encoded.dictionary, list(genres), share_ug)


def _count(histories: pa.ListArray, genres: dict[str, int]) -> NDArray[np.float32]:
    """Counts each row's genres; new ones get the next place in `genres`."""
    items, row_of_item = pc.list_flatten(histories), pc.list_parent_indices(histories).to_numpy()
    lists = pc.struct_field(items, "genres")
    named = pc.list_flatten(lists)
    row = row_of_item[pc.list_parent_indices(lists).to_numpy()]
    encoded = named.dictionary_encode()
    known = np.array([genres.setdefault(name, len(genres)) for name in encoded.dictionary.to_pylist()], np.int64)
    counts = np.zeros((len(histories), len(genres)), np.float32)
    valid = encoded.is_valid().to_numpy(zero_copy_only=False)
    codes = pc.fill_null(encoded.indices, 0).to_numpy()
    np.add.at(counts, (row[valid], known[codes[valid]]), 1)
    return counts


def read_scored_run(parts: list[str], catalog: Catalog, user_genres: UserGenres, ranked: bool) -> ScoredRun:
    """Reads predictions.

    Args:
        parts: the files that the night's manifest lists.
        ranked: whether `kl_divergence_n` is wanted, which is 0 without.

    Raises:
        InputError: if a prediction is of a user, title or artwork that the tables do not have, or if it is `ranked`
            and has no candidates.
    """
    columns = ["user_id", "title_id", "artwork_id", "reason", *(["candidates"] if ranked else [])]
    mean_a = _means(parts, catalog) if ranked else np.zeros(0)
    codes, known, reasons = [], [], [pa.chunked_array([], pa.string())]
    for file in parts:
        for first_row, batch in storage.iter_batches(file, "predictions", columns):
            found = [
                checks.codes(batch["user_id"], user_genres.user_ids),
                checks.codes(batch["title_id"], catalog.title_ids),
                checks.codes(batch["artwork_id"], catalog.artwork_ids),
            ]
            for name, code in zip(columns, found, strict=False):
                if (code < 0).any():
                    row = first_row + int(np.argmax(code < 0))
                    raise InputError(
                        f"{file}: row {row} (from 0), '{name}' is not in the tables; give those of the night"
                    )
            codes.append(np.stack(found))
            known.append(_known(batch, catalog, mean_a) if ranked else np.zeros(batch.num_rows))
            reasons.append(batch["reason"])
    code_n = np.concatenate([np.zeros((3, 0), np.int64), *codes], axis=1)
    order = np.argsort(code_n[1], kind="stable")
    user_n, title_n, artwork_n = code_n[:, order]
    reason_n = pa.chunked_array([chunk for column in reasons for chunk in column.chunks], pa.string())
    return ScoredRun(user_n, title_n, artwork_n, np.concatenate([np.zeros(0), *known])[order], reason_n.take(order))


def _probabilities(predictions: pa.Table, catalog: Catalog) -> tuple[FloatArray, IntArray, IntArray]:
    """Returns each candidate's probability, its artwork and its prediction's row."""
    lists = predictions["candidates"].combine_chunks()
    artwork_id, probability = (pc.struct_field(pc.list_flatten(lists), name) for name in ("artwork_id", "probability"))
    artwork_c = checks.codes(pa.chunked_array([artwork_id]), catalog.artwork_ids)
    return pc.fill_null(probability, 0.0).to_numpy(), artwork_c, pc.list_parent_indices(lists).to_numpy()


def _means(parts: list[str], catalog: Catalog) -> FloatArray:
    """Returns each artwork's mean probability over its title's users."""
    sum_a, count_a = np.zeros(len(catalog.artwork_ids)), np.zeros(len(catalog.artwork_ids))
    for file in parts:
        for first_row, batch in storage.iter_batches(file, "predictions", ["candidates"]):
            if (pc.fill_null(pc.list_value_length(batch["candidates"]), 0).to_numpy() == 0).any():
                raise InputError(
                    f"{file}: from row {first_row} on there are predictions without candidates' probabilities; "
                    "score with --decoding rank"
                )
            probability_c, artwork_c, _ = _probabilities(batch, catalog)
            np.add.at(sum_a, artwork_c[artwork_c >= 0], probability_c[artwork_c >= 0])
            np.add.at(count_a, artwork_c[artwork_c >= 0], 1)
    return sum_a / np.maximum(count_a, 1)


def _known(predictions: pa.Table, catalog: Catalog, mean_a: FloatArray) -> FloatArray:
    """Returns the divergence of each row's probabilities from the means."""
    probability_c, artwork_c, row_c = _probabilities(predictions, catalog)
    some = (artwork_c >= 0) & (probability_c > 0)
    nats_c = probability_c[some] * np.log(probability_c[some] / mean_a[artwork_c[some]])
    return np.bincount(row_c[some], nats_c, predictions.num_rows).astype(np.float64)


def over_indexed_genres(
    share_ng: NDArray[np.float32], inside_n: NDArray[np.bool_], genres: list[str]
) -> list[dict[str, Any]]:
    """Returns the genres that some of a title's users watch more than its others do, the surest first.

    A genre counts if the difference of the two means is more than three of its standard errors (of two means of
    unequal variances: Welch, "The generalization of Student's problem", 1947).

    Returns:
        At most three of `{"genre", "inside", "outside", "low", "high"}`: mean shares, and the 95 % interval of their
        difference.
    """
    groups = [share_ng[inside_n].astype(np.float64), share_ng[~inside_n].astype(np.float64)]
    if min(map(len, groups)) < 2:
        return []
    (inside, outside), spreads = [g.mean(axis=0) for g in groups], [g.var(axis=0, ddof=1) / len(g) for g in groups]
    error = np.sqrt(np.maximum(spreads[0] + spreads[1], 1e-12))
    surest = np.argsort(-(inside - outside) / error)[:_MAX_GENRES]
    return [
        {
            "genre": genres[g],
            "inside": float(inside[g]),
            "outside": float(outside[g]),
            "low": float(inside[g] - outside[g] - 1.96 * error[g]),
            "high": float(inside[g] - outside[g] + 1.96 * error[g]),
        }
        for g in surest
        if inside[g] - outside[g] > _MIN_STANDARD_ERRORS * error[g]
    ]
