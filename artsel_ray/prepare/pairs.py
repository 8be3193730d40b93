"""Stages 1 and 2: a slice of a log becomes valid rows by bucket of users, and a bucket's rows become pairs of user and
title, each with the range of its history.

Suffixes of arrays: _i interactions, _e impressions, _p pairs.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from artsel_ray.data import checks, shuffle
from artsel_ray.data.catalog import Catalog
from artsel_ray.data.checked_reader import CheckedReader
from artsel_ray.prepare import splits
from artsel_ray.prepare.plan import Counts, Plan, write_invalid

_HISTORY_COLUMNS = ["title", "timestamp", "watch_seconds"]
_DUPLICATE = "the same as an earlier row"


def partition_slice(plan: Plan, catalog: Catalog, number: int) -> tuple[Counts, np.ndarray | None]:
    """Writes a slice's valid rows by bucket, and its invalid rows.

    For a split by title, also returns the time of each title's first impression in the slice; see `splits.NEVER`.

    Valid rows have the column `title`, an index into the catalog, instead of `title_id`; impressions have `label`, the
    position of the artwork among the title's candidates, instead of `artwork_id`.
    """
    table, ranges = plan.slices[number]
    files = plan.files[table]
    reader = CheckedReader(files, table, timezone=plan.timezone, limits=plan.limits)
    batches = [reader.rows(each) for each in ranges]
    readable, other_kind = pa.concat_tables([batch.valid for batch in batches]), 0
    if table == "impressions":
        is_other = checks.mask(pc.is_in(readable["artwork_id"], catalog.other_ids))
        readable, other_kind = readable.filter(~is_other), int(is_other.sum())
    title = checks.codes(readable["title_id"], catalog.title_ids)
    found: list[checks.RowCheck] = [
        *checks.missing_checks(readable, ["user_id", "title_id", "timestamp"]),
        ("title_id", checks.UNKNOWN_TITLE, title < 0),
        ("timestamp", "later than now", checks.later_than(readable["timestamp"], plan.now_us)),
    ]
    coded = readable.append_column("title", pa.array(title))
    if table == "interactions":
        found.append(("watch_seconds", checks.WRONG_WATCH, checks.watch_is_wrong(coded["watch_seconds"])))
    else:
        label, more = _find_labels(coded, title, catalog)
        coded, found = coded.append_column("label", pa.array(label)), found + more
    valid, invalid = checks.split_valid(coded, table, files, found)
    valid = valid.drop_columns([name for name in ("title_id", "artwork_id") if name in valid.column_names])
    bucket = bucket_of(valid["user_id"], plan.buckets)
    shuffle.write_partitions(plan.spill_file("slice", number), valid, bucket, plan.buckets)
    counts = write_invalid(
        plan, f"slice-{number:06d}", pa.concat_tables([*(batch.invalid for batch in batches), invalid])
    )
    counts.update(other_kind=other_kind)
    if plan.split != "title" or table != "impressions":
        return counts, None
    first_x = np.full(len(catalog.title_ids), splits.NEVER)
    np.minimum.at(first_x, valid["title"].to_numpy(), microseconds(valid))
    return counts, first_x


def _find_labels(table: pa.Table, title: np.ndarray, catalog: Catalog) -> tuple[np.ndarray, list[checks.RowCheck]]:
    """Returns the position of each shown artwork among its title's candidates, int32, and the checks of impressions."""
    label = checks.codes(table["artwork_id"], catalog.artwork_ids) - catalog.offsets[title]
    candidates = np.diff(catalog.offsets, append=catalog.offsets[-1])[title]
    found: list[checks.RowCheck] = [
        *checks.missing_checks(table, ["artwork_id", "engaged"]),
        ("title_id", "the title has no candidates", candidates == 0),
        ("artwork_id", "not among the title's candidates", (label < 0) | (label >= candidates)),
        ("propensity", checks.WRONG_PROPENSITY, checks.propensity_is_wrong(table["propensity"])),
    ]
    return label.astype(np.int32), found


def bucket_of(user_ids: pa.ChunkedArray, buckets: int) -> np.ndarray:
    """Returns each user's bucket, int64; it depends on the id only."""
    encoded = user_ids.combine_chunks().dictionary_encode()
    bucket = splits.hash_texts(encoded.dictionary) % np.uint64(buckets)
    return bucket.astype(np.int64)[encoded.indices.to_numpy()]


@dataclass(frozen=True)
class Pairs:
    """The pairs of one bucket's users."""

    pairs: pa.Table
    """user_id, title, label, timestamp, propensity; start and end: the pair's history in `interactions`."""
    interactions: pa.Table
    """title, timestamp, watch_seconds, by user and time; only those in a history."""
    invalid: pa.Table
    not_engaged: int
    repeated: int
    """Engaged impressions after the first one of their pair."""


def bucket_pairs(plan: Plan, catalog: Catalog, bucket: int) -> tuple[Counts, list[splits.Keys]]:
    """Writes a bucket's pairs and histories as spill files, and its invalid rows.

    Returns the pairs' keys for each group of titles.
    """
    interactions = shuffle.read_partition(plan.spill_files("interactions"), bucket)
    impressions = shuffle.read_partition(plan.spill_files("impressions"), bucket)
    found = find_pairs(interactions, impressions, plan.files, catalog, plan.history_length)
    counts = write_invalid(plan, f"bucket-{bucket:06d}", found.invalid)
    counts.update(not_engaged=found.not_engaged, repeated=found.repeated, pairs=found.pairs.num_rows)
    for kind, table in (("pairs", found.pairs), ("histories", found.interactions)):
        shuffle.write_partitions(plan.spill_file(kind, bucket), table, np.zeros(table.num_rows, np.int64), 1)
    keys, group_n = keys_of(plan, found.pairs, catalog), groups_of(plan, found.pairs)
    return counts, [keys.where(group_n == group) for group in splits.GROUPS]


