"""Splits a table into valid rows and invalid rows, each with its reason.

Tables here have two more columns than their schema: `file`, an index into a list of URIs, and `row`, the row's number
in that file. A mask is a numpy array of bool, True where a row is invalid. A row's reason is the first check that it
fails. Invalid rows hold reasons and ids, never a title's name, a caption or a history.
"""

from collections import Counter
from collections.abc import Iterable
from typing import get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from artsel_ray.config import AssetKind, Assets
from artsel_ray.errors import InputError
from artsel_ray.schema import EXAMPLES, INVALID_ROWS, PREDICTIONS

RowCheck = tuple[str, str, np.ndarray]
"""A column, the reason, and a mask of the rows that fail."""

MISSING = "missing"
NOT_TEXT = "not valid UTF-8"
UNKNOWN_TITLE = "unknown title"
NULL_GENRE = "null among the genres"
WRONG_WATCH = "negative or not a number"
WRONG_PROPENSITY = "not in (0, 1]"
WRONG_KIND = f"none of {', '.join(get_args(AssetKind))}"


def split_valid(table: pa.Table, name: str, files: list[str], checks: list[RowCheck]) -> tuple[pa.Table, pa.Table]:
    """Returns the rows of the named table that pass all checks, and the others as the table `invalid_rows`."""
    passed, invalid = np.ones(table.num_rows, dtype=bool), [INVALID_ROWS.empty_table()]
    for column, reason, failed in checks:
        if (first := passed & failed).any():
            invalid.append(invalid_rows(table.filter(first), name, files, column, reason))
            passed &= ~failed
    return table if len(invalid) == 1 else table.filter(passed), pa.concat_tables(invalid)


def split_readable(table: pa.Table, name: str, files: list[str]) -> tuple[pa.Table, pa.Table]:
    """Splits off the rows with text that is not UTF-8, as `split_valid`; must run before anything reads text."""
    broken = broken_text(table).items()
    found = [(column, NOT_TEXT, np.isin(np.arange(table.num_rows), rows)) for column, rows in broken]
    return split_valid(table, name, files, found)


def invalid_rows(rows: pa.Table, name: str, files: list[str], column: str, reason: str) -> pa.Table:
    """Returns the rows as the table `invalid_rows`, all with one reason; an id that is not UTF-8 becomes null."""
    known = {"file": pa.array(files, pa.string()).take(rows["file"].combine_chunks())}
    for key in {"row", "user_id", "title_id", "artwork_id"} & set(rows.column_names):
        unreadable = np.isin(np.arange(rows.num_rows), broken_text(rows.select([key])).get(key, []))
        known[key] = pc.if_else(unreadable, pa.scalar(None, rows[key].type), rows[key])
    for field, value in (("table", name), ("column", column), ("reason", reason)):
        known[field] = pa.repeat(value, rows.num_rows)
    arrays = [known.get(field.name, pa.nulls(rows.num_rows, field.type)) for field in INVALID_ROWS]
    return pa.table(arrays, names=INVALID_ROWS.names).cast(INVALID_ROWS)


def missing(column: pa.ChunkedArray) -> np.ndarray:
    """Returns where a value is null or, for text, only white space."""
    if not pa.types.is_string(column.type):
        return mask(column.is_null())
    empty = pc.equal(pc.binary_length(column), 0)
    return mask(pc.fill_null(pc.or_(empty, pc.utf8_is_space(column)), True))


def missing_checks(rows: pa.Table, columns: Iterable[str]) -> list[RowCheck]:
    """Returns the checks that these columns are filled."""
    return [(column, MISSING, missing(rows[column])) for column in columns]


def _required_checks(rows: pa.Table, schema: pa.Schema) -> list[RowCheck]:
    return missing_checks(rows, [f.name for f in schema if not f.nullable and f.name in rows.column_names])


