"""Images of artworks, read from any storage into plain RGB of a bounded size.

An image is untrusted input: its size is checked before it is decoded, only four formats are accepted, and nothing but
its pixels is passed on. Whatever makes an image unusable is an `UnusableError`.
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
from numpy.typing import NDArray
from PIL import Image, ImageOps

from artsel_ray.data.image_files import UnusableError, fetch

FORMATS = ("JPEG", "PNG", "WEBP", "GIF")
MAX_PIXELS = 40_000_000
MIN_SIDE, MAX_ASPECT = 16, 50
_THREADS = 8  # images that are read at once

UNKNOWN_FORMAT = "no JPEG, PNG, WebP or GIF"
TOO_MANY_PIXELS = "more pixels than are decoded"
TOO_SMALL = f"a side shorter than {MIN_SIDE} pixels, or {MAX_ASPECT} times as long as the other"
BROKEN = "a broken image"

Pixels = NDArray[np.uint8]
"""RGB, [height, width, 3]."""

# Of Pillow's decoders for broken files, in addition to OSError.
_DECODER_ERRORS = (SyntaxError, ValueError, EOFError, LookupError, TypeError, OverflowError, struct.error, zlib.error)


@dataclass(frozen=True)
class ArtworkImage:
    """An image as a model gets it."""

    pixels: Pixels
    digest: str
    """Hash of the file's content and of the pixels that it was resized to."""


@lru_cache(maxsize=512)
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
            return np.asarray(_resized(_to_rgb(ImageOps.exif_transpose(image)), resize_to_pixels))
    except Image.DecompressionBombError:
        raise UnusableError(TOO_MANY_PIXELS) from None
    except Image.UnidentifiedImageError:
        raise UnusableError(UNKNOWN_FORMAT) from None
    except (OSError, *_DECODER_ERRORS):
        raise UnusableError(BROKEN) from None


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits of gray, which Pillow would clip at 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        shown = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", shown.size, "white"), shown)
    return image.convert("RGB")


def _resized(image: Image.Image, resize_to_pixels: int) -> Image.Image:
    scale = math.sqrt(resize_to_pixels / (image.width * image.height))
    width, height = (max(MIN_SIDE, round(side * scale)) for side in image.size)
    return image if scale >= 1 else image.resize((width, height), Image.Resampling.LANCZOS)
