"""From requests by user to pairs by shard, so that what prompts share is computed once.

Each slice of the requests is written as one spill file, ordered by shard, from which every shard reads its own rows. So
memory does not grow with the requests, and histories are stored once per pair, on disk.
"""

import dataclasses
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray

from artsel_ray import storage
from artsel_ray.config import DEFAULT_LIMITS, RowLimits
from artsel_ray.data import checks, shuffle
from artsel_ray.data.checked_reader import CheckedBatch, CheckedReader, group_files, join_batches
from artsel_ray.errors import InputError
from artsel_ray.prompts.histories import newest
from artsel_ray.runtime.shards import INVALID_FOLDER
from artsel_ray.runtime.task_result import map_tasks
from artsel_ray.schema import INVALID_ROWS, PREDICTIONS
from artsel_ray.score.assignment import Assignment

SPILL_FOLDER = "_work"
# Pairs in a spill file; with histories of 50 interactions about 100 MB in memory.
_SLICE_PAIRS = 32_768
# Their histories' bytes, and those of the pairs of one row.
_SLICE_BYTES, _ROW_BYTES, _ITEM_BYTES = 128 << 20, 256 << 20, 40
_BATCH_ROWS = 8_192
# Parts of an earlier run in one spill file.
_PREVIOUS_PARTS = 8
_CLOCK_SKEW_SECONDS = 86_400


@dataclass(frozen=True)
class ShuffledRequests:
    """What the shuffle of all requests wrote: the manifest of the spill folder."""

    uris: list[str]
    """Spill files of the requests."""
    pairs: int
    rejected_rows: int
    rejected_pairs: int
    """Pairs that these rows ask for, at least one per row."""
    previous: list[str]
    """Spill files of the earlier run's predictions."""
    rejected_previous_rows: int
    """Earlier predictions that cannot be used; their pairs are scored."""
    prior: list[str] = dataclasses.field(default_factory=list)
    """Spill files of the prior's predictions."""
    rows: int = 0
    """Rows of the requests; 0 where an earlier version has written the spill files."""


class PartitionResult(NamedTuple):
    """What the shuffle of a group of files wrote; see `ShuffledRequests`."""

    uris: list[str]
    pairs: int
    rejected_rows: int
    rejected_pairs: int
    rows: int


def shuffle_all(
    output: str, files: list[str], assignment: Assignment, previous: list[str], prior: list[str],
    limits: RowLimits = DEFAULT_LIMITS,
) -> ShuffledRequests:  # fmt: skip
    """Writes the spill files of a run on Ray, or returns those that an interrupted run has written.

    Args:
        previous: files of an earlier run's predictions.
        prior: files of the prior's predictions.

    Raises:
        InputError: if a prediction of the prior is invalid.
    """
    spill, invalid = storage.join(output, SPILL_FOLDER), storage.join(output, INVALID_FOLDER)
    known = storage.read_manifest(spill)
    if known is not None:
        return ShuffledRequests(**known)
    shared = ray.put(assignment)

    def move_predictions(name: str, parts: list[str]) -> tuple[list[str], int]:
        slices = [parts[start : start + _PREVIOUS_PARTS] for start in range(0, len(parts), _PREVIOUS_PARTS)]

        def move(index: int) -> tuple[str, int]:
            uri = storage.join(spill, f"{name}-{index:05d}.arrow")
            rejected = storage.join(invalid, f"{name}-{index:05d}.parquet")
            return uri, shuffle_previous(slices[index], uri, ray.get(shared), rejected, limits)

        moved = list(map_tasks(len(slices), move)) if slices else []
        return sorted(uri for uri, _ in moved), sum(rows for _, rows in moved)

    groups = group_files(files)
    moved = list(
        map_tasks(groups, lambda group: shuffle_requests(files, group, ray.get(shared), spill, invalid, limits))
    )
    earlier, rejected_earlier = move_predictions("previous", previous)
    of_prior, rejected_of_prior = move_predictions("prior", prior)
    if rejected_of_prior:
        raise InputError(f"--prior has {rejected_of_prior:,} invalid rows; see {invalid}/prior-*.parquet")
    shuffled = ShuffledRequests(
        uris=sorted(uri for part in moved for uri in part.uris),
        pairs=sum(part.pairs for part in moved),
        rejected_rows=sum(part.rejected_rows for part in moved),
        rejected_pairs=sum(part.rejected_pairs for part in moved),
        previous=earlier,
        prior=of_prior,
        rejected_previous_rows=rejected_earlier,
        rows=sum(part.rows for part in moved),
    )
    storage.write_manifest(spill, dataclasses.asdict(shuffled))
    return shuffled


def shuffle_requests(
    files: list[str], group: range, assignment: Assignment, spill: str, invalid: str,
    limits: RowLimits = DEFAULT_LIMITS,
) -> PartitionResult:  # fmt: skip
    """Writes the pairs of a group of files as spill files in a folder, its invalid rows as one object in another."""
    uris: list[str] = []
    moved, lost, asked, rejected = 0, 0, 0, [INVALID_ROWS.empty_table()]
    for batch in read_requests(files, group, limits):
        rejected.append(batch.invalid)
        asked += batch.read.num_rows
        valid, costly = _affordable(batch.valid, files, assignment.history_length)
        rejected.append(costly)
        for part in _slices(_asked(valid), valid):
            pairs = _explode(part, valid)
            uri = storage.join(spill, f"requests-{group.start:05d}-{len(uris):06d}.arrow")
            shuffle.write_partitions(uri, pairs, assignment.shards_of(pairs), assignment.shards)
            uris.append(uri)
            moved += pairs.num_rows
        lost += _requested(batch.read) - _requested(valid)
    rows = pa.concat_tables(rejected)
    if rows.num_rows:
        storage.write_table(storage.join(invalid, f"requests-{group.start:05d}.parquet"), rows, "invalid_rows")
    return PartitionResult(uris, moved, rows.num_rows, lost, asked)


