"""The one reader of tables: from files to typed batches of valid rows, and of invalid rows with their reasons.

Types are cast, then text is checked (Parquet readers do not check that strings are UTF-8, and Arrow's functions, Python
and tokenizers fail on other bytes), then the caller's row checks run. Valid rows have two more columns than their
table: `file`, an index into the files, and `row`, the row's number in that file. A file that is broken or is not such
a table is an `InputError`.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from artsel_ray import storage
from artsel_ray.config import DEFAULT_LIMITS, RowLimits
from artsel_ray.data import checks, limits
from artsel_ray.data.conformity import check_footers
from artsel_ray.data.footers import Footer, cast_table, footer_of, read_footers, source_names
from artsel_ray.errors import InputError, first_line
from artsel_ray.schema import TABLES

RowChecks = Callable[[pa.Table], list[checks.RowCheck]]

_BATCH_ROWS = 65_536
# Files of one task, and their bytes if they are several.
GROUP_FILES, _GROUP_BYTES = 64, 4 << 20


class RowRange(NamedTuple):
    """Consecutive rows of one file."""

    file: int
    first_row: int
    rows: int


@dataclass(frozen=True)
class CheckedBatch:
    """Rows of one file, split into valid and invalid ones."""

    read: pa.Table
    """All rows, cast to the table's types."""
    valid: pa.Table
    invalid: pa.Table
    """As the table `invalid_rows`."""


def join_batches(batches: list[CheckedBatch]) -> CheckedBatch:
    """Returns the rows of one or more batches of one reader together."""
    parts = ([batch.read, batch.valid, batch.invalid] for batch in batches)
    return CheckedBatch(*map(pa.concat_tables, zip(*parts, strict=True)))


@dataclass(frozen=True)
class CheckedReader:
    """Reads the files of one table."""

    files: list[str]
    table: str
    columns: list[str] | None = None
    """Only these columns, if given. `candidates.artwork_id` reads the column `candidates` with this field only."""
    row_checks: RowChecks | None = None
    """Returns the checks of a batch, whose text is valid; by default only text is checked."""
    timezone: str | None = None
    """Time zone of timestamps without one, which are else refused."""
    limits: RowLimits = DEFAULT_LIMITS

    def batches(self, batch_rows: int = _BATCH_ROWS) -> Iterator[CheckedBatch]:
        """Yields the rows of all files."""
        for index in range(len(self.files)):
            yield from self.file_batches(index, batch_rows)

    def file_batches(self, index: int, batch_rows: int = _BATCH_ROWS) -> Iterator[CheckedBatch]:
        """Yields the rows of one file."""
        uri, first_row = self.files[index], 0
        file, footer = self._open(uri)
        try:
            batch_rows = limits.batch_rows(file.metadata, batch_rows)
            batches = limits.batches(file, range(file.num_row_groups), batch_rows, self._leaves(file))
            for table in limits.dense(batches, batch_rows, self.limits):
                yield self._checked(table, footer, index, first_row)
                first_row += table.num_rows
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"cannot read {uri} as Parquet: {first_line(error)}") from None

    def rows(self, wanted: RowRange) -> CheckedBatch:
        """Returns a range of rows."""
        uri = self.files[wanted.file]
        file, footer = self._open(uri)
        ends, last_row = np.cumsum(footer.group_rows), wanted.first_row + wanted.rows - 1
        first, last = np.searchsorted(ends, [wanted.first_row, last_row], side="right").tolist()
        try:
            batches = list(limits.batches(file, range(first, last + 1), wanted.rows, self._leaves(file)))
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"cannot read {uri} as Parquet: {first_line(error)}") from None
        before = int(ends[first - 1]) if first else 0
        table = pa.Table.from_batches(batches).slice(wanted.first_row - before, wanted.rows)
        first_row, checked = wanted.first_row, []
        for part in limits.dense(table.to_batches(), wanted.rows, self.limits):
            checked.append(self._checked(part, footer, wanted.file, first_row))
            first_row += part.num_rows
        return join_batches(checked)

    def all(self) -> CheckedBatch:
        """Returns the rows of all files together."""
        footer = Footer(self.table, TABLES[self.table], frozenset(), {}, [])
        empty = self._checked(TABLES[self.table].empty_table(), footer, 0, 0)
        return join_batches([empty, *self.batches()])

    def valid_batches(self, batch_rows: int = _BATCH_ROWS) -> Iterator[pa.Table]:
        """Yields the rows of all files; an invalid row is an `InputError` that names file, row, column and reason."""
        for batch in self.batches(batch_rows):
            if batch.invalid.num_rows:
                row = batch.invalid.sort_by("row").slice(0, 1).to_pylist()[0]
                raise InputError(
                    f"{row['file']}: row {row['row']} (from 0), column '{row['column']}': {row['reason']}; fix the row "
                    "or leave it out"
                )
            yield batch.valid

    def _open(self, uri: str) -> tuple[pq.ParquetFile, Footer]:
        file = storage.open_parquet(uri)
        footer = footer_of(uri, file)
        check_footers({self.table: [footer]}, {self.table: self._fields()}, self.timezone)
        return storage.open_parquet(uri, metadata=file.metadata, read_dictionary=limits.text_leaves(file)), footer

    def _fields(self) -> list[pa.Field]:
        fields = []
        for name, inner in self._names().items():
            field = TABLES[self.table].field(name)
            only = field.type.value_type.field(inner) if inner else None
            fields.append(field.with_type(pa.list_(pa.struct([only]))) if only else field)
        return fields

    def _names(self) -> dict[str, str]:
        """Returns the wanted field of each column, an empty text for all of it."""
        parts = (column.partition(".") for column in self.columns or TABLES[self.table].names)
        return {name: inner for name, _, inner in parts}

    def _leaves(self, file: pq.ParquetFile) -> list[str]:
        """Returns the Parquet leaf columns of the fields, so that nothing else is decoded."""
        names = source_names(file.schema_arrow, list(self._names()))
        wanted = {names[name]: inner for name, inner in self._names().items() if name in names}
        paths = (file.schema.column(index).path for index in range(len(file.schema)))
        return [
            path
            for path in paths
            if (top := path.split(".")[0]) in wanted and (not wanted[top] or f".{wanted[top]}." in f"{path}.")
        ]

    def _checked(self, table: pa.Table, footer: Footer, file: int, first_row: int) -> CheckedBatch:
        read = cast_table(table, footer, self._fields(), self.timezone, first_row)
        rows = with_source_rows(read, file, first_row)
        rows, too_long = checks.split_valid(rows, self.table, self.files, limits.too_long(read, self.limits))
        valid, unreadable = checks.split_readable(rows, self.table, self.files)
        invalid = pa.concat_tables([too_long, unreadable])
        if self.row_checks is not None:
            valid, more = checks.split_valid(valid, self.table, self.files, self.row_checks(valid))
            invalid = pa.concat_tables([invalid, more])
        return CheckedBatch(read, valid, invalid)


