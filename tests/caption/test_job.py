import contextlib
import io
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image

from artsel_ray import storage
from artsel_ray.caption.job import caption, resolve
from artsel_ray.caption.settings import CaptionConfig
from artsel_ray.config import from_flags
from artsel_ray.data import images
from artsel_ray.data.catalog import read_catalog
from artsel_ray.data.checked_reader import read_table
from artsel_ray.data.image_files import MISSING_FILE, TRANSIENT
from artsel_ray.errors import InputError
from artsel_ray.models.load import Model
from artsel_ray.runtime.shards import INVALID_FOLDER
from artsel_ray.schema import ARTWORKS, CAPTIONED
from tests.support.canary import logged
from tests.support.photo import PHOTO
from tests.support.tiny_vision import write_tiny_vision


def png(width: int, height: int, color: str) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (width, height), color).save(content, "PNG")
    return content.getvalue()


def write_artworks(folder: Path, rows: list[tuple[str, str, str | None, str | None]]) -> None:
    named = [dict(zip(ARTWORKS.names, row, strict=False)) for row in rows]
    storage.write_table(str(folder / "artworks/a.parquet"), pa.Table.from_pylist(named, ARTWORKS), "artworks")


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """world/titles and world/artworks with images next to them, some of which cannot be used."""
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
    flags: dict[str, Any] = {
        "artworks": str(world / "artworks"), "titles": str(world / "titles"), "model": model,
        "output": str(world / "captions"), "caption_tokens": 8, "max_pixels": 1_000_000, "max_model_length": 1024,
        "shard_artworks": 3, "max_reject_rate": 0.5,
    }  # fmt: skip
    return from_flags(CaptionConfig, **flags | changes)


def captioned(output: str) -> list[dict[str, Any]]:
    return read_table(output, "captioned").to_pylist()


