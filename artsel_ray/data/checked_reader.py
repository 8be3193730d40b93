"""The one reader of tables: files become typed batches of valid rows, and of invalid rows with what is wrong.

Types are cast, then text is checked (Parquet's readers do not check whether strings are UTF-8, and Arrow's functions,
Python and tokenizers stop at other bytes), then the caller's row checks run. Valid rows carry two more columns than
their table: `file`, an index into the files, and `row`, the row's number in that file.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from artsel_ray import storage
from artsel_ray.data import checks
from artsel_ray.data.casting import cast, conform, source_names
from artsel_ray.errors import InputError, first_line
from artsel_ray.schema import TABLES

RowChecks = Callable[[pa.Table], list[checks.RowCheck]]

_BATCH_ROWS = 65_536


class RowRange(NamedTuple):
    """Consecutive rows of one file."""

    file: int
    first_row: int
    rows: int


@dataclass(frozen=True)
class CheckedBatch:
    """Rows of one file, apart by whether they are valid."""

    read: pa.Table
    """All rows as they were read, in the table's types."""
    valid: pa.Table
    """With the columns `file` and `row`."""
    invalid: pa.Table
    """As the table `invalid_rows`."""


@dataclass(frozen=True)
class CheckedReader:
    """Reads files of one table."""

    files: list[str]
    table: str
    """The table's name, as in `schema.TABLES`."""
    columns: list[str] | None = None
    """Only these, if given. `candidates.artwork_id` is the column `candidates` with this field alone."""
    row_checks: RowChecks | None = None
    """Finds the rows that cannot be used; by default only text is checked."""

    def batches(self, batch_rows: int = _BATCH_ROWS) -> Iterator[CheckedBatch]:
        """Yields all files' rows.

        Raises:
            InputError: if a file is broken or is not such a table.
        """
        for index in range(len(self.files)):
            yield from self.file_batches(index, batch_rows)

    def file_batches(self, index: int, batch_rows: int = _BATCH_ROWS) -> Iterator[CheckedBatch]:
        """Yields the rows of one file; see `batches`."""
        uri, first_row = self.files[index], 0
        file = self._open(uri)
        try:
            for batch in file.iter_batches(batch_rows, columns=self._leaves(file), use_threads=True):
                yield self._checked(pa.Table.from_batches([batch]), index, first_row)
                first_row += batch.num_rows
        except (OSError, pa.ArrowInvalid) as error:
            raise InputError(f"cannot read {uri} as Parquet: {first_line(error)}") from None

    def rows(self, wanted: RowRange) -> CheckedBatch:
        """Returns a range of rows; see `batches`."""
        uri = self.files[wanted.file]
        file = self._open(uri)
        ends = np.cumsum(_group_rows(file))
        last_row = wanted.first_row + wanted.rows - 1
        first, last = np.searchsorted(ends, [wanted.first_row, last_row], side="right").tolist()
        try:
            groups = list(range(first, last + 1))
            table = file.read_row_groups(groups, columns=self._leaves(file), use_threads=False)
        except (OSError, pa.ArrowInvalid) as error:
            raise InputError(f"cannot read {uri} as Parquet: {first_line(error)}") from None
        before = int(ends[first - 1]) if first else 0
        return self._checked(table.slice(wanted.first_row - before, wanted.rows), wanted.file, wanted.first_row)

    def all(self) -> CheckedBatch:
        """Returns the rows of all files together; see `batches`."""
        empty = self._checked(TABLES[self.table].empty_table(), 0, 0)
        found = [empty, *self.batches()]
        return CheckedBatch(
            *(pa.concat_tables([getattr(batch, part) for batch in found]) for part in ("read", "valid", "invalid"))
        )

    def valid_batches(self, batch_rows: int = _BATCH_ROWS) -> Iterator[pa.Table]:
        """Yields all files' rows, for a caller that needs every row to be valid; see `batches`.

        Raises:
            InputError: also at the first invalid row, naming file, row and column.
        """
        for batch in self.batches(batch_rows):
            if batch.invalid.num_rows:
                row = batch.invalid.sort_by("row").slice(0, 1).to_pylist()[0]
                raise InputError(
                    f"{row['file']}: row {row['row']} (from 0), column '{row['column']}': {row['reason']}; fix the row "
                    "or leave it out"
                )
            yield batch.valid

    def _open(self, uri: str) -> pq.ParquetFile:
        file = storage.open_parquet(uri)
        conform(file.schema_arrow, self.table, uri, [field.name for field in self._fields()])
        return file

    def _fields(self) -> list[pa.Field]:
        """Returns the fields to read, those of `candidates.artwork_id` and the like narrowed to what is wanted."""
        schema = TABLES[self.table]
        fields = []
        for column in self.columns or schema.names:
            name, _, inner = column.partition(".")
            field = schema.field(name)
            fields.append(
                field.with_type(pa.list_(pa.struct([field.type.value_type.field(inner)]))) if inner else field
            )
        return fields

    def _leaves(self, file: pq.ParquetFile) -> list[str]:
        """Returns the Parquet leaf columns that hold the fields: what is not wanted is not even decoded."""
        columns = self.columns or TABLES[self.table].names
        names = source_names(file.schema_arrow, [column.partition(".")[0] for column in columns])
        wanted = {names[name]: inner for name, _, inner in (c.partition(".") for c in columns) if name in names}
        paths = (file.schema.column(index).path for index in range(len(file.schema)))
        return [
            path
            for path in paths
            if (top := path.split(".")[0]) in wanted and (not wanted[top] or f".{wanted[top]}." in f"{path}.")
        ]

    def _checked(self, table: pa.Table, file: int, first_row: int) -> CheckedBatch:
        source = self.files[file] if self.files else self.table
        read = cast(table, self.table, source, self._fields())
        valid, invalid = checks.split_readable(with_source_rows(read, file, first_row), self.table, self.files)
        if self.row_checks is not None:
            valid, more = checks.split_valid(valid, self.table, self.files, self.row_checks(valid))
            invalid = pa.concat_tables([invalid, more])
        return CheckedBatch(read, valid, invalid)


