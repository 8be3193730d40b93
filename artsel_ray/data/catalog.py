"""The valid titles and their artworks, as arrays that a title's index points into."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray

from artsel_ray import storage
from artsel_ray.config import DEFAULT_LIMITS, AssetKind, Assets, RowLimits
from artsel_ray.data import checks
from artsel_ray.data.checked_reader import CheckedReader
from artsel_ray.data.image_files import TRANSIENT, UnusableError, fetch, locate
from artsel_ray.data.images import MAX_PIXELS, decode
from artsel_ray.data.limits import MAX_CANDIDATES
from artsel_ray.errors import InputError
from artsel_ray.runtime.ray_cluster import start_ray

TITLE_COLUMNS = ["title_id", "name", "genres"]
_CONTENTS: dict[Assets | None, str] = {"caption": "caption", "image": "image_uri", None: "artwork_id"}
# Images of one task, images that it decodes at once, and the pixels to which it resizes them.
_TASK_IMAGES, _THREADS, _RESIZE_TO_PIXELS = 256, 4, 1024
_PROGRESS_SECONDS, _RETRY_WAITS_SECONDS = 5.0, (1.0, 4.0)


@dataclass(frozen=True)
class Catalog:
    """X titles in the order of their rows, and their A artworks by title and then by artwork_id."""

    title_ids: pa.Array
    names: pa.Array
    genres: pa.Array
    """list<string>."""
    artwork_ids: pa.Array
    offsets: np.ndarray
    """int64 of length X + 1: title x has the artworks `offsets[x]` to `offsets[x + 1]`."""
    contents: pa.Array
    """Each artwork's caption or the location of its image, large_string; its id if only ids were read."""
    other_ids: pa.Array
    """Ids of assets of other kinds, which are not candidates."""


def read_catalog(
    titles: list[str],
    artworks: list[str],
    asset_kind: AssetKind = "artwork",
    assets: Assets | None = "caption",
    image_roots: Sequence[str] = (),
    limits: RowLimits = DEFAULT_LIMITS,
) -> tuple[Catalog, pa.Table]:
    """Reads files of titles and artworks; returns the catalog, and the invalid rows of both tables.

    Args:
        assets: what the contents are: captions, or images, which are then validated on Ray; None to read ids only.
        image_roots: folders that images may be in; relative paths begin at the first.
    """
    valid_titles, invalid_titles = _read_titles(titles, limits)
    title_ids = _combined(valid_titles["title_id"])
    all_kinds, invalid = _read_artworks(artworks, title_ids, assets, limits)
    is_wanted = pc.equal(pc.fill_null(all_kinds["asset_kind"], "artwork"), asset_kind)
    valid, crowded = _few_of_each_title(all_kinds.filter(is_wanted), artworks, title_ids)
    invalid = pa.concat_tables([invalid, crowded])
    if assets == "image":
        valid, unusable = _locate_images(valid, artworks, image_roots)
        invalid = pa.concat_tables([invalid, unusable])
    code = checks.codes(valid["title_id"], title_ids)
    by_title = pa.table({"title": code, "artwork_id": valid["artwork_id"]})
    order = pc.sort_indices(by_title, sort_keys=[("title", "ascending"), ("artwork_id", "ascending")])
    catalog = Catalog(
        title_ids=title_ids,
        names=_combined(valid_titles["name"]),
        genres=_combined(valid_titles["genres"]),
        artwork_ids=_combined(valid["artwork_id"]).take(order),
        contents=_combined(valid[_CONTENTS[assets]].cast(pa.large_string())).take(order),
        other_ids=_combined(all_kinds.filter(pc.invert(is_wanted))["artwork_id"]),
        offsets=np.concatenate([[0], np.cumsum(np.bincount(code, minlength=len(title_ids)))]),
    )
    return catalog, pa.concat_tables([invalid_titles, invalid])


def permuted(catalog: Catalog, number: int) -> Catalog:
    """Returns the catalog with each title's artworks in the order of a hash with this number; 0 changes nothing."""
    if not number:
        return catalog
    keys = [storage.fingerprint(number, artwork) for artwork in catalog.artwork_ids.to_pylist()]
    title = np.repeat(np.arange(len(catalog.title_ids)), np.diff(catalog.offsets))
    order = pa.array(np.lexsort((np.array(keys), title)))
    return replace(catalog, artwork_ids=catalog.artwork_ids.take(order), contents=catalog.contents.take(order))


def _read_titles(files: list[str], limits: RowLimits) -> tuple[pa.Table, pa.Table]:
    def row_checks(rows: pa.Table) -> list[checks.RowCheck]:
        null_genre = ("genres", checks.NULL_GENRE, checks.null_genre(rows["genres"]))
        return [*checks.missing_checks(rows, TITLE_COLUMNS), null_genre]

    return _read_unique(CheckedReader(files, "titles", TITLE_COLUMNS, row_checks, limits=limits), "title_id")


