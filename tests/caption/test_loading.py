from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from artsel_ray import schema, storage
from artsel_ray.caption.loading import (
    CaptionSettings,
    KnownCaptions,
    LoadedShard,
    Sources,
    load_shard,
    read_title_names,
)
from artsel_ray.data.checked_reader import RowRange
from tests.support.photo import PHOTO

CAPTIONING = CaptionSettings("m@1", "vllm", "auto", 200, 10_000)
Row = tuple[str | None, str | None, str | None, str | None]
# The shard's rows are the second file's, after this many others.
BEFORE = 100


def load(folder: Path, rows: list[Row], names: dict[str, str] | None, known: list[str] | None = None) -> LoadedShard:
    named = [dict(zip(schema.ARTWORKS.names, row, strict=False)) for row in rows]
    fields = pa.schema([field.with_nullable(True) for field in schema.ARTWORKS])
    table = pa.Table.from_pylist([{}] * BEFORE + named, fields)
    pq.write_table(table, folder / "second.parquet")
    sources = Sources([str(folder)], names, KnownCaptions(known or []), CAPTIONING, max_pixels=10**6)
    files = [str(folder / "first.parquet"), str(folder / "second.parquet")]
    return load_shard(files, RowRange(1, BEFORE, len(rows)), sources)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one photograph, `a.jpg`."""
    (tmp_path / "a.jpg").write_bytes(PHOTO.read_bytes())
    return tmp_path


def test_rows_are_loaded_kept_or_rejected(folder: Path) -> None:
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
    assert [each.image is not None for each in loaded.images] == [True, False, True]
    assert loaded.images[0].image is not None
    height, width, _ = loaded.images[0].image.pixels.shape
    assert height * width == pytest.approx(10_000, rel=0.02)
    assert {(row["row"], row["column"], row["reason"]) for row in loaded.invalid.to_pylist()} == {
        (102, "image_uri", "neither an image nor a caption"),
        (103, "artwork_id", "missing"),
        (104, "title_id", "unknown title"),
        (105, "image_uri", "no file there"),
        (106, "title_id", "missing"),
    }
    assert {row["file"] for row in loaded.invalid.to_pylist()} == {str(folder / "second.parquet")}


def test_without_names_no_title_is_unknown(folder: Path) -> None:
    (loaded,) = load(folder, [("a4", "t2", None, "a.jpg")], None).images
    assert loaded.title_name is None


def test_caption_is_known_by_image_name_and_model(folder: Path) -> None:
    rows: list[Row] = [("a0", "t1", None, "a.jpg")]
    (loaded,) = load(folder, rows, {"t1": "Up"}).images
    known: dict[str, list[str | None]] = {"artwork_id": ["x", "y"], "title_id": ["t1", "t1"]}
    known |= {
        "caption": ["By hand.", "A woman."],
        "image_uri": [None] * 2,
        "asset_kind": [None] * 2,
        "model_id": [None, "m@1"],
        "fingerprint": [None, loaded.fingerprint],
    }
    uri = str(folder / "known.parquet")
    storage.write_table(uri, pa.table(known), "captioned")
    (found,) = load(folder, [("a9", "t1", None, "a.jpg")], {"t1": "Up"}, [uri]).images
    assert (found.known_caption, found.image) == ("A woman.", None)
    (renamed,) = load(folder, [("a9", "t1", None, "a.jpg")], {"t1": "Heat"}, [uri]).images
    assert renamed.known_caption is None
    (folder / "a.jpg").write_bytes(PHOTO.read_bytes() + b"\0")
    (changed,) = load(folder, [("a9", "t1", None, "a.jpg")], {"t1": "Up"}, [uri]).images
    assert changed.known_caption is None


def test_title_names_skip_invalid_rows_and_repeated_ids(tmp_path: Path) -> None:
    table = pa.table(
        {"title_id": ["t1", "t1", "t2", None, "t3"], "name": ["Up", "Down", " ", "Nobody's", "Heat"]}
    ).append_column("genres", pa.array([["Drama"]] * 5))
    pq.write_table(table, tmp_path / "titles.parquet")
    assert read_title_names(str(tmp_path)) == {"t1": "Up", "t3": "Heat"}


@pytest.mark.parametrize(
    "other",
    [{"model_id": "m@2"}, {"caption_tokens": 100}, {"resize_to_pixels": 9_999}, {"engine": "transformers"}],
    ids=str,
)
def test_fingerprint_depends_on_all_caption_settings(other: dict[str, Any]) -> None:
    changed = CaptionSettings(**(CAPTIONING.__dict__ | other))
    assert changed.fingerprint(b"1", "Up") != CAPTIONING.fingerprint(b"1", "Up")


def test_fingerprints_are_those_of_earlier_versions() -> None:
    # Else every stored caption would be computed again.
    assert CAPTIONING.fingerprint(b"1", "Up") == "492ce5e2103bf5ad6a7755b0e29dd3ec"
    assert CAPTIONING.fingerprint(b"1", None) == "cefc51d5efcb903a51970f076396dc71"
