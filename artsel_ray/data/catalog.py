"""Titles and artworks that can be used, as arrays that an integer code of a title points into."""

import dataclasses
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from artsel_ray import schema, storage
from artsel_ray.config import AssetKind, Assets
from artsel_ray.data import checks
from artsel_ray.data import image_validation as gallery

_CONTENTS: dict[Assets | None, str] = {"caption": "caption", "image": "image_uri", None: "artwork_id"}


@dataclass(frozen=True)
class Catalog:
    """X titles, in the order of their rows, and their A artworks, by title and then by artwork_id."""

    title_ids: pa.Array
    names: pa.Array
    genres: pa.Array
    """list<string>."""
    artwork_ids: pa.Array
    offsets: np.ndarray
    """int64 of length X + 1: title x has the artworks `offsets[x]` to `offsets[x + 1]`."""
    other_ids: pa.Array
    """Ids of the assets of other kinds, which are no candidates."""


def read_catalog(
    titles: list[str],
    artworks: list[str],
    asset_kind: AssetKind = "artwork",
    assets: Assets | None = "caption",
    folder: str = "",
) -> tuple[Catalog, pa.Array, pa.Table]:
    """Reads the files of titles and of artworks, of which only those of one kind become candidates.

    Args:
        assets: what stands for a candidate: its caption or, looked at beforehand on Ray, its picture; None where only
            ids are wanted.
        folder: what relative paths of pictures begin at.

    Returns:
        The catalogue, the artworks' contents, and the rejected rows. Contents are captions, or where pictures are to
        be read (large_string, in the catalogue's order).

    Raises:
        InputError: if a file is broken or is not such a table.
    """
    good_titles, bad_titles = _read_titles(titles)
    title_ids = _whole(good_titles["title_id"])
    all_kinds, bad = _read_artworks(artworks, title_ids, _CONTENTS[assets])
    is_asked = pc.equal(pc.fill_null(all_kinds["asset_kind"], "artwork"), asset_kind)
    good = all_kinds.filter(is_asked)
    if assets == "image":
        good, unusable = _locate_images(good, artworks, folder)
        bad = pa.concat_tables([bad, unusable])
    code = checks.codes(good["title_id"], title_ids)
    order = pc.sort_indices(
        pa.table({"title": code, "artwork_id": good["artwork_id"]}),
        sort_keys=[("title", "ascending"), ("artwork_id", "ascending")],
    )
    catalog = Catalog(
        title_ids=title_ids,
        names=_whole(good_titles["name"]),
        genres=_whole(good_titles["genres"]),
        artwork_ids=_whole(good["artwork_id"]).take(order),
        other_ids=_whole(all_kinds.filter(pc.invert(is_asked))["artwork_id"]),
        offsets=np.concatenate([[0], np.cumsum(np.bincount(code, minlength=len(title_ids)))]),
    )
    contents = _whole(good[_CONTENTS[assets]].cast(pa.large_string())).take(order)
    return catalog, contents, pa.concat_tables([bad_titles, bad])


def permuted(catalog: Catalog, contents: pa.Array, number: int) -> tuple[Catalog, pa.Array]:
    """Returns catalogue and contents with each title's artworks in the order of a hash; 0 changes nothing."""
    if not number:
        return catalog, contents
    keys = [storage.fingerprint(number, artwork) for artwork in catalog.artwork_ids.to_pylist()]
    title = np.repeat(np.arange(len(catalog.title_ids)), np.diff(catalog.offsets))
    order = pa.array(np.lexsort((np.array(keys), title)))
    return dataclasses.replace(catalog, artwork_ids=catalog.artwork_ids.take(order)), contents.take(order)


def _read_titles(files: list[str]) -> tuple[pa.Table, pa.Table]:
    table, unreadable = _read(files, "titles", ["title_id", "name", "genres"])
    good, bad = _part_unique(
        table,
        "titles",
        files,
        "title_id",
        [
            ("title_id", checks.MISSING, checks.missing(table["title_id"])),
            ("name", checks.MISSING, checks.missing(table["name"])),
            ("genres", checks.MISSING, checks.missing(table["genres"])),
            ("genres", checks.NULL_GENRE, checks.null_genre(table["genres"])),
        ],
    )
    return good, pa.concat_tables([unreadable, bad])


def _read_artworks(files: list[str], title_ids: pa.Array, content: str) -> tuple[pa.Table, pa.Table]:
    table, unreadable = _read(files, "artworks", list(dict.fromkeys(["artwork_id", "title_id", content, "asset_kind"])))
    good, bad = _part_unique(
        table,
        "artworks",
        files,
        "artwork_id",
        [
            ("artwork_id", checks.MISSING, checks.missing(table["artwork_id"])),
            ("title_id", checks.MISSING, checks.missing(table["title_id"])),
            ("title_id", checks.UNKNOWN_TITLE, checks.codes(table["title_id"], title_ids) < 0),
            (content, checks.MISSING, checks.missing(table[content])),
            ("asset_kind", checks.WRONG_KIND, checks.kind_is_wrong(table["asset_kind"])),
        ],
    )
    return good, pa.concat_tables([unreadable, bad])


def _locate_images(table: pa.Table, files: list[str], folder: str) -> tuple[pa.Table, pa.Table]:
    """Puts where each picture is in place of what the data say, and parts off those that cannot be used."""
    looks = gallery.validate_images(table["image_uri"].to_pylist(), folder)
    places, faults = [place for place, _ in looks], np.array([fault for _, fault in looks], dtype=object)
    located = table.set_column(table.column_names.index("image_uri"), "image_uri", pa.array(places, pa.string()))
    found: list[checks.RowCheck] = [
        ("image_uri", fault, faults == fault) for fault in sorted({*faults.tolist()} - {""})
    ]
    return checks.split_valid(located, "artworks", files, found)


def _part_unique(
    table: pa.Table, name: str, files: list[str], key: str, found: list[checks.RowCheck]
) -> tuple[pa.Table, pa.Table]:
    """Parts off bad rows first, so that a bad row never hides a good one with the same id."""
    good, bad = checks.split_valid(table, name, files, found)
    repeated = (key, "repeated id; the first row is kept", checks.repeated(good[key]))
    good, again = checks.split_valid(good, name, files, [repeated])
    return good, pa.concat_tables([bad, again])


def _read(files: list[str], name: str, columns: list[str]) -> tuple[pa.Table, pa.Table]:
    """Returns all rows, and the rejected ones of those that cannot be read as text."""
    nothing = schema.cast(schema.TABLES[name].empty_table(), name, name, columns)
    parts, unreadable = [with_source_rows(nothing, 0, 0)], [schema.INVALID_ROWS.empty_table()]
    for number, uri in enumerate(files):
        for first_row, table in storage.iter_batches(uri, name, columns, broken_text=True):
            good, bad = checks.split_readable(with_source_rows(table, number, first_row), name, files)
            parts.append(good)
            unreadable.append(bad)
    return pa.concat_tables(parts), pa.concat_tables(unreadable)


def with_source_rows(table: pa.Table, file: int, first_row: int) -> pa.Table:
    """Appends the columns `file` and `row`, which say where a row comes from."""
    file_column = pa.array(np.full(table.num_rows, file, dtype=np.int32))
    rows = pa.array(np.arange(first_row, first_row + table.num_rows))
    return table.append_column("file", file_column).append_column("row", rows)


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
