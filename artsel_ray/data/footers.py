"""What a Parquet file says of itself, and a table's columns out of it: from the file, or from its folders' names."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from artsel_ray import storage
from artsel_ray.data.casting import cast_array
from artsel_ray.data.hive import folder_array, folder_values
from artsel_ray.errors import InputError, first_line

_RENAMED = {"rationale": "reason"}  # columns and their names in an earlier version, whose outputs still load
_THREADS = 8


@dataclass(frozen=True)
class Footer:
    """A file's columns and size."""

    uri: str
    schema: pa.Schema
    int96: frozenset[str]
    """Columns with INT96 timestamps: instants in UTC, which Arrow reads as timestamps without a zone."""
    folders: dict[str, str | None]
    """Columns in the names of its folders."""
    group_rows: list[int]
    """Rows of each row group."""

    def zone(self, column: str, timezone: str | None) -> str | None:
        """Returns the zone of a column's timestamps without one, given the user's for all files."""
        return "UTC" if column in self.int96 else timezone


def footer_of(uri: str, file: pq.ParquetFile) -> Footer:
    """Returns the footer of an open file."""
    leaves = (file.schema.column(index) for index in range(len(file.schema)))
    int96 = frozenset(leaf.path.split(".")[0] for leaf in leaves if leaf.physical_type == "INT96")
    rows = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    return Footer(uri, file.schema_arrow, int96, folder_values(storage.filesystem(uri)[1]), rows)


def read_footers(files: list[str]) -> list[Footer]:
    """Returns the footers of files, in their order.

    Raises:
        InputError: if a file is absent, or is not a complete Parquet file.
    """
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(lambda uri: footer_of(uri, storage.open_parquet(uri)), files))


def source_names(schema: pa.Schema, columns: list[str]) -> dict[str, str]:
    """Returns the columns that a file has, each with its name there, which may be an earlier version's."""
    found = {column: column if column in schema.names else _RENAMED.get(column, column) for column in columns}
    return {column: name for column, name in found.items() if name in schema.names}


def cast_table(
    table: pa.Table, footer: Footer, fields: list[pa.Field], timezone: str | None = None, first_row: int = 0
) -> pa.Table:
    """Returns a file's rows with these columns, in their order and types; absent columns are null.

    Nulls in required columns stay null: those rows are invalid, and checked later.

    Args:
        timezone: the time zone of timestamps without one.
        first_row: the rows' place in the file, for messages.

    Raises:
        InputError: for a value that does not fit, with its row.
    """
    fields = [field.with_nullable(True) for field in fields]
    present = source_names(table.schema, [field.name for field in fields])
    arrays: list[pa.Array | pa.ChunkedArray] = []
    for field in fields:
        zone = footer.zone(present.get(field.name, ""), timezone)
        if field.name in present:
            arrays.append(_cast_column(table[present[field.name]], field, zone, footer.uri, first_row))
        else:
            arrays.append(folder_array(footer.folders.get(field.name), field.type, table.num_rows, zone))
    return pa.table(arrays, schema=pa.schema(fields))


def _cast_column(
    values: pa.ChunkedArray, field: pa.Field, zone: str | None, uri: str, first_row: int
) -> pa.ChunkedArray:
    try:
        return pa.chunked_array([cast_array(chunk, field, zone) for chunk in values.chunks], field.type)
    except pa.ArrowException as error:
        row = first_row + _first_wrong(values, field, zone)
        localize = f'in pandas: df["{field.name}"].dt.tz_localize("{zone}", ambiguous="NaT", nonexistent="NaT")'
        raise InputError(
            f"{uri}: column '{field.name}' does not fit {field.type} in row {row} (from 0): {first_line(error)}; "
            + (localize if "in timezone" in str(error) else "fix the row or leave it out")
        ) from None


def _first_wrong(values: pa.ChunkedArray, field: pa.Field, zone: str | None) -> int:
    """Returns the row of the first value that cannot be cast: in the first half of the rows, or in the second."""
    start, end = 0, len(values)
    while end - start > 1:
        middle = (start + end) // 2
        try:
            for chunk in values.slice(start, middle - start).chunks:
                cast_array(chunk, field, zone)
            start = middle
        except pa.ArrowException:
            end = middle
    return start
