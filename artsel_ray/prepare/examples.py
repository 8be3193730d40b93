"""From one group of users' events to pairs with their histories, and from these to rows of examples.

Pure functions of Arrow tables. Suffixes of arrays: _i interactions, _e impressions, _p pairs.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from artsel_ray import schema, storage
from artsel_ray.config import Assets
from artsel_ray.data import checks
from artsel_ray.data.catalog import Catalog

BATCH_ROWS = 2_048
BATCH_BYTES = 64 << 20


@dataclass(frozen=True)
class Pairs:
    """What one group of users comes to."""

    pairs: pa.Table
    """user_id, title, label, timestamp, propensity; start and end: the pair's history among `interactions`."""
    interactions: pa.Table
    """title, timestamp, watch_seconds, sorted by user and time; only those in a history."""
    invalid: pa.Table
    not_engaged: int
    repeated: int


def find_pairs(
    interactions: pa.Table,
    impressions: pa.Table,
    files: dict[str, list[str]],
    catalog: Catalog,
    history_length: int,
) -> Pairs:
    """Finds each user-title pair's earliest engagement and the history before it.

    Args:
        interactions: user_id, title, timestamp, watch_seconds, file, row.
        impressions: user_id, title, label, timestamp, engaged, propensity, file, row; all of the same users.
        files: of both tables, what `file` points into.
    """
    user_i, user_e = _user_codes(interactions["user_id"], impressions["user_id"])
    interactions, user_i, bad_interactions = _sorted_unique(interactions, user_i, files["interactions"], catalog)
    again = _frame(impressions, user_e, ["title", "label", "timestamp", "engaged", "propensity"]).duplicated()
    engaged = impressions["engaged"].to_numpy() & ~again.to_numpy()
    candidates = np.flatnonzero(engaged)
    time_e = _microseconds(impressions)
    title_e = impressions["title"].to_numpy()
    order = candidates[np.lexsort((time_e[candidates], title_e[candidates], user_e[candidates]))]
    new_pair = (np.diff(user_e[order], prepend=-1) != 0) | (np.diff(title_e[order], prepend=-1) != 0)
    first = order[new_pair]
    start, end = _before(user_i, _microseconds(interactions), user_e[first], time_e[first])
    start = np.maximum(start, end - history_length)
    empty = np.zeros(impressions.num_rows, dtype=bool)
    empty[first[start == end]] = True
    found: list[checks.RowCheck] = [
        ("row", "the same as an earlier row", again.to_numpy()),
        ("timestamp", "empty history: no interaction before the impression", empty),
    ]
    _, bad = checks.split_valid(_with_ids(impressions, catalog), "impressions", files["impressions"], found)
    kept = start < end
    interactions, start, end = _only_histories(interactions, start[kept], end[kept])
    pairs = impressions.take(first[kept]).select(["user_id", "title", "label", "timestamp", "propensity"])
    return Pairs(
        pairs.append_column("start", pa.array(start)).append_column("end", pa.array(end)),
        interactions.select(["title", "timestamp", "watch_seconds"]),
        pa.concat_tables([bad_interactions, bad]),
        not_engaged=int((~impressions["engaged"].to_numpy() & ~again.to_numpy()).sum()),
        repeated=len(order) - len(first),
    )