def shuffle_previous(parts: list[str], uri: str, assignment: Assignment, invalid: str, limits: RowLimits) -> int:
    """Writes an earlier run's predictions of requested titles as one spill file; returns the number of invalid rows."""
    read = CheckedReader(parts, "predictions", row_checks=checks.prediction_checks, limits=limits).all()
    if read.invalid.num_rows:
        storage.write_table(invalid, read.invalid, "invalid_rows")
    rows = read.valid.select(PREDICTIONS.names).cast(PREDICTIONS)
    wanted = rows.filter(pc.is_in(rows["title_id"], pa.array(list(assignment.shard_of), pa.string())))
    shuffle.write_partitions(uri, wanted, assignment.shards_of(wanted), assignment.shards)
    return read.invalid.num_rows


def read_requests(files: list[str], group: range, limits: RowLimits = DEFAULT_LIMITS) -> Iterator[CheckedBatch]:
    """Yields the rows of one file in batches, or of several small ones at once."""
    reader = CheckedReader(files, "requests", row_checks=_row_checks, limits=limits)
    batches = (batch for index in group for batch in reader.file_batches(index, _BATCH_ROWS))
    if len(group) == 1:
        yield from batches
    elif found := list(batches):
        yield join_batches(found)


def _requested(table: pa.Table) -> int:
    return int(np.maximum(pc.fill_null(pc.list_value_length(table["title_ids"]), 0).to_numpy(), 1).sum())


def _row_checks(table: pa.Table) -> list[checks.RowCheck]:
    timestamps, rows = checks.items(table["history"], "timestamp")
    late = checks.later_than(timestamps, int((time.time() + _CLOCK_SKEW_SECONDS) * 1e6))
    # An unknown time is NaN here, neither before nor after another. Microseconds are exact until the year 2255.
    backwards = np.diff(timestamps.cast(pa.int64()).cast(pa.float64(), safe=False).to_numpy()) < 0
    unordered = checks.rows_with(backwards & (rows[1:] == rows[:-1]), rows[1:], table.num_rows)
    count = pc.fill_null(pc.list_value_length(table["title_ids"]), 0).to_numpy()
    return [
        ("user_id", checks.MISSING, checks.missing(table["user_id"])),
        ("title_ids", "no title is asked for", count == 0),
        ("history", "an interaction later than now", checks.rows_with(late, rows, table.num_rows)),
        ("history", "not in order of time, newest last", unordered),
        *checks.history_checks(table["history"]),
    ]


def _affordable(rows: pa.Table, files: list[str], history_length: int) -> tuple[pa.Table, pa.Table]:
    """Returns rows with the items that prompts show, and as invalid ones those whose pairs would take too much."""
    lists = newest(rows["history"].combine_chunks(), history_length)
    rows = rows.set_column(rows.column_names.index("history"), "history", lists)
    pairs_r = pc.fill_null(pc.list_value_length(rows["title_ids"]), 0).to_numpy()
    too_much = pairs_r * _history_bytes(rows["history"]) > _ROW_BYTES
    reason = f"its history, once for each title, takes more than {_ROW_BYTES >> 20} MiB"
    return checks.split_valid(rows, "requests", files, [("title_ids", reason, too_much)])


def _asked(rows: pa.Table) -> pa.Table:
    """Returns the distinct titles of each row: the row's index, the title, and the pair's share of the row."""
    titles = rows["title_ids"].combine_chunks()
    index = pc.list_parent_indices(titles)
    pairs = pa.table({"index": index, "title_id": pc.fill_null(titles.flatten(), "")})
    pairs = pairs.group_by(["index", "title_id"], use_threads=False).aggregate([])
    index_p = pairs["index"].to_numpy()
    return pairs.append_column("row_share", pa.array(1.0 / np.bincount(index_p, minlength=1)[index_p]))


def _slices(asked: pa.Table, rows: pa.Table) -> Iterator[pa.Table]:
    """Yields parts of pairs that are small in number and, with a copy of the history for each, in bytes."""
    history_r = _history_bytes(rows["history"])
    work = np.cumsum(np.maximum(1, history_r[asked["index"].to_numpy()] * (_SLICE_PAIRS / _SLICE_BYTES)))
    start = 0
    while start < asked.num_rows:
        before = work[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(work, before + _SLICE_PAIRS, side="right")))
        yield asked.slice(start, stop - start)
        start = stop


def _history_bytes(history: pa.ChunkedArray) -> np.ndarray:
    """Returns about how many bytes each row's history has, [R]."""
    names, row_i = checks.items(history, "title_name")
    genres, _ = checks.items(history, "genres")
    texts, item_g = checks.items(genres)
    genre_i = np.bincount(item_g, pc.fill_null(pc.binary_length(texts), 0).to_numpy() + 4, len(genres))
    item_i = pc.fill_null(pc.binary_length(names), 0).to_numpy() + genre_i + _ITEM_BYTES
    return np.bincount(row_i, item_i, len(history))


def _explode(asked: pa.Table, rows: pa.Table) -> pa.Table:
    """Returns the pairs of a part of `_asked`, given the valid rows."""
    pairs = rows.select(["user_id", "history", "file", "row"]).take(asked["index"].combine_chunks())
    return pairs.add_column(1, "title_id", asked["title_id"]).append_column("row_share", asked["row_share"])