def read_table(uri: str, table: str, columns: list[str] | None = None) -> pa.Table:
    """Reads all files below a URI, at least one, as one table, in the order of their names; all text must be UTF-8."""
    empty = CheckedReader([], table, columns).all().valid
    reader = CheckedReader(storage.list_files(uri), table, columns)
    # By position, without the sources of the rows: the table `invalid_rows` has columns of the same names.
    wanted = range(len(columns or TABLES[table].names))
    return pa.concat_tables([empty, *reader.valid_batches()]).select(list(wanted))


def row_ranges(files: list[str], table: str, rows: int) -> list[RowRange]:
    """Cuts files into ranges of at most `rows` rows, which together hold every row once; reads only their footers."""
    footers = read_footers(files)
    check_footers({table: footers})
    totals = [sum(footer.group_rows) for footer in footers]
    cuts = [[min(rows, total - first) for first in range(0, total, rows)] for total in totals]
    return [each for index, sizes in enumerate(cuts) for each in _ranges(index, sizes)]


def group_ranges(footers: list[Footer], rows: int) -> list[RowRange]:
    """Cuts files into ranges of at least `rows` rows, except for each file's last range, between row groups only, so
    that no group is decoded twice.
    """
    return [each for index, footer in enumerate(footers) for each in _ranges(index, _joined(footer.group_rows, rows))]


def group_files(files: list[str]) -> list[range]:
    """Returns ranges of indices of files, each for one task: consecutive small files share one, others have their own.

    A task costs more than it takes to read many small files.
    """
    groups = [range(0, 0)]
    filled = 0
    for index, size in enumerate(info.size or 0 for info in storage.file_infos(files)):
        if len(groups[-1]) and (filled + size > _GROUP_BYTES or len(groups[-1]) == GROUP_FILES):
            groups.append(range(index, index))
            filled = 0
        groups[-1] = range(groups[-1].start, index + 1)
        filled += size
    return groups if files else []


def _ranges(index: int, sizes: list[int]) -> list[RowRange]:
    starts = itertools.accumulate(sizes, initial=0)
    return [RowRange(index, first, size) for first, size in zip(starts, sizes, strict=False)]


def _joined(groups: list[int], rows: int) -> list[int]:
    """Returns sums of consecutive groups, each at least `rows`, except the last."""
    sums = [0]
    for size in groups:
        sums[-1] += size
        if sums[-1] >= rows:
            sums.append(0)
    return sums if sums[-1] else sums[:-1]


def with_source_rows(table: pa.Table, file: int, first_row: int) -> pa.Table:
    """Appends the columns `file` and `row`: each row's source."""
    files, rows = np.full(table.num_rows, file, np.int32), np.arange(first_row, first_row + table.num_rows)
    return table.append_column("file", pa.array(files)).append_column("row", pa.array(rows))
