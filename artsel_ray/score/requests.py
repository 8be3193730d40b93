"""From requests by user to pairs by what begins their prompts: what is shared is then computed once.

Two passes over the requests. The first counts each title's pairs, and from the counts every title gets its
shard; a title with more pairs than a shard holds gets several, and its users are spread over them by a hash of
their id. Where prompts begin with the user, users are spread over the shards, and stay whole. The second writes
each slice of the requests as one work object, ordered by shard, out of which a shard reads its own rows. So
memory does not grow with the requests, and histories are stored once a pair, on disk. An earlier night's
predictions go the same way, so that a shard meets its own.
"""

import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from artsel_ray import storage
from artsel_ray.data import checks, shuffle
from artsel_ray.data.catalog import with_source_rows
from artsel_ray.schema import INVALID_ROWS, PREDICTIONS

# Pairs that one work object holds; with histories of 50 items about 100 MB in memory.
_SLICE_PAIRS = 32_768
_BATCH_ROWS = 8_192
_CLOCK_SKEW_SECONDS = 86_400


@dataclass(frozen=True)
class ShuffledRequests:
    """What became of one file of requests."""

    uris: list[str]
    """Of its work objects."""
    pairs: int
    rejected_rows: int
    rejected_pairs: int
    """That the rejected rows asked for, at least one a row."""


@dataclass(frozen=True)
class Assignment:
    """Which shard each title's pairs belong to."""

    shard_of: dict[str, tuple[int, int]]
    """For each title the first of its shards and how many it has: all of them, where users stay whole."""
    shards: int
    pairs: int


def count_titles(file: str) -> Counter[str]:
    """Returns how often each title is asked for in one file of requests."""
    counts: Counter[str] = Counter()
    for first_row, table in storage.iter_batches(file, "requests", ["title_ids"], broken_text=True):
        readable, _ = checks.split_readable(with_source_rows(table, 0, first_row), "requests", [file])
        for entry in pc.value_counts(pc.list_flatten(readable["title_ids"])).to_pylist():
            counts[entry["values"] or ""] += entry["counts"]
    return counts


def assign_titles(counts: Counter[str], shard_pairs: int, options: Mapping[str, float]) -> Assignment:
    """Packs whole titles, in the order of their ids, into shards of about the same work.

    Args:
        counts: pairs of each title.
        shard_pairs: most pairs in a shard.
        options: what a title's options cost once in a shard, in pairs; 0 for titles that are not there.
    """
    shard_of, shard, filled = {}, 0, 0
    for title_id, count in sorted(counts.items()):
        parts, work = math.ceil(count / shard_pairs), count + int(options.get(title_id, 0))
        if filled and (parts > 1 or filled + work > shard_pairs):
            shard, filled = shard + 1, 0
        shard_of[title_id] = (shard, parts)
        shard, filled = (shard + parts, 0) if parts > 1 else (shard, filled + work)
    return Assignment(shard_of, shard + bool(filled), sum(counts.values()))


def assign_users(counts: Counter[str], shard_pairs: int) -> Assignment:
    """Spreads whole users over shards of about `shard_pairs` pairs."""
    pairs = sum(counts.values())
    shards = math.ceil(pairs / shard_pairs)
    return Assignment(dict.fromkeys(counts, (0, shards)), shards, pairs)


def read_requests(files: list[str], index: int) -> Iterator[tuple[int, pa.Table, pa.Table, int]]:
    """Yields one file's batches in parts.

    Of each the number of its first row, the usable rows with the columns `file` and `row`, the rejected rows of the
    others, and the pairs that those ask for, at least one a row.
    """
    for first_row, table in storage.iter_batches(files[index], "requests", None, _BATCH_ROWS, broken_text=True):
        readable, unreadable = checks.split_readable(with_source_rows(table, index, first_row), "requests", files)
        good, bad = checks.split_valid(readable, "requests", files, _row_checks(readable))
        yield first_row, good, pa.concat_tables([unreadable, bad]), _wanted(table) - _wanted(good)


def shuffle_requests(files: list[str], index: int, assignment: Assignment, work: str, invalid: str) -> ShuffledRequests:
    """Writes one file's pairs as work objects and its unusable rows as one object of rejected rows.

    Args:
        files: all files of the requests.
        index: of the file to do.
        assignment: of all files' titles.
        work: folder of the work objects.
        rejected: folder of the rejected rows.
    """
    uris, moved, lost, bad = [], 0, 0, [INVALID_ROWS.empty_table()]
    for first_row, good, refused, unasked in read_requests(files, index):
        bad.append(refused)
        lost += unasked
        for number, part in enumerate(_slices(good)):
            pairs = _explode(part)
            uri = storage.join(work, f"requests-{index:05d}-{first_row:012d}-{number:04d}.arrow")
            shuffle.write_partitions(uri, pairs, _shards(pairs, assignment), assignment.shards)
            uris.append(uri)
            moved += pairs.num_rows
    refused_rows = pa.concat_tables(bad)
    if refused_rows.num_rows:
        storage.write_table(storage.join(invalid, f"requests-{index:05d}.parquet"), refused_rows, "rejected")
    return ShuffledRequests(uris, moved, refused_rows.num_rows, lost)


