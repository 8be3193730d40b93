"""Images of artworks, read from any storage into plain RGB of a bounded size.

An image is untrusted input: its size is checked before it is decoded, only four formats are accepted, and nothing but
its pixels is passed on. Whatever makes an image unusable is an `UnusableError`.
"""

import io
import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from hashlib import blake2b
from threading import Lock

import numpy as np
from cachetools import LRUCache, cached
from numpy.typing import NDArray
from PIL import Image, ImageOps

from artsel_ray.data.image_files import UnusableError, fetch

FORMATS = ("JPEG", "PNG", "WEBP", "GIF")
MAX_PIXELS = 40_000_000
MIN_SIDE, MAX_ASPECT = 16, 50
MAX_SCANS, MAX_SCANNED_PIXELS = 100, 1_200_000_000
DECODE_SECONDS = 20.0
_BAND_PIXELS = 1 << 20
_THREADS = 8  # images that are read at once
_CACHE_BYTES = 512 << 20  # of decoded images that are kept, in each process

UNKNOWN_FORMAT = "no JPEG, PNG, WebP or GIF"
TOO_MANY_PIXELS = "more pixels than are decoded"
TOO_SMALL = f"a side shorter than {MIN_SIDE} pixels, or {MAX_ASPECT} times as long as the other"
TOO_MANY_SCANS = "a JPEG with too many scans"
TOO_SLOW = f"it is not decoded within {DECODE_SECONDS:g} seconds"
BROKEN = "a broken image"

Pixels = NDArray[np.uint8]
"""RGB, [height, width, 3]."""


@dataclass(frozen=True)
class ArtworkImage:
    """An image as a model gets it."""

    pixels: Pixels
    digest: str
    """Hash of the file's content and of the pixels that it was resized to."""


@cached(LRUCache(_CACHE_BYTES, getsizeof=lambda image: image.pixels.nbytes), lock=Lock())
def read(uri: str, resize_to_pixels: int) -> ArtworkImage:
    """Returns an image at a location that `locate` returned, resized to at most about `resize_to_pixels`."""
    try:
        content = fetch(uri)
        pixels = decode(content, MAX_PIXELS, resize_to_pixels)
    except UnusableError as error:
        raise UnusableError(f"{uri.partition('?')[0]}: {error}") from None
    return ArtworkImage(pixels, blake2b(content, digest_size=16, salt=resize_to_pixels.to_bytes(8, "big")).hexdigest())


def read_all(uris: Sequence[str], resize_to_pixels: int) -> list[ArtworkImage]:
    """Returns images as `read` does, several at a time."""
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(partial(read, resize_to_pixels=resize_to_pixels), uris))


def decode(content: bytes, max_pixels: int, resize_to_pixels: int) -> Pixels:
    """Decodes an image: upright, transparency on white, and only the first frame of an animation.

    A larger image than `max_pixels` is refused before it is decoded; the result has at most about `resize_to_pixels`.
    The threads of a process together decode at most 2 * `MAX_PIXELS` at a time, and none reads on after
    `DECODE_SECONDS`.
    """
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            (width, height), kind = image.size, image.format
        if width * height > max_pixels:
            raise UnusableError(TOO_MANY_PIXELS)
        if min(width, height) < MIN_SIDE or max(width, height) > MAX_ASPECT * min(width, height):
            raise UnusableError(TOO_SMALL)
        if kind == "JPEG" and _too_many_scans(content, width * height):
            raise UnusableError(TOO_MANY_SCANS)
        # One large image at a time, and always in the same thread: each thread keeps memory that it has freed.
        if width * height > MAX_PIXELS // _THREADS:
            return _one_thread().submit(_decoded, content, resize_to_pixels).result()
        return _decoded(content, resize_to_pixels)
    except UnusableError:
        raise
    except TimeoutError:
        raise UnusableError(TOO_SLOW) from None
    except Image.DecompressionBombError:
        raise UnusableError(TOO_MANY_PIXELS) from None
    except Image.UnidentifiedImageError:
        raise UnusableError(UNKNOWN_FORMAT) from None
    except Exception:  # noqa: BLE001  # Pillow's decoders raise a dozen kinds, and MemoryError
        raise UnusableError(BROKEN) from None


class _TimedBytes(io.BytesIO):
    """A file in memory that cannot be read any more a while after it was opened: decoders read it in parts."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self._deadline = time.monotonic() + DECODE_SECONDS

    def read(self, size: int | None = -1, /) -> bytes:
        if time.monotonic() > self._deadline:
            raise TimeoutError
        return super().read(size)


@lru_cache(maxsize=1)
def _one_thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, "large-images")


def _too_many_scans(content: bytes, pixels: int) -> bool:
    """Returns whether a progressive JPEG passes over its pixels again and again; usual ones have about ten scans."""
    scans = content.count(b"\xff\xda")
    return scans > MAX_SCANS or scans * pixels > MAX_SCANNED_PIXELS


def _decoded(content: bytes, resize_to_pixels: int) -> Pixels:
    with Image.open(_TimedBytes(content), formats=FORMATS) as image:
        scale = min(1.0, math.sqrt(resize_to_pixels / (image.width * image.height)))
        image.draft(None, (math.ceil(image.width * scale), math.ceil(image.height * scale)))
        image.load()
        return np.asarray(ImageOps.exif_transpose(_resized(image, resize_to_pixels)))


def _resized(image: Image.Image, resize_to_pixels: int) -> Image.Image:
    """Returns an image in RGB, on white, with its rotation still to be done.

    A large one is averaged in squares first, so that it still has twice the sides that are asked for. That works in
    bands: RGB out of transparency takes three copies of the pixels in four channels.
    """
    ratio = math.sqrt(image.width * image.height / resize_to_pixels)
    factor = max(1, int(ratio / 2))
    shrunk = Image.new("RGB", (math.ceil(image.width / factor), math.ceil(image.height / factor)))
    rows = factor * max(1, _BAND_PIXELS // (image.width * factor))
    for top in range(0, image.height, rows):
        band = _to_rgb(image.crop((0, top, image.width, min(top + rows, image.height))))
        shrunk.paste(band.reduce(factor), (0, top // factor))
    if ratio > 1:
        width, height = (max(MIN_SIDE, round(side / ratio)) for side in image.size)
        exact = (0, 0, image.width / factor, image.height / factor)  # the last squares may be incomplete
        shrunk = shrunk.resize((width, height), Image.Resampling.LANCZOS, box=exact)
    shrunk.info = image.info.copy()
    return shrunk


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits of gray, which Pillow would clip at 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        shown = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", shown.size, "white"), shown)
    return image.convert("RGB")
