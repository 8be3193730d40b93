from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tests.inference.test_vision import PHOTO

from artsel_ray import schema, storage
from artsel_ray.caption import captioner
from artsel_ray.caption.captioner import fill
from artsel_ray.caption.loading import CaptionSettings, KnownCaptions, LoadedShard, Look, load_shard
from artsel_ray.data.catalog import with_source_rows
from artsel_ray.data.images import ArtworkImage

CAPTIONING = CaptionSettings("m@1", "vllm", "auto", 200, 10_000)
FILES = ["first.parquet", "second.parquet"]
Row = tuple[str | None, str | None, str | None, str | None]


def artworks(rows: list[Row]) -> pa.Table:
    named = [dict(zip(schema.ARTWORKS.names, row, strict=False)) for row in rows]
    fields = pa.schema([field.with_nullable(True) for field in schema.ARTWORKS])
    return with_source_rows(pa.Table.from_pylist(named, fields), 1, 100)


def load(folder: Path, rows: list[Row], names: dict[str, str] | None, known: list[str] | None = None) -> LoadedShard:
    return load_shard(
        0, artworks(rows), FILES, str(folder), names, KnownCaptions(known or []), CAPTIONING, max_pixels=10**6
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one photograph, `a.jpg`."""
    (tmp_path / "a.jpg").write_bytes(PHOTO.read_bytes())
    return tmp_path


def test_rows_are_loaded_kept_or_rejected_with_their_reason(folder: Path) -> None:
    rows: list[Row] = [
        ("a0", "t1", None, "a.jpg"),
        ("a1", "t1", "By hand.", " "),
        ("a2", "t1", None, None),
        (None, "t1", None, "a.jpg"),
        ("a4", "t2", None, "a.jpg"),
        ("a5", "t1", None, "b.jpg"),
        ("a6", None, None, "a.jpg"),
        ("a7", "t1", "Old.", "a.jpg"),
    ]
    loaded = load(folder, rows, {"t1": "Up"})
    assert loaded.artworks["artwork_id"].to_pylist() == ["a0", "a1", "a7"]
    assert [look.image is not None for look in loaded.looks] == [True, False, True]
    assert loaded.looks[0].image is not None
    height, width, _ = loaded.looks[0].image.pixels.shape
    assert height * width == pytest.approx(10_000, rel=0.02)
    assert {(row["row"], row["column"], row["reason"]) for row in loaded.invalid.to_pylist()} == {
        (102, "image_uri", "neither a picture nor a caption"),
        (103, "artwork_id", "missing"),
        (104, "title_id", "unknown title"),
        (105, "image_uri", "no file there"),
        (106, "title_id", "missing"),
    }
    # Without titles none is unknown.
    assert load(folder, rows[4:5], None).looks[0].title_name is None


def test_a_caption_is_known_by_picture_name_and_model(folder: Path) -> None:
    (look,) = load(folder, [("a0", "t1", None, "a.jpg")], {"t1": "Up"}).looks
    known: dict[str, list[str | None]] = {"artwork_id": ["x", "y"], "title_id": ["t1", "t1"]}
    known |= {
        "caption": ["By hand.", "A woman."],
        "image_uri": [None] * 2,
        "asset_kind": [None] * 2,
        "model_id": [None, "m@1"],
        "fingerprint": [None, look.fingerprint],
    }
    uri = str(folder / "known.parquet")
    storage.write_table(uri, pa.table(known), "captioned")
    (found,) = load(folder, [("a9", "t1", None, "a.jpg")], {"t1": "Up"}, [uri]).looks
    assert (found.known, found.image) == ("A woman.", None)
    (renamed,) = load(folder, [("a9", "t1", None, "a.jpg")], {"t1": "Heat"}, [uri]).looks
    assert renamed.known is None
    (folder / "a.jpg").write_bytes(PHOTO.read_bytes() + b"\0")
    (changed,) = load(folder, [("a9", "t1", None, "a.jpg")], {"t1": "Up"}, [uri]).looks
    assert changed.known is None


@pytest.mark.parametrize(
    "other",
    [{"model_id": "m@2"}, {"caption_tokens": 100}, {"kept_pixels": 9_999}, {"engine": "transformers"}],
    ids=str,
)
def test_a_fingerprint_depends_on_all_that_a_caption_does(other: dict[str, Any]) -> None:
    changed = CaptionSettings(**(CAPTIONING.__dict__ | other))
    assert changed.fingerprint(b"1", "Up") != CAPTIONING.fingerprint(b"1", "Up")


def test_what_a_model_refuses_or_says_nothing_about_is_rejected() -> None:
    image = ArtworkImage(np.zeros((16, 16, 3), dtype=np.uint8), "")
    looks = [Look("Up", name, image=image) for name in ("f0", "f1", "f2")] + [Look("Up")]
    rows = artworks([(f"a{i}", "t1", "Old.", "x") for i in range(3)] + [("a3", "t1", "By hand.", None)])
    filled, invalid = fill(rows, FILES, looks, ["A boat.", "", None, None], "m@1")
    assert filled.select(["artwork_id", "caption", "model_id", "fingerprint"]).to_pylist() == [
        {"artwork_id": "a0", "caption": "A boat.", "model_id": "m@1", "fingerprint": "f0"},
        {"artwork_id": "a3", "caption": "By hand.", "model_id": None, "fingerprint": None},
    ]
    assert [(row["artwork_id"], row["file"], row["reason"]) for row in invalid.to_pylist()] == [
        ("a2", "second.parquet", captioner.REFUSED),
        ("a1", "second.parquet", captioner.WROTE_NOTHING),
    ]
