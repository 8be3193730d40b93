"""A shard's object: its name, the statistics that it carries, and how it is written.

An object is written whole, so that to be there is to be done; a retry writes the same object again.
"""

import collections
import json
import re
from dataclasses import dataclass

import pyarrow as pa

from artsel_ray import storage

INVALID_FOLDER = storage.INVALID_FOLDER
MEMORY = "engine_memory_gib"
"""The statistic of which a run has the maximum over its shards, not the sum."""
RESTARTS = "engine_restarts"
"""The statistic of how often engines were started again since the shard before."""

REJECTED_ROWS = "rejected_rows"
"""The statistic of the rejected rows of the input, where a row becomes many units: each counts for its share of it."""

_PART = re.compile(r"part-(\d{6})\.parquet$")
_STATISTICS = "artsel_ray"

Statistics = dict[str, float]


@dataclass(frozen=True)
class Shard:
    """What became of one shard's work."""

    index: int
    rows: pa.Table
    invalid: pa.Table
    statistics: Statistics


def part_name(index: int) -> str:
    """Returns the name of a shard's object, in the output and in its folder of invalid rows."""
    return f"part-{index:06d}.parquet"


def done_shards(output: str) -> set[int]:
    """Returns the shards whose objects are there."""
    matches = (_PART.search(file.partition("?")[0]) for file in storage.find_files(output))
    return {int(match[1]) for match in matches if match}


def write_shard(output: str, table: str, shard: Shard) -> None:
    """Writes a shard's invalid rows, then its rows as the named table: their object says that the shard is done."""
    name = part_name(shard.index)
    invalid = storage.join(output, INVALID_FOLDER, name)
    if shard.invalid.num_rows:
        storage.write_table(invalid, shard.invalid, "invalid_rows")
    else:  # an earlier try may have rejected what has been fixed since
        storage.delete(invalid)
    metadata = {_STATISTICS: json.dumps(shard.statistics)}
    storage.write_table(storage.join(output, name), shard.rows, table, metadata)


def read_statistics(output: str, index: int) -> Statistics:
    """Reads a done shard's statistics from its object's footer."""
    metadata = storage.open_parquet(storage.join(output, part_name(index))).schema_arrow.metadata
    return json.loads(metadata[_STATISTICS.encode()])


def sum_statistics(output: str, shards: int) -> collections.Counter[str]:
    """Returns the statistics of all shards together: sums, and the maximum of the engines' memory.

    `REJECTED_ROWS` is among them only if all shards count it: those of earlier versions do not.
    """
    totals: collections.Counter[str] = collections.Counter()
    memory, counts_rows = 0.0, True
    for index in range(shards):
        statistics = read_statistics(output, index)
        memory = max(memory, statistics.pop(MEMORY, 0.0))
        counts_rows = counts_rows and REJECTED_ROWS in statistics
        totals.update(statistics)
    totals[MEMORY] = memory  # type: ignore[assignment]
    if not counts_rows:
        totals.pop(REJECTED_ROWS, None)
    return totals