INVALID = {
    "a5": ("image_uri", images.TOO_MANY_PIXELS),
    "a6": ("image_uri", images.BROKEN),
    "a7": ("image_uri", MISSING_FILE),
    "a8": ("title_id", "unknown title"),
}


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_images_become_captions_and_only_new_images_are_described_again(world: Path, smollm2: Model) -> None:
    model = write_tiny_vision("mllama", smollm2.path, world / "mllama")
    config = config_of(world, model, engine="transformers")
    with pytest.raises(InputError, match=r"\d of 8 artworks were rejected, more than --max-reject-rate 0\.2"):
        caption(config_of(world, model, engine="transformers", max_reject_rate=0.2))
    assert storage.read_manifest(config.output) is None
    caption(config)
    rows = {row["artwork_id"]: row for row in captioned(config.output)}
    assert set(rows) == {"a1", "a2", "a3", "a4"}
    assert (rows["a2"]["caption"], rows["a2"]["fingerprint"]) == ("Written by hand.", None)
    described = [rows[artwork] for artwork in ("a1", "a3", "a4")]
    assert all(row["caption"] and row["model_id"] == resolve(config).model_id for row in described)
    # The same image of two titles is described twice.
    assert len({row["fingerprint"] for row in described}) == 3
    invalid = read_table(storage.join(config.output, INVALID_FOLDER), "invalid_rows").to_pylist()
    assert {row["artwork_id"]: (row["column"], row["reason"]) for row in invalid} == INVALID
    assert {(row["table"], row["file"]) for row in invalid} == {("artworks", f"{config.artworks}/a.parquet")}
    summary = storage.read_json(f"{config.output}/summary.json")
    assert [summary[name] for name in ("artworks", "kept", "rejected")] == [8, 1, 4]
    assert summary["captioned"] + summary["reused"] == 3
    assert summary["seconds"]["total"] > 0
    assert set(summary["seconds"]["stages"]) == {"fetch", "load", "engine", "caption"}
    # Other jobs read it as a table of artworks.
    catalog, bad = read_catalog(storage.list_files(config.titles or ""), storage.list_files(config.output))
    assert (catalog.artwork_ids.to_pylist(), bad.num_rows) == (["a1", "a2", "a3", "a4"], 0)

    # A fixed image and a new artwork: all other captions are reused, whatever their row, id or path.
    (world / "artworks/bomb.png").write_bytes(png(50, 50, "blue"))
    (world / "artworks/same.png").write_bytes((world / "artworks/red.png").read_bytes())
    write_artworks(
        world, [("b1", "t1", None, "same.png"), ("a5", "t2", None, "bomb.png"), ("a4", "t2", None, "photo.jpg")]
    )
    later = config_of(world, model, engine="transformers", output=str(world / "later"), previous=config.output)
    caption(later)
    again = {row["artwork_id"]: row for row in captioned(later.output)}
    assert again["b1"]["caption"] == rows["a3"]["caption"]
    assert again["a4"] == rows["a4"]
    summary = storage.read_json(f"{later.output}/summary.json")
    assert [summary[name] for name in ("captioned", "reused", "kept", "rejected")] == [1, 2, 0, 0]


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_vllm_captions_and_a_resumed_run_starts_no_engine(
    world: Path, smollm2: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_tiny_vision("idefics3", smollm2.path, world / "idefics3")
    config = config_of(world, model)
    caption(config)
    first = captioned(config.output)
    assert [row["artwork_id"] for row in first] == ["a1", "a2", "a3", "a4"]
    assert all(row["caption"] for row in first)
    summary = storage.read_json(f"{config.output}/summary.json")
    assert [summary[name] for name in ("captioned", "reused", "kept", "rejected")] == [3, 0, 1, 4]
    # What is invalid stays so: no image failed for a passing reason.
    assert summary["transient"] == 0
    (Path(config.output) / "_manifest.json").unlink()
    capsys.readouterr()
    caption(config)
    assert "8 artworks in 3 shards, 3 done" in capsys.readouterr().out
    assert captioned(config.output) == first
    assert storage.read_manifest(config.output) is not None
    assert not logged(word="Written by hand")


@contextlib.contextmanager
def busy_store(content: bytes, is_busy: threading.Event) -> Iterator[str]:
    """An S3 of one object, on loopback, that answers 503 while it is busy."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(503 if is_busy.is_set() else 200)
            shown = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
            body = shown if is_busy.is_set() else content
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Last-Modified", "Wed, 01 May 2024 00:00:00 GMT")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        options = f"endpoint_override=127.0.0.1:{server.server_port}&scheme=http&region=us-east-1"
        yield f"s3://bucket/images?{options}"
        server.shutdown()


@pytest.mark.usefixtures("ray_cluster")
def test_image_of_a_busy_storage_is_transient_and_tried_again_by_the_same_command(
    world: Path, smollm2: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_tiny_vision("mllama", smollm2.path, world / "mllama")
    uri = "s3://bucket/images/photo.jpg"
    write_artworks(world, [("a1", "t1", None, uri), ("a2", "t1", "Written by hand.", None)])
    is_busy, content = threading.Event(), PHOTO.read_bytes()
    is_busy.set()
    with busy_store(content, is_busy) as root:
        flags: dict[str, Any] = {"engine": "transformers", "image_root": (root,), "previous": str(world / "known")}
        config = config_of(world, model, **flags)
        # A caption that is known, so that no engine is started.
        fingerprint = resolve(config).fingerprint(content, "Up")
        row = {"artwork_id": "x", "title_id": "t1", "caption": "A photo.", "image_uri": uri, "fingerprint": fingerprint}
        known = pa.Table.from_pylist([row | {"model_id": "m"}], CAPTIONED)
        storage.write_table(str(world / "known/part-000000.parquet"), known, "captioned")
        storage.write_manifest(str(world / "known"), {"parts": ["part-000000.parquet"]})
        caption(config)
        (invalid,) = read_table(storage.join(config.output, INVALID_FOLDER), "invalid_rows").to_pylist()
        assert (invalid["artwork_id"], invalid["column"], invalid["reason"]) == ("a1", "image_uri", TRANSIENT)
        summary = storage.read_json(f"{config.output}/summary.json")
        assert [summary[name] for name in ("kept", "rejected", "transient")] == [1, 1, 1]
        assert "1 images could not be read this time; the same command tries them again" in capsys.readouterr().out
        is_busy.clear()
        caption(config)
    assert {row["artwork_id"]: row["caption"] for row in captioned(config.output)} == {
        "a1": "A photo.", "a2": "Written by hand.",
    }  # fmt: skip
    summary = storage.read_json(f"{config.output}/summary.json")
    assert [summary[name] for name in ("reused", "rejected", "transient")] == [1, 0, 0]
    assert not storage.find_files(storage.join(config.output, INVALID_FOLDER))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"model": "smollm2"}, "takes no images"),
        ({"engine": "vllm"}, "vLLM no longer has models such as .*add --engine transformers"),
        ({"engine": "transformers", "tensor_parallel": 2}, "--tensor-parallel is for --engine vllm only"),
        ({"caption_tokens": 0}, "--caption-tokens is 0; it must be at least 1"),
        ({"resize_to_pixels": 0}, "--resize-to-pixels is 0; it must be at least 256"),
        ({"max_reject_rate": 2.0}, "--max-reject-rate is 2.0; it must be at most 1"),
    ],
)
def test_wrong_flags_are_one_line(
    world: Path, tmp_path_factory: pytest.TempPathFactory, smollm2: Model, flags: dict[str, Any], message: str
) -> None:
    model = write_tiny_vision("mllama", smollm2.path, tmp_path_factory.mktemp("model"))
    with pytest.raises(InputError, match=message):
        resolve(config_of(world, **({"model": model} | flags)))