def shuffle_previous(parts: list[str], uri: str, assignment: Assignment, invalid: str) -> int:
    """Writes an earlier night's predictions as one work object, those of pairs that may be asked for again.

    Args:
        rejected: the object of the rows that cannot be taken over: their pairs are scored.

    Returns:
        The number of these rows.
    """
    tables, bad = [PREDICTIONS.empty_table()], [INVALID_ROWS.empty_table()]
    for number, part in enumerate(parts):
        for first_row, table in storage.iter_batches(part, "predictions", broken_text=True):
            readable, unreadable = checks.split_readable(
                with_source_rows(table, number, first_row), "predictions", parts
            )
            good, refused = checks.split_valid(readable, "predictions", parts, checks.prediction_checks(readable))
            tables.append(good.select(PREDICTIONS.names).cast(PREDICTIONS))
            bad += [unreadable, refused]
    rows, refused_rows = pa.concat_tables(tables), pa.concat_tables(bad)
    if refused_rows.num_rows:
        storage.write_table(invalid, refused_rows, "rejected")
    asked = rows.filter(pc.is_in(rows["title_id"], pa.array(list(assignment.shard_of), pa.string())))
    shuffle.write_partitions(uri, asked, _shards(asked, assignment), assignment.shards)
    return refused_rows.num_rows


def _wanted(table: pa.Table) -> int:
    """Returns how many pairs rows ask for, counting a row that asks for none as one."""
    return int(np.maximum(pc.fill_null(pc.list_value_length(table["title_ids"]), 0).to_numpy(), 1).sum())


def _row_checks(table: pa.Table) -> list[checks.RowCheck]:
    """Finds the rows that ask for nothing, or whose history cannot be true."""
    timestamps, rows = checks.items(table["history"], "timestamp")
    unordered, late = np.zeros(table.num_rows, dtype=bool), int((time.time() + _CLOCK_SKEW_SECONDS) * 1e6)
    # An unknown time is NaN here, and neither before nor after another. Microseconds are exact until the year 2255.
    backwards = np.diff(timestamps.cast(pa.int64()).cast(pa.float64(), safe=False).to_numpy()) < 0
    unordered[rows[1:][backwards & (rows[1:] == rows[:-1])]] = True
    wanted = pc.fill_null(pc.list_value_length(table["title_ids"]), 0).to_numpy()
    return [
        ("user_id", checks.MISSING, checks.missing(table["user_id"])),
        ("title_ids", "no title is asked for", wanted == 0),
        (
            "history",
            "an interaction later than now",
            checks.rows_with(checks.later_than(timestamps, late), rows, table.num_rows),
        ),
        ("history", "not in order of time, newest last", unordered),
        *checks.history_checks(table["history"]),
    ]


def _slices(table: pa.Table) -> Iterator[pa.Table]:
    """Yields runs of rows with at most `_SLICE_PAIRS` pairs, or one row with more."""
    ends = np.cumsum(pc.list_value_length(table["title_ids"]).to_numpy())
    start = 0
    while start < table.num_rows:
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + _SLICE_PAIRS, side="right")))
        yield table.slice(start, stop - start)
        start = stop


def _explode(table: pa.Table) -> pa.Table:
    """Returns one row per user and title: user_id, title_id, history, file, row."""
    title_ids = table["title_ids"].combine_chunks()
    parents = pc.list_parent_indices(title_ids)
    return pa.table(
        {
            "user_id": table["user_id"].take(parents),
            "title_id": pc.fill_null(title_ids.flatten(), ""),
            "history": table["history"].take(parents),
            "file": table["file"].take(parents),
            "row": table["row"].take(parents),
        }
    )


def _shards(pairs: pa.Table, assignment: Assignment) -> np.ndarray:
    """Returns each pair's shard; users of a title with several are spread by a stable hash."""
    titles = pc.dictionary_encode(pairs["title_id"]).combine_chunks()
    places = np.array([assignment.shard_of[title] for title in titles.dictionary.to_pylist()]).reshape(-1, 2)
    first, parts = places[titles.indices.to_numpy()].T
    spread = pd.util.hash_array(pairs["user_id"].to_numpy().astype(object), categorize=False) % parts.astype(np.uint64)
    return first + spread.astype(np.int64)
