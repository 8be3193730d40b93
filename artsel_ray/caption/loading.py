"""A shard of artworks made ready for the captioner: pictures fetched and decoded, known captions found."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from artsel_ray import storage
from artsel_ray.caption.prompts import WORDING
from artsel_ray.data import checks
from artsel_ray.data.images import ArtworkImage, UnusableError, decode, fetch, locate

NOTHING = "neither a picture nor a caption"
# Each may hold one decoded picture of --max-pixels.
_THREADS = 8


@dataclass(frozen=True)
class CaptionSettings:
    """What captions depend on beside the pictures and the titles' names."""

    model_id: str
    engine: str
    dtype: str
    caption_tokens: int
    resize_to_pixels: int

    def fingerprint(self, content: bytes, title_name: str | None) -> str:
        """Returns what stands for a picture's caption: with the same one, it would be the same caption."""
        digest = blake2b(content, digest_size=16).hexdigest()
        return storage.fingerprint(asdict(self), WORDING, title_name, digest)


class KnownCaptions:
    """Captions by their fingerprints, as arrays that Ray shares between processes."""

    def __init__(self, files: list[str]) -> None:
        """Reads the files of earlier runs.

        Raises:
            InputError: if one is broken or is no table of captioned artworks.
        """
        columns = ["fingerprint", "caption"]
        empty = pa.table({name: pa.array([], pa.string()) for name in columns})
        tables = [table for file in files for _, table in storage.iter_batches(file, "captioned", columns)]
        table = pa.concat_tables([empty, *tables]).drop_null().sort_by("fingerprint").combine_chunks()
        self._fingerprints = np.array(table["fingerprint"].to_pylist(), dtype="S32")
        self._captions = table["caption"]

    def find(self, fingerprint: str) -> str | None:
        """Returns the caption of a fingerprint, if it is known."""
        place = int(np.searchsorted(self._fingerprints, fingerprint.encode()))
        known = place < len(self._fingerprints) and self._fingerprints[place] == fingerprint.encode()
        return self._captions[place].as_py() if known else None


@dataclass(frozen=True)
class LoadedShard:
    """Artworks that are usable, n of them, and those that are not."""

    index: int
    artworks: pa.Table
    """As the table `artworks`, with `file` and `row`."""
    looks: list["Look"]
    """[n]."""
    invalid: pa.Table


class Look(NamedTuple):
    """What was seen of an artwork's picture: nothing, a fault, a known caption, or the picture itself."""

    title_name: str | None
    fingerprint: str | None = None
    known: str | None = None
    image: ArtworkImage | None = None
    fault: str = ""


def load_shard(
    index: int,
    rows: pa.Table,
    files: list[str],
    folder: str,
    names: Mapping[str, str] | None,
    known: KnownCaptions,
    captioning: CaptionSettings,
    max_pixels: int,
) -> LoadedShard:
    """Fetches the pictures of a shard's artworks, and decodes those whose captions are not known.

    Args:
        rows: artworks, with the columns `file`, an index into `files`, and `row`, the number in that file.
        folder: what relative paths of pictures begin at.
        names: names of the titles by their ids, if they are told; artworks of others are then rejected.
    """
    readable, unreadable = checks.split_readable(rows, "artworks", files)
    has_image = ~checks.missing(readable["image_uri"])
    titles = readable["title_id"].to_pylist()
    unknown = np.array([names is not None and title not in names for title in titles], dtype=bool)
    found: list[checks.RowCheck] = [
        ("artwork_id", checks.MISSING, checks.missing(readable["artwork_id"])),
        ("title_id", checks.MISSING, checks.missing(readable["title_id"])),
        ("title_id", checks.UNKNOWN_TITLE, unknown),
        ("image_uri", NOTHING, ~has_image & checks.missing(readable["caption"])),
    ]
    usable, lacking = checks.split_valid(readable, "artworks", files, found)

    def look(uri: str | None, title: str) -> Look:
        name = names[title] if names is not None else None
        if uri is None or not uri.strip():
            return Look(name)
        try:
            content = fetch(locate(uri, folder))
            fingerprint = captioning.fingerprint(content, name)
            caption = known.find(fingerprint)
            if caption is not None:
                return Look(name, fingerprint, known=caption)
            pixels = decode(content, max_pixels, captioning.resize_to_pixels)
            return Look(name, fingerprint, image=ArtworkImage(pixels, fingerprint))
        except UnusableError as error:
            return Look(name, fault=str(error))

    with ThreadPoolExecutor(_THREADS) as pool:
        looks = list(pool.map(look, usable["image_uri"].to_pylist(), usable["title_id"].to_pylist()))
    faults = sorted({each.fault for each in looks} - {""})
    unusable: list[checks.RowCheck] = [
        ("image_uri", fault, np.array([each.fault == fault for each in looks])) for fault in faults
    ]
    usable, refused = checks.split_valid(usable, "artworks", files, unusable)
    invalid = pa.concat_tables([unreadable, lacking, refused])
    return LoadedShard(index, usable, [each for each in looks if not each.fault], invalid)
