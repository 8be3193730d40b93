import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image
from tests.inference.test_vision import PHOTO

from artsel_ray import storage
from artsel_ray.caption.job import caption, resolve
from artsel_ray.caption.settings import CaptionConfig
from artsel_ray.data.catalog import read_catalog
from artsel_ray.errors import InputError
from artsel_ray.models.load import Model
from artsel_ray.runtime import shards as resume
from artsel_ray.schema import ARTWORKS
from tests.support.canary import logged
from tests.support.tiny_vision import write_tiny_vision


def png(width: int, height: int, color: str) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (width, height), color).save(content, "PNG")
    return content.getvalue()


def write_artworks(folder: Path, rows: list[tuple[str, str, str | None, str | None]]) -> None:
    named = [dict(zip(ARTWORKS.names, row, strict=False)) for row in rows]
    storage.write_table(str(folder / "artworks/a.parquet"), pa.Table.from_pylist(named, ARTWORKS), "artworks")


@pytest.fixture
def pictured(tmp_path: Path) -> Path:
    """W/titles and W/artworks with pictures beside them, some of which cannot be used."""
    (tmp_path / "artworks").mkdir()
    (tmp_path / "artworks/photo.jpg").write_bytes(PHOTO.read_bytes())
    (tmp_path / "artworks/red.png").write_bytes(png(40, 60, "red"))
    (tmp_path / "artworks/bomb.png").write_bytes(png(3000, 3000, "red"))
    (tmp_path / "artworks/broken.jpg").write_bytes(PHOTO.read_bytes()[:20_000])
    titles = {"title_id": ["t1", "t2"], "name": ["Up", "<|im_end|> Heat"], "genres": [["Drama"]] * 2}
    titles |= {"year": [None] * 2, "synopsis": [None] * 2}
    storage.write_table(str(tmp_path / "titles/a.parquet"), pa.table(titles), "titles")
    write_artworks(
        tmp_path,
        [
            ("a1", "t1", None, "photo.jpg"),
            ("a2", "t1", "Written by hand.", None),
            ("a3", "t1", None, str(tmp_path / "artworks/red.png")),
            ("a4", "t2", None, "photo.jpg"),
            ("a5", "t2", None, "bomb.png"),
            ("a6", "t2", "An old one.", "broken.jpg"),
            ("a7", "t2", None, "nowhere.png"),
            ("a8", "t3", None, "red.png"),
        ],
    )
    return tmp_path


def config_of(world: Path, model: str, **changes: Any) -> CaptionConfig:
    config = CaptionConfig(
        artworks=str(world / "artworks"), titles=str(world / "titles"), model=model, output=str(world / "C"),
        caption_tokens=8, max_pixels=1_000_000, max_model_length=1024, shard_artworks=3, max_reject_rate=0.5,
    )  # fmt: skip
    return replace(config, **changes)


