"""Loads a shard of artworks for the captioner: fetches and decodes images, and finds captions that are known."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from hashlib import blake2b

import numpy as np
import pyarrow as pa

from artsel_ray import storage
from artsel_ray.caption.prompts import WORDING
from artsel_ray.config import DEFAULT_LIMITS, RowLimits
from artsel_ray.data import checks
from artsel_ray.data.checked_reader import CheckedReader, RowRange
from artsel_ray.data.image_files import UnusableError, fetch, locate
from artsel_ray.data.images import ArtworkImage, decode

NO_CONTENT = "neither an image nor a caption"
# Each may hold one decoded image of --max-pixels.
_THREADS = 8


@dataclass(frozen=True)
class CaptionSettings:
    """What captions depend on, next to the images and the titles' names."""

    model_id: str
    engine: str
    dtype: str
    caption_tokens: int
    resize_to_pixels: int

    def fingerprint(self, content: bytes, title_name: str | None) -> str:
        """Returns a digest of all that decides an image's caption: equal digests mean equal captions."""
        digest = blake2b(content, digest_size=16).hexdigest()
        settings = asdict(self)
        # The field's first name, so that captions of earlier versions are still reused.
        settings["kept_pixels"] = settings.pop("resize_to_pixels")
        return storage.fingerprint(settings, WORDING, title_name, digest)


class KnownCaptions:
    """Captions by fingerprint, as arrays that processes share through Ray's object store."""

    def __init__(self, files: list[str], limits: RowLimits = DEFAULT_LIMITS) -> None:
        """Reads the parts of earlier runs; an `InputError` if one is broken or has no captioned artworks."""
        reader = CheckedReader(files, "captioned", ["fingerprint", "caption"], limits=limits)
        table = reader.all().valid.drop_null().sort_by("fingerprint").combine_chunks()
        self._fingerprints = np.array(table["fingerprint"].to_pylist(), dtype="S32")
        self._captions = table["caption"]

    def find(self, fingerprint: str) -> str | None:
        """Returns the caption of a fingerprint, or None if it is not known."""
        index = int(np.searchsorted(self._fingerprints, fingerprint.encode()))
        known = index < len(self._fingerprints) and self._fingerprints[index] == fingerprint.encode()
        return self._captions[index].as_py() if known else None


@dataclass(frozen=True)
class LoadedImage:
    """What loading gave for one artwork: a known caption, or the decoded image, or a fault, or nothing to caption."""

    title_name: str | None
    fingerprint: str | None = None
    """None for an artwork without an image."""
    known_caption: str | None = None
    image: ArtworkImage | None = None
    fault: str = ""


@dataclass(frozen=True)
class LoadedShard:
    """The usable artworks of a shard, with `file` and `row`, their images, and the invalid artworks."""

    artworks: pa.Table
    images: list[LoadedImage]
    invalid: pa.Table


@dataclass(frozen=True)
class Sources:
    """What all shards are loaded from."""

    image_roots: Sequence[str]
    """Folders that images may be in; relative paths begin at the first."""
    title_names: Mapping[str, str] | None
    """By title id; artworks of other titles are invalid. None if names are not given."""
    known: KnownCaptions
    captioning: CaptionSettings
    max_pixels: int
    limits: RowLimits = DEFAULT_LIMITS


def load_shard(files: list[str], rows: RowRange, sources: Sources) -> LoadedShard:
    """Fetches the images of a shard's artworks, and decodes those whose captions are not known.

    Raises:
        InputError: if the file is broken or is not a table of artworks.
    """
    row_checks = partial(_row_checks, sources.title_names)
    batch = CheckedReader(files, "artworks", row_checks=row_checks, limits=sources.limits).rows(rows)
    uris, title_ids = batch.valid["image_uri"].to_pylist(), batch.valid["title_id"].to_pylist()
    with ThreadPoolExecutor(_THREADS) as pool:
        images = list(pool.map(partial(_load_image, sources), uris, title_ids))
    faults = np.array([each.fault for each in images], dtype=object)
    found = [("image_uri", fault, faults == fault) for fault in sorted({*faults.tolist()} - {""})]
    usable, unusable = checks.split_valid(batch.valid, "artworks", files, found)
    return LoadedShard(usable, [i for i in images if not i.fault], pa.concat_tables([batch.invalid, unusable]))


def read_title_names(titles: str, limits: RowLimits = DEFAULT_LIMITS) -> dict[str, str]:
    """Returns the names of titles by their ids; of a repeated id the first row counts.

    Raises:
        InputError: if nothing is there, or a file is broken or is not a table of titles.
    """
    required = partial(_required, ["title_id", "name"])
    reader = CheckedReader(storage.list_files(titles), "titles", ["title_id", "name"], required, limits=limits)
    valid = reader.all().valid
    pairs = list(zip(valid["title_id"].to_pylist(), valid["name"].to_pylist(), strict=True))
    return dict(reversed(pairs))


def _required(names: list[str], rows: pa.Table) -> list[checks.RowCheck]:
    return [(name, checks.MISSING, checks.missing(rows[name])) for name in names]


def _row_checks(title_names: Mapping[str, str] | None, rows: pa.Table) -> list[checks.RowCheck]:
    unknown = [title_names is not None and title not in title_names for title in rows["title_id"].to_pylist()]
    return [
        *_required(["artwork_id", "title_id"], rows),
        ("title_id", checks.UNKNOWN_TITLE, np.array(unknown, dtype=bool)),
        ("image_uri", NO_CONTENT, checks.missing(rows["image_uri"]) & checks.missing(rows["caption"])),
    ]


def _load_image(sources: Sources, uri: str | None, title_id: str) -> LoadedImage:
    name = sources.title_names[title_id] if sources.title_names is not None else None
    if uri is None or not uri.strip():
        return LoadedImage(name)
    try:
        content = fetch(locate(uri, sources.image_roots))
        fingerprint = sources.captioning.fingerprint(content, name)
        caption = sources.known.find(fingerprint)
        if caption is not None:
            return LoadedImage(name, fingerprint, known_caption=caption)
        pixels = decode(content, sources.max_pixels, sources.captioning.resize_to_pixels)
        return LoadedImage(name, fingerprint, image=ArtworkImage(pixels, fingerprint))
    except UnusableError as error:
        return LoadedImage(name, fault=str(error))
