import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from artsel_ray.data import images
from artsel_ray.data.image_files import UNREADABLE_FILE, UnusableError
from artsel_ray.data.images import decode

SAMPLES = Path(matplotlib.get_data_path()) / "sample_data"
PHOTO = (SAMPLES / "grace_hopper.jpg").read_bytes()
LOGO = (SAMPLES / "logo2.png").read_bytes()
MUCH = 10**7


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def near(pixel: np.ndarray, color: tuple[int, int, int], by: int = 8) -> bool:
    return bool((np.abs(pixel.astype(int) - color) <= by).all())


def test_photograph_decodes_to_its_pixels() -> None:
    expected = np.asarray(Image.open(io.BytesIO(PHOTO)))
    assert np.array_equal(decode(PHOTO, MUCH, MUCH), expected)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
def test_four_formats_are_decoded(kind: str) -> None:
    pixels = decode(encoded(Image.new("RGB", (40, 20), (200, 30, 30)), kind), MUCH, MUCH)
    assert (pixels.shape, pixels.dtype) == ((20, 40, 3), np.uint8)
    assert near(pixels[10, 20], (200, 30, 30))


@pytest.mark.parametrize(
    ("image", "kind", "expected"),
    [
        (Image.new("CMYK", (20, 20), (0, 255, 255, 0)), "JPEG", (255, 0, 0)),
        (Image.new("L", (20, 20), 128), "PNG", (128, 128, 128)),
        (Image.new("1", (20, 20), 1), "PNG", (255, 255, 255)),
        (Image.fromarray(np.full((20, 20), 128 * 256, dtype=np.uint16)), "PNG", (128, 128, 128)),
        # Transparent pixels are white; half-transparent ones are half white.
        (Image.new("RGBA", (20, 20), (255, 0, 0, 0)), "PNG", (255, 255, 255)),
        (Image.new("RGBA", (20, 20), (255, 0, 0, 128)), "PNG", (255, 127, 127)),
        (Image.new("RGBA", (20, 20), (255, 0, 0, 0)), "WEBP", (255, 255, 255)),
        (Image.new("LA", (20, 20), (0, 0)), "PNG", (255, 255, 255)),
    ],
    ids=["cmyk", "gray", "bits", "gray16", "clear", "half", "clear webp", "clear gray"],
)
def test_every_color_mode_becomes_rgb(image: Image.Image, kind: str, expected: tuple[int, int, int]) -> None:
    pixels = decode(encoded(image, kind), MUCH, MUCH)
    assert pixels.shape == (20, 20, 3)
    assert near(pixels[10, 10], expected, 12)


def test_transparent_palette_color_is_on_white() -> None:
    image = Image.new("P", (20, 20), 1)
    image.putpalette([0, 0, 0, 255, 0, 0])
    assert near(decode(encoded(image, "PNG", transparency=1), MUCH, MUCH)[5, 5], (255, 255, 255))
    assert near(decode(encoded(image, "PNG"), MUCH, MUCH)[5, 5], (255, 0, 0))


def test_animation_decodes_to_its_first_frame() -> None:
    frames = [Image.new("RGB", (20, 20), color) for color in ("red", "blue")]
    for kind in ("GIF", "WEBP", "PNG"):
        content = encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=100)
        assert near(decode(content, MUCH, MUCH)[10, 10], (255, 0, 0)), kind


def test_rotated_image_is_upright() -> None:
    image = Image.new("RGB", (60, 40), "blue")
    image.paste("red", (0, 0, 60, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown a quarter clockwise
    pixels = decode(encoded(image, "JPEG", exif=exif, quality=95), MUCH, MUCH)
    assert pixels.shape == (60, 40, 3)
    assert near(pixels[30, 35], (255, 0, 0), 40)
    assert near(pixels[30, 5], (0, 0, 255), 40)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_large_image_is_resized(kind: str) -> None:
    image = Image.open(io.BytesIO(PHOTO)).resize((2000, 1000))
    pixels = decode(encoded(image, kind), MUCH, 20_000)
    assert pixels.shape == (100, 200, 3)
    expected = np.asarray(image.resize((200, 100), Image.Resampling.LANCZOS)).astype(int)
    assert np.abs(pixels.astype(int) - expected).mean() < 4


def test_decompression_bomb_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    large, bomb = (encoded(Image.new("1", (side, side)), "PNG") for side in (1000, 14_000))
    assert len(bomb) < 100_000

    decoded = []
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: decoded.append(self.size))
    for content, most in ((large, 999_999), (bomb, 999_999), (bomb, 10**9)):
        with pytest.raises(UnusableError, match=images.TOO_MANY_PIXELS):
            decode(content, most, 1000)
    assert decoded == []
    with pytest.raises(UnusableError, match=images.BROKEN):
        decode(large, 1_000_000, 1000)
    assert decoded


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", images.UNKNOWN_FORMAT),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", images.UNKNOWN_FORMAT),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n", images.UNKNOWN_FORMAT),
        (encoded(Image.new("RGB", (40, 40)), "TIFF"), images.UNKNOWN_FORMAT),
        (encoded(Image.new("RGB", (40, 40)), "BMP"), images.UNKNOWN_FORMAT),
        (PHOTO[: len(PHOTO) // 2], images.BROKEN),
        (LOGO[: len(LOGO) // 2], images.BROKEN),
        (encoded(Image.new("RGB", (1, 1)), "GIF"), images.TOO_SMALL),
        (encoded(Image.new("RGB", (2000, 20)), "PNG"), images.TOO_SMALL),
    ],
)
def test_unusable_image_has_a_reason(content: bytes, reason: str) -> None:
    with pytest.raises(UnusableError) as error:
        decode(content, MUCH, MUCH)
    assert str(error.value) == reason


SMALL = {kind: encoded(Image.open(io.BytesIO(PHOTO)).resize((48, 64)), kind) for kind in ("JPEG", "PNG", "WEBP", "GIF")}


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(sorted(SMALL)), st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=8)), max_size=4))
def test_any_bytes_decode_or_are_unusable(kind: str, changes: list[tuple[float, bytes]]) -> None:
    content = bytearray(SMALL[kind])
    for share, new in changes:
        start = int(share * len(content))
        content[start : start + len(new)] = new
    try:
        pixels = decode(bytes(content), 10**5, 10**4)
    except UnusableError:
        return
    assert pixels.shape[2] == 3
    assert pixels.shape[0] * pixels.shape[1] < 1.2 * 10**4


