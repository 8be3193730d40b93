"""From requests by user to pairs by title: what a title's users share is then computed once.

Two passes over the requests. The first counts each title's pairs, and from the counts every title gets its
shard; a title with more pairs than a shard holds gets several, and its users are spread over them by a hash of
their id. The second writes each slice of the requests as one work object, ordered by shard, out of which a
shard reads its own rows. So memory does not grow with the requests, and histories are stored once a pair, on
disk.
"""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from artsel_ray import storage
from artsel_ray.data import shuffle
from artsel_ray.inference.catalogue import rejections

# Pairs that one work object holds; with histories of 50 items about 100 MB in memory.
_SLICE_PAIRS = 32_768
_BATCH_ROWS = 8_192


@dataclass(frozen=True)
class Assignment:
    """Which shard each title's pairs belong to."""

    shard_of: dict[str, tuple[int, int]]
    """For each title the first of its shards and how many it has."""
    shards: int
    pairs: int


def count_titles(file: str) -> Counter[str]:
    """Returns how often each title is asked for in one file of requests."""
    counts: Counter[str] = Counter()
    for _, table in storage.iter_batches(file, "requests", ["title_ids"]):
        for entry in pc.value_counts(pc.list_flatten(table["title_ids"])).to_pylist():
            if entry["values"]:
                counts[entry["values"]] += entry["counts"]
    return counts


def assign(counts: Counter[str], shard_pairs: int) -> Assignment:
    """Packs whole titles, in the order of their ids, into shards of about `shard_pairs` pairs."""
    shard_of, shard, filled = {}, 0, 0
    for title_id, count in sorted(counts.items()):
        parts = math.ceil(count / shard_pairs)
        if filled and (parts > 1 or filled + count > shard_pairs):
            shard, filled = shard + 1, 0
        shard_of[title_id] = (shard, parts)
        shard, filled = (shard + parts, 0) if parts > 1 else (shard, filled + count)
    return Assignment(shard_of, shard + bool(filled), sum(counts.values()))


def exchange_file(file: str, file_index: int, assignment: Assignment, work: str, rejected: str) -> list[str]:
    """Writes one file's pairs as work objects and its unusable rows as one object of rejected rows.

    Returns:
        The work objects' URIs.
    """
    uris, bad = [], []
    for first_row, table in storage.iter_batches(file, "requests", batch_rows=_BATCH_ROWS):
        rows = pa.array(np.arange(first_row, first_row + table.num_rows))
        table = table.append_column("row", rows)
        table, refused = _check_rows(table, file)
        bad.append(refused)
        for number, part in enumerate(_slices(table)):
            pairs = _explode(part, file)
            shard = _shards(pairs, assignment)
            uri = storage.join(work, f"requests-{file_index:05d}-{first_row:012d}-{number:04d}.arrow")
            shuffle.write_partitions(uri, pairs, shard, assignment.shards)
            uris.append(uri)
    refused = pa.concat_tables(bad) if bad else None
    if refused is not None and refused.num_rows:
        storage.write_table(storage.join(rejected, f"requests-{file_index:05d}.parquet"), refused, "rejected")
    return uris


def _check_rows(table: pa.Table, file: str) -> tuple[pa.Table, pa.Table]:
    """Parts the rows that ask for nothing, or whose history cannot be true, from the others."""
    now = pa.scalar(pd.Timestamp.now(tz="UTC") + pd.Timedelta(days=1), pa.timestamp("us", tz="UTC"))
    history = table["history"].combine_chunks()
    late = pc.fill_null(pc.greater(pc.struct_field(history.flatten(), "timestamp"), now), False)
    late_rows = np.unique(pc.list_parent_indices(history).filter(late).to_numpy())
    is_late = np.zeros(table.num_rows, dtype=bool)
    is_late[late_rows] = True
    wanted = pc.fill_null(pc.list_value_length(table["title_ids"]), 0)
    checks = [
        ("user_id", "missing", pc.fill_null(pc.equal(table["user_id"], ""), True)),
        ("title_ids", "no title is asked for", pc.equal(wanted, 0)),
        ("history", "an interaction later than now", pa.chunked_array([pa.array(is_late)])),
    ]
    bad = pa.chunked_array([pa.array(np.zeros(table.num_rows, dtype=bool))])
    refused = []
    for column, reason, mask in checks:
        rows = table.filter(pc.and_not(mask, bad))
        files = pa.repeat(file, rows.num_rows)
        refused.append(rejections("requests", files, rows["row"], column, reason, user_id=rows["user_id"]))
        bad = pc.or_(bad, mask)
    return table.filter(pc.invert(bad)), pa.concat_tables(refused)


def _slices(table: pa.Table) -> Iterator[pa.Table]:
    """Yields runs of rows with at most `_SLICE_PAIRS` pairs, or one row with more."""
    ends = np.cumsum(pc.list_value_length(table["title_ids"]).to_numpy())
    start = 0
    while start < table.num_rows:
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + _SLICE_PAIRS, side="right")))
        yield table.slice(start, stop - start)
        start = stop


def _explode(table: pa.Table, file: str) -> pa.Table:
    """Returns one row per user and title: user_id, title_id, history, file, row."""
    title_ids = table["title_ids"].combine_chunks()
    parents = pc.list_parent_indices(title_ids)
    return pa.table(
        {
            "user_id": table["user_id"].take(parents),
            "title_id": pc.fill_null(title_ids.flatten(), ""),
            "history": table["history"].take(parents),
            "file": pa.repeat(file, len(parents)),
            "row": table["row"].take(parents),
        }
    )


def _shards(pairs: pa.Table, assignment: Assignment) -> np.ndarray:
    """Returns each pair's shard; users of a title with several are spread by a stable hash."""
    titles = pc.dictionary_encode(pairs["title_id"]).combine_chunks()
    places = np.array([assignment.shard_of.get(title, (0, 1)) for title in titles.dictionary.to_pylist()])
    first, parts = places[titles.indices.to_numpy()].T
    spread = pd.util.hash_array(pairs["user_id"].to_numpy().astype(object), categorize=False) % parts.astype(np.uint64)
    return first + spread.astype(np.int64)
