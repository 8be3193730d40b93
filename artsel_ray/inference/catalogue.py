"""Titles with their candidates in one fixed order, as every shard needs them."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from artsel_ray import storage
from artsel_ray.schema import REJECTED

_REJECTED_COLUMNS = ("table", "file", "row", "column", "reason", "user_id", "title_id", "artwork_id")


@dataclass(frozen=True)
class Catalogue:
    """The titles that can be scored, and what was left out."""

    titles: pa.Table
    """title_id, name, genres, artwork_ids, captions; a title's candidates are sorted by artwork_id."""
    rejected: pa.Table
    """Rows of titles and artworks that could not be used."""


def read_catalogue(titles_uri: str, artworks_uri: str) -> Catalogue:
    """Reads titles and artworks and joins them.

    Rejected are titles without id or name and repeated ones; artworks without id, title or caption, of an
    unknown title, and repeated ones. Of repeated rows the first is kept.

    Raises:
        InputError: if a table is absent, broken or not of its kind.
    """
    titles, bad_titles = _read(titles_uri, "titles", "title_id", ["title_id", "name", "genres"], ["title_id", "name"])
    artworks, bad_artworks = _read(
        artworks_uri, "artworks", "artwork_id", ["artwork_id", "title_id", "caption"],
        ["artwork_id", "title_id", "caption"],
    )  # fmt: skip
    known = pc.is_in(artworks["title_id"], value_set=titles["title_id"])
    orphans = _rejections(artworks, pc.invert(known), "artworks", "title_id", "unknown title")
    artworks = artworks.filter(known).sort_by([("title_id", "ascending"), ("artwork_id", "ascending")])
    grouped = artworks.group_by("title_id", use_threads=False).aggregate([("artwork_id", "list"), ("caption", "list")])
    place = pc.index_in(titles["title_id"], value_set=grouped["title_id"])
    joined = pa.table(
        {
            "title_id": titles["title_id"],
            "name": titles["name"],
            "genres": titles["genres"],
            "artwork_ids": grouped["artwork_id_list"].take(place),
            "captions": grouped["caption_list"].take(place),
        }
    )
    return Catalogue(joined.combine_chunks(), pa.concat_tables([*bad_titles, *bad_artworks, orphans]))


def _read(uri: str, name: str, key: str, columns: list[str], required: list[str]) -> tuple[pa.Table, list[pa.Table]]:
    """Reads a table with its rows' places, and parts the rows that lack something or repeat a key from it."""
    parts = [_placed(table, file, row) for file in storage.list_files(uri)
             for row, table in storage.iter_batches(file, name, columns)]  # fmt: skip
    table = pa.concat_tables(parts) if parts else _placed(storage.read_table(uri, name, columns), uri, 0)
    rejected = []
    for column in required:
        empty = pc.fill_null(pc.equal(pc.utf8_trim_whitespace(table[column]), ""), True)
        rejected.append(_rejections(table, empty, name, column, "missing"))
        table = table.filter(pc.invert(empty))
    first = np.zeros(table.num_rows, dtype=bool)
    first[np.unique(table[key].to_numpy(), return_index=True)[1]] = True
    rejected.append(_rejections(table, pa.array(~first), name, key, "repeated id, the first row is kept"))
    return table.filter(pa.array(first)), rejected


def _placed(table: pa.Table, file: str, first_row: int) -> pa.Table:
    rows = pa.array(np.arange(first_row, first_row + table.num_rows))
    files = pa.DictionaryArray.from_arrays(pa.array(np.zeros(table.num_rows, np.int32)), pa.array([file]))
    return table.append_column("_file", files.cast(pa.string())).append_column("_row", rows)


def _rejections(table: pa.Table, mask: pa.Array | pa.ChunkedArray, name: str, column: str, reason: str) -> pa.Table:
    bad = table.filter(mask)
    return rejections(
        name, bad["_file"], bad["_row"], column, reason,
        **{key: bad[key] for key in ("title_id", "artwork_id") if key in bad.column_names},
    )  # fmt: skip


def rejections(
    table: str,
    files: pa.Array | pa.ChunkedArray,
    rows: pa.Array | pa.ChunkedArray,
    column: str,
    reason: str,
    **ids: pa.Array | pa.ChunkedArray,
) -> pa.Table:
    """Returns rows for the rejected table; `ids` are user_id, title_id or artwork_id where known."""
    count = len(rows)
    values: dict[str, object] = {
        "table": pa.repeat(table, count),
        "file": files,
        "row": rows,
        "column": pa.repeat(column, count),
        "reason": pa.repeat(reason, count),
        **ids,
    }
    columns = [values.get(name, pa.nulls(count, REJECTED.field(name).type)) for name in _REJECTED_COLUMNS]
    return pa.table(columns, names=list(_REJECTED_COLUMNS)).cast(REJECTED)