def test_image_is_read_once_and_its_digest_depends_on_content_and_size(tmp_path: Path) -> None:
    for name, content in (("a.jpg", PHOTO), ("b.jpg", PHOTO), ("c.png", LOGO)):
        (tmp_path / name).write_bytes(content)
    first, same, other = images.read_all([str(tmp_path / name) for name in ("a.jpg", "b.jpg", "c.png")], 10_000)
    assert first.digest == same.digest != other.digest
    assert np.array_equal(first.pixels, decode(PHOTO, MUCH, 10_000))
    (tmp_path / "a.jpg").unlink()
    assert images.read_all([str(tmp_path / "a.jpg")], 10_000)[0] is first
    assert images.read(str(tmp_path / "b.jpg"), 5_000).digest != first.digest


def test_kept_images_are_bounded_by_their_bytes(tmp_path: Path) -> None:
    cache: Any = images.read.cache
    cache.clear()
    for name in ("a", "b"):
        (tmp_path / f"{name}.jpg").write_bytes(PHOTO)
        images.read(str(tmp_path / f"{name}.jpg"), 10_000)
    assert cache.currsize == sum(image.pixels.nbytes for image in cache.values()) > 0
    assert cache.maxsize == 1 << 29


def test_unusable_image_is_named_without_the_settings_of_its_storage() -> None:
    with pytest.raises(UnusableError, match=f"^ftp://host/a.jpg: {UNREADABLE_FILE}$"):
        images.read("ftp://host/a.jpg?key=secret", 1_000)


def test_large_images_of_many_threads_take_the_memory_of_one() -> None:
    code = """
import io, resource, sys
from concurrent.futures import ThreadPoolExecutor
from PIL import Image
from artsel_ray.data.images import decode
def encoded(image, kind, **options):
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()
content = encoded(Image.new("P", (6400, 6200)), "GIF", transparency=0)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with ThreadPoolExecutor(8) as pool:
    shapes = [pixels.shape for pixels in pool.map(lambda _: decode(content, 40_000_000, 10_000), range(4))]
assert shapes == [(98, 102, 3)] * 4
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 600 * 2**10


def test_jpeg_with_many_scans_is_not_decoded() -> None:
    progressive = encoded(Image.open(io.BytesIO(PHOTO)), "JPEG", progressive=True)
    assert decode(progressive, MUCH, MUCH).shape[2] == 3
    first = progressive.index(b"\xff\xda")
    many = progressive[:-2] + progressive[first:-2] * 20 + progressive[-2:]
    with pytest.raises(UnusableError, match=images.TOO_MANY_SCANS):
        decode(many, MUCH, MUCH)


def test_decoder_that_takes_too_long_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "DECODE_SECONDS", -1.0)
    with pytest.raises(UnusableError, match=images.TOO_SLOW):
        decode(PHOTO, MUCH, MUCH)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_bands_and_squares_change_nothing_that_can_be_seen(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    photo = Image.open(io.BytesIO(PHOTO)).resize((501, 603))
    image = (
        Image.fromarray(np.asarray(photo.convert("L")).astype(np.uint16) << 8)
        if mode == "I;16"
        else photo.convert(mode)
    )
    content = encoded(image, "JPEG" if mode == "CMYK" else "PNG")
    complete, small = decode(content, MUCH, MUCH), decode(content, MUCH, 1000)
    monkeypatch.setattr(images, "_BAND_PIXELS", 5000)
    assert np.array_equal(decode(content, MUCH, MUCH), complete)
    assert np.array_equal(decode(content, MUCH, 1000), small)
    expected = Image.fromarray(complete).resize(small.shape[1::-1], Image.Resampling.LANCZOS)
    assert np.abs(small.astype(int) - np.asarray(expected).astype(int)).mean() < (6 if mode == "CMYK" else 4)  # a JPEG