def keys_of(plan: Plan, pairs: pa.Table, catalog: Catalog) -> splits.Keys:
    """Returns the keys that decide the pairs' splits."""
    title_ids = catalog.title_ids.take(pairs["title"].combine_chunks())
    return splits.pair_keys(pairs["user_id"].combine_chunks(), title_ids, microseconds(pairs), plan.split, plan.seed)


def groups_of(plan: Plan, pairs: pa.Table) -> np.ndarray:
    """Returns the groups of the pairs' titles."""
    titles = pairs["title"].to_numpy()
    return np.full(len(titles), splits.KNOWN) if plan.group_x is None else plan.group_x[titles]


def microseconds(table: pa.Table) -> np.ndarray:
    """Returns the column `timestamp` in microseconds since 1970, int64."""
    return table["timestamp"].cast(pa.int64()).to_numpy()


def find_pairs(
    interactions: pa.Table, impressions: pa.Table, files: dict[str, list[str]], catalog: Catalog, history_length: int
) -> Pairs:
    """Finds each pair's earliest engagement and the history before it in rows of `partition_slice`, from `files`."""
    ids = pa.concat_arrays([*interactions["user_id"].chunks, *impressions["user_id"].chunks, pa.array([], pa.string())])
    user_i, user_e = np.split(ids.dictionary_encode().indices.to_numpy(), [interactions.num_rows])
    interactions, user_i, invalid_interactions = _sorted_unique(interactions, user_i, files["interactions"], catalog)
    duplicate = _duplicated(impressions, user_e, ["title", "label", "timestamp", "engaged", "propensity"])
    engaged = impressions["engaged"].to_numpy()
    # Engaged impressions by user, title and time; the first of each user and title is the pair's.
    candidates = np.flatnonzero(engaged & ~duplicate)
    time_e, title_e = microseconds(impressions), impressions["title"].to_numpy()
    order = candidates[np.lexsort((time_e[candidates], title_e[candidates], user_e[candidates]))]
    is_first = (np.diff(user_e[order], prepend=-1) != 0) | (np.diff(title_e[order], prepend=-1) != 0)
    first = order[is_first]
    start, end = _before(user_i, microseconds(interactions), user_e[first], time_e[first])
    start = np.maximum(start, end - history_length)
    empty = np.isin(np.arange(impressions.num_rows), first[start == end])
    found: list[checks.RowCheck] = [
        ("row", _DUPLICATE, duplicate),
        ("timestamp", "empty history: no interaction before the impression", empty),
    ]
    _, invalid = checks.split_valid(_with_ids(impressions, catalog), "impressions", files["impressions"], found)
    kept = start < end
    interactions, start, end = _only_histories(interactions, start[kept], end[kept])
    pairs = impressions.take(first[kept]).select(["user_id", "title", "label", "timestamp", "propensity"])
    return Pairs(
        pairs.append_column("start", pa.array(start)).append_column("end", pa.array(end)),
        interactions.select(_HISTORY_COLUMNS),
        pa.concat_tables([invalid_interactions, invalid]),
        not_engaged=int((~engaged & ~duplicate).sum()),
        repeated=len(order) - len(first),
    )


def _duplicated(table: pa.Table, user: np.ndarray, columns: list[str]) -> np.ndarray:
    values = {"user": user, **{column: table[column].to_numpy() for column in columns}}
    return pd.DataFrame(values).duplicated().to_numpy()


def _sorted_unique(
    interactions: pa.Table, user_i: np.ndarray, files: list[str], catalog: Catalog
) -> tuple[pa.Table, np.ndarray, pa.Table]:
    time_i = microseconds(interactions)
    order = np.lexsort((time_i, user_i))
    # Only rows of the same user and time can be equal. There are few, and hashing all would cost as much as the sort.
    same = np.zeros(len(order) + 1, dtype=bool)
    same[1:-1] = (np.diff(user_i[order]) == 0) & (np.diff(time_i[order]) == 0)
    suspects = np.sort(order[same[1:] | same[:-1]])
    rows = interactions.take(suspects)
    duplicate = _duplicated(rows, user_i[suspects], _HISTORY_COLUMNS)
    repeated = _with_ids(rows.filter(duplicate), catalog)
    invalid = checks.invalid_rows(repeated, "interactions", files, "row", _DUPLICATE)
    order = order[~np.isin(order, suspects[duplicate])]
    return interactions.select(_HISTORY_COLUMNS).take(order), user_i[order], invalid


def _with_ids(table: pa.Table, catalog: Catalog) -> pa.Table:
    title = table["title"].to_numpy()
    table = table.append_column("title_id", catalog.title_ids.take(pa.array(title)))
    if "label" not in table.column_names:
        return table
    artwork = catalog.offsets[title] + table["label"].to_numpy()
    return table.append_column("artwork_id", catalog.artwork_ids.take(pa.array(artwork)))


def _before(
    user_i: np.ndarray, time_i: np.ndarray, user_p: np.ndarray, time_p: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the range of each pair's interactions that are strictly earlier: the first, and one past the last.

    Searches all pairs at once, each in its user's interactions. A single search for user and time would need both in
    one 64-bit key, which has no space for times of any range.
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
    count = interactions.num_rows + 1
    covered = np.cumsum(np.bincount(start_p, minlength=count) - np.bincount(end_p, minlength=count))[:-1] > 0
    moved_to = np.concatenate([[0], np.cumsum(covered)])
    return interactions.filter(covered), moved_to[start_p], moved_to[end_p]