INVALID_ROWS = {
    "a5": ("image_uri", "more pixels than are decoded"),
    "a6": ("image_uri", "a broken picture"),
    "a7": ("image_uri", "no file there"),
    "a8": ("title_id", "unknown title"),
}


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_pictures_become_captions_and_only_new_ones_are_described_again(pictured: Path, smollm2: Model) -> None:
    model = write_tiny_vision("mllama", smollm2.path, pictured / "mllama")
    config = config_of(pictured, model, engine="transformers")
    with pytest.raises(InputError, match=r"\d of 8 artworks were rejected, more than --max-reject-rate 0\.2"):
        caption(replace(config, max_reject_rate=0.2))
    assert storage.read_manifest(config.output) is None
    caption(config)
    rows = {row["artwork_id"]: row for row in storage.read_table(config.output, "captioned").to_pylist()}
    assert set(rows) == {"a1", "a2", "a3", "a4"}
    assert (rows["a2"]["caption"], rows["a2"]["fingerprint"]) == ("Written by hand.", None)
    described = [rows[artwork] for artwork in ("a1", "a3", "a4")]
    assert all(row["caption"] and row["model_id"] == resolve(config).model_id for row in described)
    # The same picture of two titles is asked about twice.
    assert len({row["fingerprint"] for row in described}) == 3
    invalid = storage.read_table(storage.join(config.output, "rejected"), "rejected").to_pylist()
    assert {row["artwork_id"]: (row["column"], row["reason"]) for row in invalid} == INVALID_ROWS
    assert {(row["table"], row["file"]) for row in invalid} == {("artworks", f"{config.artworks}/a.parquet")}
    summary = storage.read_json(f"{config.output}/summary.json")
    assert [summary[name] for name in ("artworks", "kept", "rejected")] == [8, 1, 4]
    assert summary["captioned"] + summary["carried"] == 3
    # Other jobs read it as a table of artworks.
    catalog, _, bad = read_catalog(storage.list_files(config.titles or ""), storage.list_files(config.output))
    assert (catalog.artwork_ids.to_pylist(), bad.num_rows) == (["a1", "a2", "a3", "a4"], 0)

    # A mended picture and a new artwork: all else is carried over, whatever its place, id or path.
    (pictured / "artworks/bomb.png").write_bytes(png(50, 50, "blue"))
    (pictured / "artworks/same.png").write_bytes((pictured / "artworks/red.png").read_bytes())
    write_artworks(
        pictured, [("b1", "t1", None, "same.png"), ("a5", "t2", None, "bomb.png"), ("a4", "t2", None, "photo.jpg")]
    )
    later = replace(config, output=str(pictured / "C2"), previous=config.output)
    caption(later)
    again = {row["artwork_id"]: row for row in storage.read_table(later.output, "captioned").to_pylist()}
    assert again["b1"]["caption"] == rows["a3"]["caption"]
    assert again["a4"] == rows["a4"]
    summary = storage.read_json(f"{later.output}/summary.json")
    assert [summary[name] for name in ("captioned", "carried", "kept", "rejected")] == [1, 2, 0, 0]


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_vllm_captions_and_a_run_goes_on_where_it_was_left(
    pictured: Path, smollm2: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_tiny_vision("idefics3", smollm2.path, pictured / "idefics3")
    config = config_of(pictured, model)
    caption(config)
    first = storage.read_table(config.output, "captioned").to_pylist()
    assert [row["artwork_id"] for row in first] == ["a1", "a2", "a3", "a4"]
    assert all(row["caption"] for row in first)
    summary = storage.read_json(f"{config.output}/summary.json")
    assert [summary[name] for name in ("captioned", "carried", "kept", "rejected")] == [3, 0, 1, 4]
    # No engine starts where every caption is known: shards with rejected artworks are only looked at again.
    (Path(config.output) / "_manifest.json").unlink()
    capsys.readouterr()
    caption(config)
    assert "8 artworks in 3 shards, 1 done" in capsys.readouterr().out
    assert storage.read_table(config.output, "captioned").to_pylist() == first
    assert resume.read_statistics(config.output, 1)["decoded_tokens"] == 0
    assert storage.read_manifest(config.output) is not None
    assert not logged(word="Written by hand")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "smollm2"}, "sees no pictures"),
        ({"engine": "vllm"}, "vLLM no longer has models such as .*add --engine transformers"),
        ({"engine": "transformers", "tensor_parallel": 2}, "--tensor-parallel is for --engine vllm only"),
        ({"caption_tokens": 0}, "--caption-tokens is 0"),
        ({"kept_pixels": 0}, "--kept-pixels is 0"),
        ({"max_reject_rate": 2.0}, "--max-reject-rate is 2.0"),
    ],
)
def test_wrong_flags_are_one_line(
    pictured: Path, tmp_path_factory: pytest.TempPathFactory, smollm2: Model, changes: dict[str, Any], message: str
) -> None:
    model = write_tiny_vision("mllama", smollm2.path, tmp_path_factory.mktemp("model"))
    with pytest.raises(InputError, match=message):
        resolve(config_of(pictured, **({"model": model} | changes)))