def read_table(uri: str, table: str, columns: list[str] | None = None) -> pa.Table:
    """Reads all files below a URI as one table, in the order of their names.

    Raises:
        InputError: if nothing is there, a file is broken or is not such a table, or a row's text is not UTF-8.
    """
    reader = CheckedReader(storage.list_files(uri), table, columns)
    rows = pa.concat_tables([reader.all().valid.slice(0, 0), *reader.valid_batches()])
    # By position: the table of invalid rows has columns `file` and `row` of its own.
    return rows.select(list(range(rows.num_columns - 2)))


def row_ranges(files: list[str], table: str, rows: int, whole_groups: bool = False) -> list[RowRange]:
    """Cuts files into ranges; reads only the files' footers.

    Args:
        rows: most rows in a range; with `whole_groups` the fewest, but for each file's last.
        whole_groups: cut only where a Parquet row group ends, so that no group is decoded twice.

    Raises:
        InputError: if a file is broken or is not such a table.
    """

    def of_file(index: int) -> list[RowRange]:
        file = storage.open_parquet(files[index])
        conform(file.schema_arrow, table, files[index])
        groups = _group_rows(file)
        ranges, first = [], 0
        for size in _joined(groups, rows) if whole_groups else _cut(sum(groups), rows):
            ranges.append(RowRange(index, first, size))
            first += size
        return ranges

    with ThreadPoolExecutor(8) as pool:
        return [found for ranges in pool.map(of_file, range(len(files))) for found in ranges]


def _group_rows(file: pq.ParquetFile) -> list[int]:
    return [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]


def _cut(total: int, rows: int) -> list[int]:
    return [min(rows, total - first) for first in range(0, total, rows)]


def _joined(groups: list[int], rows: int) -> list[int]:
    """Returns sums of consecutive groups, each of at least so many rows but the last."""
    sums, current = [], 0
    for number, size in enumerate(groups, start=1):
        current += size
        if current >= rows or number == len(groups):
            sums.append(current)
            current = 0
    return sums


def with_source_rows(table: pa.Table, file: int, first_row: int) -> pa.Table:
    """Appends the columns `file` and `row`, which say where a row comes from."""
    file_column = pa.array(np.full(table.num_rows, file, dtype=np.int32))
    rows = pa.array(np.arange(first_row, first_row + table.num_rows))
    return table.append_column("file", file_column).append_column("row", rows)