def artwork_columns(assets: Assets | None) -> list[str]:
    """Returns the columns of artworks that `read_catalog` reads."""
    return list(dict.fromkeys(["artwork_id", "title_id", _CONTENTS[assets], "asset_kind"]))


def _read_artworks(
    files: list[str], title_ids: pa.Array, assets: Assets | None, limits: RowLimits
) -> tuple[pa.Table, pa.Table]:
    def row_checks(rows: pa.Table) -> list[checks.RowCheck]:
        return [
            *checks.missing_checks(rows, ["artwork_id", "title_id"]),
            ("title_id", checks.UNKNOWN_TITLE, checks.codes(rows["title_id"], title_ids) < 0),
            *checks.missing_checks(rows, [_CONTENTS[assets]]),
            ("asset_kind", checks.WRONG_KIND, checks.kind_is_wrong(rows["asset_kind"])),
        ]

    return _read_unique(
        CheckedReader(files, "artworks", artwork_columns(assets), row_checks, limits=limits), "artwork_id"
    )


def _read_unique(reader: CheckedReader, key: str) -> tuple[pa.Table, pa.Table]:
    """Looks for repeated ids among valid rows only, so that an invalid row never hides a valid one with its id."""
    batch = reader.all()
    repeated = (key, "repeated id; the first row is kept", checks.repeated(batch.valid[key]))
    valid, more = checks.split_valid(batch.valid, reader.table, reader.files, [repeated])
    return valid, pa.concat_tables([batch.invalid, more])


def _few_of_each_title(table: pa.Table, files: list[str], title_ids: pa.Array) -> tuple[pa.Table, pa.Table]:
    title = checks.codes(table["title_id"], title_ids)
    too_many = np.bincount(title, minlength=len(title_ids))[title] > MAX_CANDIDATES
    reason = f"its title has more than {MAX_CANDIDATES:,} artworks"
    return checks.split_valid(table, "artworks", files, [("title_id", reason, too_many)])


def _locate_images(table: pa.Table, files: list[str], roots: Sequence[str]) -> tuple[pa.Table, pa.Table]:
    images = validate_images(table["image_uri"].to_pylist(), roots)
    locations = pa.array([image.location for image in images], pa.string())
    faults = np.array([image.fault for image in images], dtype=object)
    if transient := int((faults == TRANSIENT).sum()):  # dropped, they would be missing from every choice
        raise InputError(
            f"{roots[0]}: the storage did not give {transient:,} of {len(images):,} images, also when asked again; run "
            "the same command again"
        )
    located = table.set_column(table.column_names.index("image_uri"), "image_uri", locations)
    found: list[checks.RowCheck] = [("image_uri", fault, faults == fault) for fault in sorted({*faults} - {""})]
    return checks.split_valid(located, "artworks", files, found)


def _combined(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


class ImageResult(NamedTuple):
    """One image's location, and an empty fault; or, if it is unusable, the URI in the data, and why."""

    location: str
    fault: str


def validate_images(uris: list[str], roots: Sequence[str]) -> list[ImageResult]:
    """Returns each image's location and fault, in the order given; `roots` are as for `locate`."""
    start_ray()
    task = ray.remote(_validate_all)
    tasks = [task.remote(uris[start : start + _TASK_IMAGES], roots) for start in range(0, len(uris), _TASK_IMAGES)]
    results: list[ImageResult] = []
    printed = time.monotonic()
    for each in tasks:
        done: list[ImageResult] = ray.get(each)
        results += done
        if time.monotonic() - printed > _PROGRESS_SECONDS:
            printed = time.monotonic()
            print(f"images: {len(results):,} of {len(uris):,} validated", flush=True)
    if unusable := sum(result.fault != "" for result in results):
        print(f"images: {unusable:,} of {len(uris):,} are unusable", flush=True)
    return results


def _validate_all(uris: list[str], roots: Sequence[str]) -> list[ImageResult]:
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(partial(_validate, roots), uris))


def _validate(roots: Sequence[str], uri: str) -> ImageResult:
    for wait_seconds in (*_RETRY_WAITS_SECONDS, None):
        try:
            location = locate(uri, roots)
            decode(fetch(location), MAX_PIXELS, _RESIZE_TO_PIXELS)
            return ImageResult(location, "")
        except UnusableError as error:
            fault = str(error)
        # The storage may fail for a moment.
        if wait_seconds is None or fault != TRANSIENT:
            break
        time.sleep(wait_seconds)
    return ImageResult(uri, fault)
