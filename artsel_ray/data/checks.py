"""Which rows of a table can be used, and the rejected rows of those that cannot, each with its reason.

Tables here carry two more columns than their schema: `file`, an index into a list of URIs, and `row`, the row's
number in that file. A mask is a numpy array of bool, True where a row is bad. The first check that a row fails
is its reason. Reasons and ids are written, never a title's name, a caption or a history.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from artsel_ray.schema import REJECTED

Check = tuple[str, str, np.ndarray]
"""A column, the reason, and the mask of the rows that fail."""

MISSING = "missing"
UNKNOWN_TITLE = "unknown title"


def part(table: pa.Table, name: str, files: list[str], checks: list[Check]) -> tuple[pa.Table, pa.Table]:
    """Parts a table into the rows that pass all checks and the rejected rows of the others.

    Args:
        name: the table's name, as in `schema.TABLES`.
    """
    failed = np.zeros(table.num_rows, dtype=np.int8)
    for number, (_, _, bad) in reversed(list(enumerate(checks, start=1))):
        failed[bad] = number
    rejected = [REJECTED.empty_table()]
    for number in np.unique(failed[failed > 0]):
        column, reason, _ = checks[number - 1]
        rejected.append(rejections(table.filter(failed == number), name, files, column, reason))
    good = table if len(rejected) == 1 else table.filter(failed == 0)
    return good, pa.concat_tables(rejected)


def rejections(rows: pa.Table, name: str, files: list[str], column: str, reason: str) -> pa.Table:
    """Returns one rejected row for each row, all with the same reason."""
    known = {"file": pa.array(files, pa.string()).take(rows["file"].combine_chunks())}
    for key in ("row", "user_id", "title_id", "artwork_id"):
        if key in rows.column_names:
            known[key] = rows[key]
    said = {"table": name, "column": column, "reason": reason}
    arrays = [
        pa.repeat(said[field.name], rows.num_rows)
        if field.name in said
        else known.get(field.name, pa.nulls(rows.num_rows, field.type))
        for field in REJECTED
    ]
    return pa.table(arrays, names=REJECTED.names).cast(REJECTED)


def missing(column: pa.ChunkedArray) -> np.ndarray:
    """Returns where a value is null or, for text, nothing but white space."""
    if not pa.types.is_string(column.type):
        return mask(column.is_null())
    empty = pc.equal(pc.binary_length(column), 0)
    return mask(pc.fill_null(pc.or_(empty, pc.utf8_is_space(column)), True))


def mask(values: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Returns an Arrow array of bool as numpy's, null as False."""
    return np.asarray(pc.fill_null(values, False), dtype=bool)


def codes(ids: pa.ChunkedArray, known: pa.Array) -> np.ndarray:
    """Returns each id's place among the known ones, int32; -1 where it is not among them."""
    return pc.fill_null(pc.index_in(ids, value_set=known), -1).to_numpy().astype(np.int32)


def repeated(ids: pa.ChunkedArray) -> np.ndarray:
    """Returns where an id was seen in an earlier row."""
    first = np.unique(ids.combine_chunks().dictionary_encode().indices.to_numpy(), return_index=True)[1]
    seen = np.ones(len(ids), dtype=bool)
    seen[first] = False
    return seen


def later_than(timestamps: pa.ChunkedArray, now_us: int) -> np.ndarray:
    """Returns where a time is after `now_us`, microseconds since 1970."""
    return mask(pc.greater(timestamps.cast(pa.int64()), now_us))


def watch_is_wrong(watch_seconds: pa.ChunkedArray) -> np.ndarray:
    """Returns where a watch time is negative, infinite or no number; null is right."""
    return mask(pc.invert(pc.and_(pc.is_finite(watch_seconds), pc.greater_equal(watch_seconds, 0))))


def propensity_is_wrong(propensity: pa.ChunkedArray) -> np.ndarray:
    """Returns where a propensity is not in (0, 1]; null, which is not known, is right."""
    return mask(pc.invert(pc.and_(pc.greater(propensity, 0), pc.less_equal(propensity, 1))))