def mask(values: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Returns an Arrow array of bool as a numpy array, null as False."""
    return np.asarray(pc.fill_null(values, False), dtype=bool)


def codes(ids: pa.ChunkedArray, known: pa.Array) -> np.ndarray:
    """Returns each id's index among the known ids, int32; -1 if unknown."""
    return pc.fill_null(pc.index_in(ids, value_set=known), -1).to_numpy().astype(np.int32)


def repeated(ids: pa.ChunkedArray) -> np.ndarray:
    """Returns where an id occurs in an earlier row."""
    first = np.unique(ids.combine_chunks().dictionary_encode().indices.to_numpy(), return_index=True)[1]
    return ~np.isin(np.arange(len(ids)), first)


def later_than(timestamps: pa.ChunkedArray, now_us: int) -> np.ndarray:
    """Returns where a time is after `now_us`, microseconds since 1970."""
    return mask(pc.greater(timestamps.cast(pa.int64()), now_us))


def watch_is_wrong(watch_seconds: pa.ChunkedArray) -> np.ndarray:
    """Returns where a watch time is negative, infinite or not a number; null is valid."""
    return mask(pc.invert(pc.and_(pc.is_finite(watch_seconds), pc.greater_equal(watch_seconds, 0))))


def kind_is_wrong(asset_kind: pa.ChunkedArray) -> np.ndarray:
    """Returns where a kind of asset is unknown; null is valid."""
    return mask(pc.and_(asset_kind.is_valid(), pc.invert(pc.is_in(asset_kind, pa.array(get_args(AssetKind))))))


def propensity_is_wrong(propensity: pa.ChunkedArray) -> np.ndarray:
    """Returns where a propensity is not in (0, 1]; null is valid."""
    return mask(pc.invert(pc.and_(pc.greater(propensity, 0), pc.less_equal(propensity, 1))))


def without_propensity(rows: pa.Table, files: list[str]) -> Counter[str]:
    """Returns how many rows of each file have no propensity in (0, 1]."""
    propensity = rows["propensity"]
    index = rows["file"].filter(pa.array(mask(propensity.is_null()) | propensity_is_wrong(propensity)))
    return Counter(files[each] for each in index.to_pylist())


def require_propensities(missing: Counter[str]) -> None:
    """Makes sure that training can weight every example.

    Args:
        missing: for each file, the number of examples without a usable propensity.

    Raises:
        InputError: if there is one.
    """
    if total := missing.total():
        file, count = missing.most_common(1)[0]
        others = f" ({total:,} in all files)" if total > count else ""
        raise InputError(
            f"{file}: {count:,} examples{others} have no propensity in (0, 1], and --weight-by-propensity needs one "
            "for each; leave these examples out, or leave the flag out"
        )


def probability_is_wrong(probability: pa.ChunkedArray) -> np.ndarray:
    """Returns where a probability is not in [0, 1]; null is valid."""
    return mask(pc.invert(pc.and_(pc.greater_equal(probability, 0), pc.less_equal(probability, 1))))


def items(column: pa.ChunkedArray, name: str | None = None) -> tuple[pa.ChunkedArray, np.ndarray]:
    """Returns the items of all lists in a column, or one field of items that are structs, and each item's row."""
    lists = column.combine_chunks()
    values = pc.list_flatten(lists)
    chunked = pa.chunked_array([values if name is None else pc.struct_field(values, name)])
    return chunked, pc.list_parent_indices(lists).to_numpy()


def rows_with(failed: np.ndarray, rows: np.ndarray, count: int) -> np.ndarray:
    """Returns which of `count` rows have an item that failed, given each item's row."""
    return np.isin(np.arange(count), rows[failed])


def null_genre(genres: pa.ChunkedArray) -> np.ndarray:
    """Returns where a list of genres contains a null."""
    values, rows = items(genres)
    return rows_with(mask(values.is_null()), rows, len(genres))


def history_checks(history: pa.ChunkedArray) -> list[RowCheck]:
    """Returns the checks of a history's items, which are those of valid rows of `interactions` and `titles`."""
    names, rows = items(history, "title_name")
    genres, watched = (items(history, name)[0] for name in ("genres", "watch_seconds"))
    found = {
        "an item without a title's name": missing(names),
        f"an item with {NULL_GENRE}": null_genre(genres),
        f"an item's watch time is {WRONG_WATCH}": watch_is_wrong(watched),
    }
    return [("history", reason, rows_with(failed, rows, len(history))) for reason, failed in found.items()]


def example_checks(rows: pa.Table, assets: Assets = "caption") -> list[RowCheck]:
    """Returns the checks of examples with at least the columns that a prompt needs, and each candidate's asset."""
    count = pc.fill_null(pc.list_value_length(rows["candidates"]), 0)
    labeled = pc.and_(pc.greater_equal(rows["label"], 0), pc.less(rows["label"], count))
    if assets == "image":
        images, owners = items(rows["image_uris"])
        lacking = rows_with(missing(images), owners, rows.num_rows)
        lacking |= mask(pc.not_equal(pc.fill_null(pc.list_value_length(rows["image_uris"]), -1), count))
        contents = ("image_uris", "a candidate without an image; prepare with --assets image", lacking)
    else:
        captions, owners = items(rows["candidates"], "caption")
        lacking = rows_with(missing(captions), owners, rows.num_rows)
        contents = ("candidates", "a candidate without a caption", lacking)
    return [
        *_required_checks(rows, EXAMPLES),
        ("title_genres", NULL_GENRE, null_genre(rows["title_genres"])),
        *history_checks(rows["history"]),
        ("label", "not one of the candidates", mask(pc.invert(labeled))),
        contents,
        ("propensity", WRONG_PROPENSITY, propensity_is_wrong(rows["propensity"])),
    ]


def prediction_checks(rows: pa.Table) -> list[RowCheck]:
    """Returns the checks of predictions, for the columns that are there."""
    found = _required_checks(rows, PREDICTIONS)
    found.append(("probability", "not in [0, 1]", probability_is_wrong(rows["probability"])))
    if "propensity" in rows.column_names:
        found.append(("propensity", WRONG_PROPENSITY, propensity_is_wrong(rows["propensity"])))
    if "candidates" in rows.column_names:
        artworks, owners = items(rows["candidates"], "artwork_id")
        found.append(("candidates", "a candidate without an id", rows_with(missing(artworks), owners, rows.num_rows)))
        values, _ = items(rows["candidates"], "probability")
        wrong = probability_is_wrong(values) | mask(values.is_null())
        found.append(("candidates", "a probability not in [0, 1]", rows_with(wrong, owners, rows.num_rows)))
    return found


def broken_text(table: pa.Table) -> dict[str, list[int]]:
    """Returns the columns with text that is not UTF-8, also inside lists and structs, and the indices of such rows."""
    try:
        table.validate(full=True)
    except pa.ArrowInvalid:
        found = {name: _broken(table[name].combine_chunks()) for name in table.column_names}
        return {name: rows for name, rows in found.items() if rows}
    return {}


def _broken(values: pa.Array) -> list[int]:
    if pa.types.is_list(values.type):
        items = pa.array(_broken(pc.list_flatten(values)), pa.int64())
        return sorted(set(pc.list_parent_indices(values).take(items).to_pylist()))
    if pa.types.is_struct(values.type):
        fields = (_broken(values.field(index)) for index in range(values.type.num_fields))
        return sorted(set().union(*fields))
    if not pa.types.is_string(values.type):
        return []
    texts = enumerate(values.cast(pa.binary()).to_pylist())
    return [row for row, value in texts if value and value.decode(errors="ignore").encode() != value]
