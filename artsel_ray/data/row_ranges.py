"""Shards that are runs of rows of a table's files: planned, read, and written with their statistics."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from artsel_ray import schema, storage
from artsel_ray.data.catalog import with_source_rows
from artsel_ray.errors import InputError
from artsel_ray.runtime import shards as resume
from artsel_ray.score.stages import INVALID_ROWS


@dataclass(frozen=True)
class Shard:
    """A run of rows of one file."""

    file: int
    first_row: int
    rows: int


def plan_shards(files: list[str], name: str, most: int) -> list[Shard]:
    """Cuts files of a table into runs of at most `most` rows; it reads only the files' footers.

    Args:
        name: the table's name, as in `schema.TABLES`; also in the flag that gives `most`.

    Raises:
        InputError: if a file is no such table, there is no row, or `most` is not positive.
    """
    if most < 1:
        raise InputError(f"--shard-{name} {most} must be at least 1")
    with ThreadPoolExecutor(8) as pool:
        rows = list(pool.map(lambda file: _count_rows(file, name), files))
    shards = [
        Shard(file, first, min(most, count - first))
        for file, count in enumerate(rows)
        for first in range(0, count, most)
    ]
    if not shards:
        raise InputError(f"{files[0]} and all files beside it hold no {name.removesuffix('s')}")
    return shards


def _count_rows(file: str, name: str) -> int:
    parquet = storage.open_parquet(file)
    schema.conform(parquet.schema_arrow, name, file)
    return parquet.metadata.num_rows


def read_shard(files: list[str], name: str, shard: Shard) -> pa.Table:
    """Reads a shard's rows, with the columns `file` and `row` that say where they come from.

    Raises:
        InputError: if the file is broken or no such table.
    """
    uri = files[shard.file]
    parquet = storage.open_parquet(uri)
    ends = np.cumsum([parquet.metadata.row_group(group).num_rows for group in range(parquet.num_row_groups)])
    first, last = np.searchsorted(ends, [shard.first_row, shard.first_row + shard.rows - 1], side="right").tolist()
    present = [column for column in schema.TABLES[name].names if column in parquet.schema_arrow.names]
    try:
        table = parquet.read_row_groups(list(range(first, last + 1)), columns=present, use_threads=False)
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"cannot read {uri} as Parquet: {str(error).splitlines()[0]}") from None
    before = int(ends[first - 1]) if first else 0
    rows = schema.cast(table.slice(shard.first_row - before, shard.rows), name, uri)
    return with_source_rows(rows, shard.file, shard.first_row)


def write_shard(
    output: str, index: int, name: str, rows: pa.Table, invalid: pa.Table, statistics: dict[str, float]
) -> None:
    """Writes a shard's rejected rows, then its rows as the named table: their object says that the shard is done."""
    part = resume.part_name(index)
    refused = storage.join(output, INVALID_ROWS, part)
    if invalid.num_rows:
        storage.write_table(refused, invalid, "rejected")
    else:  # an earlier try may have rejected what is now mended
        storage.delete(refused)
    storage.write_table(storage.join(output, part), rows, name, resume.statistics_metadata(statistics))
