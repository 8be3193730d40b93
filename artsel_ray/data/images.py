"""Pictures of artworks, read from any storage: what comes out is plain RGB of a bounded size, or why it cannot be used.

A picture is data from outside: its size is looked at before it is decoded, only four formats are known, and nothing of
it is passed on but its pixels.
"""

import io
import math
import struct
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from hashlib import blake2b

import numpy as np
import pyarrow.fs as pafs
from numpy.typing import NDArray
from PIL import Image, ImageOps

from artsel_ray import storage
from artsel_ray.errors import InputError
from artsel_ray.s3 import open_file

FORMATS = ("JPEG", "PNG", "WEBP", "GIF")
MAX_BYTES = 64 * 2**20
MAX_PIXELS = 40_000_000
MIN_SIDE, MAX_ASPECT = 16, 50
# Pictures that are read at once.
_THREADS = 8

MISSING_FILE = "no file there"
UNREADABLE_FILE = "the file cannot be read"
SETTINGS = "a URI with credentials or settings, which are not taken from data"
TOO_MANY_BYTES = f"a file of more than {MAX_BYTES // 2**20} MiB"
UNKNOWN_FORMAT = "no JPEG, PNG, WebP or GIF"
TOO_MANY_PIXELS = "more pixels than are decoded"
TOO_SMALL = f"a side shorter than {MIN_SIDE} pixels, or {MAX_ASPECT} times as long as the other"
BROKEN = "a broken picture"

Pixels = NDArray[np.uint8]
"""RGB: [height, width, 3]."""

# What Pillow's decoders raise for broken files, beside OSError.
_FAULTS = (SyntaxError, ValueError, EOFError, LookupError, TypeError, OverflowError, struct.error, zlib.error)


class UnusableError(Exception):
    """Why a picture cannot be used."""


@dataclass(frozen=True)
class ArtworkImage:
    """A picture as a model is shown it."""

    pixels: Pixels
    digest: str
    """What tells it from every other picture: a hash of the file's content and of the pixels that were kept."""


@lru_cache(maxsize=512)
def read(uri: str, resize_to_pixels: int) -> ArtworkImage:
    """Returns a picture, of at most about so many pixels, from where `locate` says that it is.

    Raises:
        UnusableError: if it cannot be used, naming it.
    """
    try:
        content = fetch(uri)
        pixels = decode(content, MAX_PIXELS, resize_to_pixels)
    except UnusableError as error:
        raise UnusableError(f"{uri.partition('?')[0]}: {error}") from None
    return ArtworkImage(pixels, blake2b(content, digest_size=16, salt=resize_to_pixels.to_bytes(8, "big")).hexdigest())


def read_all(uris: Sequence[str], resize_to_pixels: int) -> list[ArtworkImage]:
    """Returns pictures as `read` does, several at a time."""
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(partial(read, resize_to_pixels=resize_to_pixels), uris))


def locate(uri: str, folder: str) -> str:
    """Returns where a picture is that data names.

    Args:
        uri: out of the data: a URI, a path, or a path below `folder`.
        folder: where the artworks are.

    Raises:
        UnusableError: if it brings settings with it.
    """
    # An endpoint out of data would be sent requests that are signed with the environment's credentials.
    if storage.is_uri(uri) and ("?" in uri or "@" in uri.partition("://")[2].partition("/")[0]):
        raise UnusableError(SETTINGS)
    return uri if storage.is_uri(uri) or uri.startswith("/") else storage.join(folder, uri)


def fetch(uri: str) -> bytes:
    """Returns the content of a picture's file, from where `locate` says that it is.

    Raises:
        UnusableError: if it is absent, too large, or cannot be read.
    """
    try:
        fs, path = storage.filesystem(uri)
        info = fs.get_file_info(path)
        if info.type != pafs.FileType.File:
            raise UnusableError(MISSING_FILE)
        if info.size > MAX_BYTES:
            raise UnusableError(TOO_MANY_BYTES)
        with open_file(fs, path) as file:
            return bytes(file.read(MAX_BYTES))
    except (InputError, OSError, ValueError):
        raise UnusableError(UNREADABLE_FILE) from None


def decode(content: bytes, max_pixels: int, resize_to_pixels: int) -> Pixels:
    """Returns a picture upright, on white where it is transparent, and of an animation the first frame.

    Args:
        max_pixels: a larger picture is not decoded.
        kept_pixels: a larger picture is scaled down to about as many.

    Raises:
        UnusableError: if it is none of the known formats, broken, too large or too small.
    """
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise UnusableError(TOO_MANY_PIXELS)
            if min(width, height) < MIN_SIDE or max(width, height) > MAX_ASPECT * min(width, height):
                raise UnusableError(TOO_SMALL)
            scale = min(1.0, math.sqrt(resize_to_pixels / (width * height)))
            image.draft(None, (math.ceil(width * scale), math.ceil(height * scale)))
            return np.asarray(_scaled(_flat(ImageOps.exif_transpose(image)), resize_to_pixels))
    except Image.DecompressionBombError:
        raise UnusableError(TOO_MANY_PIXELS) from None
    except Image.UnidentifiedImageError:
        raise UnusableError(UNKNOWN_FORMAT) from None
    except (OSError, *_FAULTS):
        raise UnusableError(BROKEN) from None


def _flat(image: Image.Image) -> Image.Image:
    """Returns a picture in RGB."""
    if image.mode.startswith("I"):  # 16 bits of grey, which Pillow would cut off at 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        shown = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", shown.size, "white"), shown)
    return image.convert("RGB")


def _scaled(image: Image.Image, resize_to_pixels: int) -> Image.Image:
    scale = math.sqrt(resize_to_pixels / (image.width * image.height))
    if scale >= 1:
        return image
    size = (max(MIN_SIDE, round(image.width * scale)), max(MIN_SIDE, round(image.height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS)
