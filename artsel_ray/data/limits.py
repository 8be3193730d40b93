"""What one row may cost: texts and lists longer than a limit are cut while they cost nothing, and then invalid.

Parquet repeats a value for a few bits. So texts are read as dictionaries, whose values are cut before they are
repeated, and a batch that is large nevertheless is passed on in parts.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from artsel_ray.config import RowLimits
from artsel_ray.data.casting import is_list

_PART_BYTES = 128 << 20
# Values of one column that are decoded together.
_BATCH_VALUES = 1 << 25
_SHORT_TEXT_BYTES = 4096  # of ids and URIs
_NAME_BYTES, _GENRE_BYTES = 2048, 256
MAX_CANDIDATES = 2000
"""Of a title, and so of an example and of a prediction."""
_LONG_TEXTS = ("caption", "synopsis", "rationale", "brief")
_GENRES = ("genres", "title_genres")
_CANDIDATE_LISTS = ("candidates", "image_uris", "artwork_ids", "propensities", "engagement_probabilities")


def max_bytes(column: str, limits: RowLimits) -> int:
    """Returns the most bytes of UTF-8 of a text in a column or in a list of that name."""
    if column in _LONG_TEXTS:
        return limits.max_text_bytes
    return {"name": _NAME_BYTES, "title_name": _NAME_BYTES, **dict.fromkeys(_GENRES, _GENRE_BYTES)}.get(
        column, _SHORT_TEXT_BYTES
    )


def max_items(column: str, limits: RowLimits) -> int:
    """Returns the most items of a list of that name."""
    if column in _CANDIDATE_LISTS:
        return MAX_CANDIDATES
    return limits.max_genres if column in _GENRES else limits.max_row_items


def text_leaves(file: pq.ParquetFile) -> list[str]:
    """Returns the leaf columns that hold texts or bytes, which can be read as dictionaries."""
    leaves = (file.schema.column(index) for index in range(len(file.schema)))
    return [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY" and leaf.logical_type.type != "DECIMAL"]


def batch_rows(metadata: pq.FileMetaData, rows: int) -> int:
    """Returns how many rows to decode together, at most `rows`: fewer where lists are long."""
    groups = [metadata.row_group(group) for group in range(metadata.num_row_groups)]
    values = max((g.column(c).num_values / max(g.num_rows, 1) for g in groups for c in range(g.num_columns)), default=1)
    return max(1, min(rows, int(_BATCH_VALUES / max(values, 1))))


def batches(file: pq.ParquetFile, groups: Iterable[int], rows: int, leaves: list[str]) -> Iterator[pa.RecordBatch]:
    """Yields rows of row groups in batches; pyarrow reads nested dictionaries of one row group at a time only."""
    for group in groups:
        yield from file.iter_batches(rows, row_groups=[group], columns=leaves, use_threads=True)


def dense(batches: Iterable[pa.RecordBatch], rows: int, limits: RowLimits) -> Iterator[pa.Table]:
    """Yields batches with texts as dictionaries as dense tables, of bounded size and of about at most `rows` rows.

    Values that are too long have one byte or item more than they may have, so that `too_long` finds them.
    """
    held: list[pa.Table] = []
    for batch in batches:  # which end with a row group, however small it is
        if not batch.num_columns:  # all columns are in the folders' names
            yield pa.Table.from_batches([batch])
            continue
        for part in _parts(batch, limits):
            sizes = [(each.num_rows, each.nbytes) for each in (*held, part)]
            if held and (sum(n for n, _ in sizes) > rows or sum(n for _, n in sizes) > _PART_BYTES):
                yield pa.concat_tables(held)
                held = []
            held.append(part)
    if held:
        yield pa.concat_tables(held)


def _parts(batch: pa.RecordBatch, limits: RowLimits) -> Iterator[pa.Table]:
    cut = [_cut(column, name, limits) for name, column in zip(batch.schema.names, batch.columns, strict=True)]
    for part in _halves(pa.RecordBatch.from_arrays(cut, names=batch.schema.names)):
        yield pa.table([_dense(column) for column in part.columns], names=part.schema.names)


def _halves(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    if batch.num_rows > 1 and sum(map(_text_bytes, batch.columns)) > _PART_BYTES:
        middle = batch.num_rows // 2
        yield from _halves(batch.slice(0, middle))
        yield from _halves(batch.slice(middle))
    else:
        yield batch


def _text_bytes(values: pa.Array) -> int:
    """Returns the bytes of all texts, each time that they occur."""
    if pa.types.is_dictionary(values.type):
        lengths = pc.fill_null(pc.binary_length(values.dictionary.cast(pa.large_binary())), 0)
        return pc.sum(lengths.cast(pa.int64()).take(values.indices)).as_py() or 0
    if pa.types.is_struct(values.type):
        return sum(map(_text_bytes, values.flatten()))
    return _text_bytes(values.flatten()) if is_list(values.type) else 0


def _cut(values: pa.Array, name: str, limits: RowLimits) -> pa.Array:
    """Returns values, where a text or list that is too long has one byte or item more than it may have."""
    if pa.types.is_dictionary(values.type):
        cut = _cut_texts(values.dictionary, max_bytes(name, limits))
        return values if cut is values.dictionary else pa.DictionaryArray.from_arrays(values.indices, cut)
    if pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
        most = max_items(name, limits)
        if (pc.max(pc.list_value_length(values)).as_py() or 0) > most:
            values = pc.list_slice(values, 0, most + 1)
        values = pa.concat_arrays([values]) if values.offset else values
        items = _cut(values.values, name, limits)
        if items is values.values:
            return values
        return type(values).from_arrays(values.offsets, items, mask=values.is_null() if values.null_count else None)
    if pa.types.is_struct(values.type):
        values = pa.concat_arrays([values]) if values.offset else values
        names = [values.type.field(index).name for index in range(values.type.num_fields)]
        fields = [values.field(index) for index in range(values.type.num_fields)]
        cut = [_cut(field, name, limits) for name, field in zip(names, fields, strict=True)]
        if all(new is old for new, old in zip(cut, fields, strict=True)):
            return values
        return pa.StructArray.from_arrays(cut, names=names, mask=values.is_null() if values.null_count else None)
    return values


def _cut_texts(texts: pa.Array, most: int) -> pa.Array:
    as_bytes = texts.cast(pa.large_binary())
    if (pc.max(pc.binary_length(as_bytes)).as_py() or 0) <= most:
        return texts
    # Not cast to text, which would check it: what is not UTF-8 is found later, row by row.
    return pc.binary_slice(as_bytes, 0, most + 1).cast(pa.binary()).view(texts.type)


def _dense(values: pa.Array) -> pa.Array:
    type_ = _dense_type(values.type)
    return values if type_ == values.type else values.cast(type_)


def _dense_type(type_: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(type_):
        return type_.value_type
    if pa.types.is_struct(type_):
        return pa.struct([field.with_type(_dense_type(field.type)) for field in type_])
    if pa.types.is_list(type_) or pa.types.is_large_list(type_):
        make = pa.list_ if pa.types.is_list(type_) else pa.large_list
        return make(type_.value_field.with_type(_dense_type(type_.value_type)))
    return type_


def too_long(table: pa.Table, limits: RowLimits) -> list[tuple[str, str, np.ndarray]]:
    """Returns the checks that no text and no list is too long, by column: reason, and mask of the rows that fail."""
    found = []
    for name, column in zip(table.column_names, table.columns, strict=True):
        if pa.types.is_string(column.type) or is_list(column.type):
            found += [(name, *each) for each in _too_long(column.combine_chunks(), name, limits)]
    return found


def _too_long(values: pa.Array, name: str, limits: RowLimits) -> list[tuple[str, np.ndarray]]:
    if pa.types.is_string(values.type):
        flag = " (--max-text-bytes)" if name in _LONG_TEXTS else ""
        return _over(pc.binary_length(values), max_bytes(name, limits), "a text of more than {:,} bytes" + flag)
    if pa.types.is_struct(values.type):
        fields = (values.type.field(index).name for index in range(values.type.num_fields))
        return [each for field in fields for each in _too_long(pc.struct_field(values, field), field, limits)]
    if not is_list(values.type):
        return []
    flag = "" if name in _CANDIDATE_LISTS else f" ({'--max-genres' if name in _GENRES else '--max-row-items'})"
    found = _over(pc.list_value_length(values), max_items(name, limits), "more than {:,} items" + flag)
    inner = _too_long(values.flatten(), name, limits)
    if inner:
        owners = pc.list_parent_indices(values).to_numpy()
        found += [(reason, np.isin(np.arange(len(values)), owners[failed])) for reason, failed in inner]
    return found


def _over(lengths: pa.Array, most: int, reason: str) -> list[tuple[str, np.ndarray]]:
    if (pc.max(lengths).as_py() or 0) <= most:
        return []
    return [(reason.format(most), np.asarray(pc.fill_null(pc.greater(lengths, most), False), dtype=bool))]