def _user_codes(users_i: pa.ChunkedArray, users_e: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    both = pa.concat_arrays([*users_i.chunks, *users_e.chunks, pa.array([], pa.string())])
    user = both.dictionary_encode().indices.to_numpy()
    return user[: len(users_i)], user[len(users_i) :]


def _microseconds(table: pa.Table) -> np.ndarray:
    return table["timestamp"].cast(pa.int64()).to_numpy()


def _frame(table: pa.Table, user: np.ndarray, columns: list[str]) -> pd.DataFrame:
    return pd.DataFrame({"user": user, **{column: table[column].to_numpy() for column in columns}})


def _sorted_unique(
    interactions: pa.Table, user_i: np.ndarray, files: list[str], catalog: Catalog
) -> tuple[pa.Table, np.ndarray, pa.Table]:
    """Sorts by user, time and then the order of rows, without rows that say what an earlier one said."""
    time_i = _microseconds(interactions)
    order = np.lexsort((time_i, user_i))
    same = np.zeros(len(order) + 1, dtype=bool)
    same[1:-1] = (np.diff(user_i[order]) == 0) & (np.diff(time_i[order]) == 0)
    # Only rows of the same user and time can be equal; there are few, and hashing all of them costs a second sort.
    suspects = np.sort(order[same[1:] | same[:-1]])
    rows = interactions.take(suspects)
    again = _frame(rows, user_i[suspects], ["title", "timestamp", "watch_seconds"]).duplicated().to_numpy()
    invalid = checks.invalid_rows(
        _with_ids(rows.filter(again), catalog), "interactions", files, "row", "the same as an earlier row"
    )
    drop = np.zeros(len(order), dtype=bool)
    drop[suspects[again]] = True
    order = order[~drop[order]]
    return interactions.select(["title", "timestamp", "watch_seconds"]).take(order), user_i[order], invalid


def _with_ids(table: pa.Table, catalog: Catalog) -> pa.Table:
    """Appends title_id, and artwork_id where there is a label, for the rejected rows."""
    title = table["title"].to_numpy()
    table = table.append_column("title_id", catalog.title_ids.take(pa.array(title)))
    if "label" not in table.column_names:
        return table
    artwork = catalog.offsets[title] + table["label"].to_numpy()
    return table.append_column("artwork_id", catalog.artwork_ids.take(pa.array(artwork)))


def _before(
    user_i: np.ndarray, time_i: np.ndarray, user_p: np.ndarray, time_p: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns each pair's first interaction and one past its last that is strictly earlier.

    A binary search in each user's run of interactions, all pairs at once; a single search for user and time
    together would need both in one 64-bit key, which times of any range do not leave room for.
    """
    start = np.searchsorted(user_i, user_p, side="left")
    low, high = start.copy(), np.searchsorted(user_i, user_p, side="right")
    while (open_ := low < high).any():
        middle = (low + high) // 2
        earlier = open_ & (time_i[np.minimum(middle, len(time_i) - 1)] < time_p)
        low = np.where(earlier, middle + 1, low)
        high = np.where(open_ & ~earlier, middle, high)
    return start, low


def _only_histories(
    interactions: pa.Table, start_p: np.ndarray, end_p: np.ndarray
) -> tuple[pa.Table, np.ndarray, np.ndarray]:
    """Drops interactions in no pair's history, and moves the pairs' ranges accordingly."""
    count = interactions.num_rows + 1
    covered = np.cumsum(np.bincount(start_p, minlength=count) - np.bincount(end_p, minlength=count))[:-1] > 0
    place = np.concatenate([[0], np.cumsum(covered)])
    return interactions.filter(covered), place[start_p], place[end_p]


def example_ids(pairs: pa.Table, catalog: Catalog) -> list[str]:
    """Returns stable hashes of user, title and time."""
    titles = catalog.title_ids.take(pairs["title"].combine_chunks()).to_pylist()
    users = pairs["user_id"].to_pylist()
    times = _microseconds(pairs).tolist()
    return [storage.fingerprint(*key) for key in zip(users, titles, times, strict=True)]


def example_batches(
    pairs: pa.Table, interactions: pa.Table, catalog: Catalog, contents: pa.Array, assets: Assets = "caption"
) -> Iterator[pa.Table]:
    """Yields rows of examples, ordered by example_id, in batches that are small enough whatever the captions.

    Candidates come as dictionary arrays: a batch holds each caption once, not once for every example.

    Args:
        contents: of the catalogue's artworks, of the kind that `assets` says.
    """
    pairs = pairs.append_column("example_id", pa.array(example_ids(pairs, catalog), pa.string()))
    pairs = pairs.sort_by("example_id")
    ends = np.concatenate([[0], np.cumsum(pc.binary_length(contents).to_numpy())])[catalog.offsets]
    filled = np.cumsum(np.diff(ends)[pairs["title"].to_numpy()])
    start = 0
    while start < pairs.num_rows:
        limit = BATCH_BYTES + (filled[start - 1] if start else 0)
        stop = min(max(start + 1, int(np.searchsorted(filled, limit, side="right"))), start + BATCH_ROWS)
        yield _examples(pairs.slice(start, stop - start), interactions, catalog, contents, assets)
        start = stop


def _examples(
    pairs: pa.Table, interactions: pa.Table, catalog: Catalog, contents: pa.Array, assets: Assets
) -> pa.Table:
    titles = pairs["title"].combine_chunks()
    candidates, image_uris = _candidates(titles.to_numpy(), catalog, contents, assets)
    columns = {
        "example_id": pairs["example_id"],
        "user_id": pairs["user_id"],
        "title_id": catalog.title_ids.take(titles),
        "title_name": catalog.names.take(titles),
        "title_genres": catalog.genres.take(titles),
        "history": histories(pairs, interactions, catalog),
        "candidates": candidates,
        "label": pairs["label"],
        "propensity": pairs["propensity"],
        "timestamp": pairs["timestamp"],
        "reason": pa.nulls(pairs.num_rows, pa.string()),
        "image_uris": image_uris,
    }
    fields = [field.with_type(columns[field.name].type) for field in schema.EXAMPLES]
    return pa.table(columns, schema=pa.schema(fields))


def _ranges(starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, pa.Array]:
    """Returns the numbers of all ranges one after another, and the offsets of the ranges among them."""
    lengths = ends - starts
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths), pa.array(offsets.astype(np.int32))


def histories(pairs: pa.Table, interactions: pa.Table, catalog: Catalog) -> pa.Array:
    """Returns each pair's history as the schema's list, newest last."""
    places, offsets = _ranges(pairs["start"].to_numpy(), pairs["end"].to_numpy())
    items = interactions.take(places).combine_chunks()
    titles = items["title"].combine_chunks()
    fields = [
        items["timestamp"].combine_chunks(),
        catalog.names.take(titles),
        catalog.genres.take(titles),
        items["watch_seconds"].combine_chunks(),
    ]
    return pa.ListArray.from_arrays(offsets, pa.StructArray.from_arrays(fields, fields=list(schema.HISTORY.value_type)))


def _candidates(title_p: np.ndarray, catalog: Catalog, contents: pa.Array, assets: Assets) -> tuple[pa.Array, pa.Array]:
    """Returns the columns `candidates` and `image_uris`, of which one has the contents and the other nulls."""
    titles, local = np.unique(title_p, return_inverse=True)
    places, offsets = _ranges(catalog.offsets[titles], catalog.offsets[titles + 1])
    bounds = offsets.to_numpy()
    indices, lists = _ranges(bounds[local], bounds[local + 1])
    artwork_ids, filled = (
        pa.DictionaryArray.from_arrays(pa.array(indices.astype(np.int32)), values.take(pa.array(places)).cast("string"))
        for values in (catalog.artwork_ids, contents)
    )
    captions, image_uris = filled, pa.nulls(len(title_p), schema.EXAMPLES.field("image_uris").type)
    if assets == "image":
        captions, image_uris = pa.nulls(len(filled), pa.string()), pa.ListArray.from_arrays(lists, filled)
    candidates = pa.StructArray.from_arrays([artwork_ids, captions], names=["artwork_id", "caption"])
    return pa.ListArray.from_arrays(lists, candidates), image_uris


def requests(pairs: pa.Table, interactions: pa.Table, catalog: Catalog) -> pa.Table:
    """Returns one request for each user and time of the pairs: the titles shown then, and the history."""
    title_ids = catalog.title_ids.take(pairs["title"].combine_chunks())
    ranges = pairs.select(["user_id", "timestamp", "start", "end"]).append_column("title_id", title_ids)
    grouped = ranges.group_by(["user_id", "timestamp", "start", "end"], use_threads=False)
    asked = grouped.aggregate([("title_id", "list")])
    history = histories(asked, interactions, catalog)
    return pa.table({"user_id": asked["user_id"], "history": history, "title_ids": asked["title_id_list"]})
