from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from transformers import AutoTokenizer, GenerationConfig

from artsel_ray import schema
from artsel_ray.caption.captioner import NO_TEXT, REFUSED, Captioner, fill, stop_tokens
from artsel_ray.caption.loading import CaptionSettings, LoadedImage, LoadedShard
from artsel_ray.data.checked_reader import with_source_rows
from artsel_ray.data.images import ArtworkImage
from artsel_ray.engines.base import Engine, RefusedError, Sampling, UsageCounter
from artsel_ray.models.load import Model
from artsel_ray.prompts.tokenizer import Ids
from tests.support.tiny_vision import write_tiny_vision

FILES = ["first.parquet", "second.parquet"]
Row = tuple[str | None, str | None, str | None, str | None]
CAPTIONING = CaptionSettings("m@1", "vllm", "auto", caption_tokens=3, resize_to_pixels=10_000)


def artworks(rows: list[Row]) -> pa.Table:
    named = [dict(zip(schema.ARTWORKS.names, row, strict=False)) for row in rows]
    fields = pa.schema([field.with_nullable(True) for field in schema.ARTWORKS])
    return with_source_rows(pa.Table.from_pylist(named, fields), 1, 100)


def image(digest: str = "") -> ArtworkImage:
    return ArtworkImage(np.zeros((16, 16, 3), dtype=np.uint8), digest)


def test_refused_images_and_empty_texts_are_rejected() -> None:
    images = [LoadedImage("Up", name, image=image()) for name in ("f0", "f1", "f2")] + [LoadedImage("Up")]
    rows = artworks([(f"a{i}", "t1", "Old.", "x") for i in range(3)] + [("a3", "t1", "By hand.", None)])
    filled, invalid = fill(rows, FILES, images, ["A boat.", "", None, None], "m@1")
    assert filled.select(["artwork_id", "caption", "model_id", "fingerprint"]).to_pylist() == [
        {"artwork_id": "a0", "caption": "A boat.", "model_id": "m@1", "fingerprint": "f0"},
        {"artwork_id": "a3", "caption": "By hand.", "model_id": None, "fingerprint": None},
    ]
    assert [(row["artwork_id"], row["file"], row["reason"]) for row in invalid.to_pylist()] == [
        ("a2", "second.parquet", REFUSED),
        ("a1", "second.parquet", NO_TEXT),
    ]


class RefusingEngine:
    """Generates the ids of a text for each image; refuses any batch with the image `bad`, as vLLM does."""

    def __init__(self, ids: list[int]) -> None:
        self.usage, self.ids = UsageCounter(), ids

    def generate(
        self,
        prompts: Sequence[Ids],
        max_tokens: int,
        stop: Sequence[int],
        sampling: Sampling | None = None,
        images: Sequence[Sequence[ArtworkImage]] = (),
    ) -> list[list[int]]:
        assert len(prompts) == len(images)
        if any(each.digest == "bad" for shown in images for each in shown):
            raise RefusedError("ValueError")
        return [self.ids[:max_tokens]] * len(prompts)

    def logprobs(self, *args: Any, **values: Any) -> list[np.ndarray]:
        raise NotImplementedError


def no_engine() -> Engine:
    raise AssertionError("the engine was started")


@pytest.fixture(scope="module")
def model(smollm2: Model, tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_tiny_vision("idefics3", smollm2.path, tmp_path_factory.mktemp("model"))


def test_one_refused_image_costs_no_other_its_caption(model: str) -> None:
    images = [LoadedImage("Up", name, image=image(name)) for name in ("f0", "bad", "f2")]
    rows = artworks([(f"a{i}", "t1", None, "x") for i in range(3)])
    captioner = Captioner(model, FILES, CAPTIONING)
    ids = AutoTokenizer.from_pretrained(model)("A sky", add_special_tokens=False)["input_ids"]
    captioned, invalid, counts = captioner(
        LoadedShard(rows, images, schema.INVALID_ROWS.empty_table()), lambda: RefusingEngine(ids)
    )
    assert captioned["artwork_id"].to_pylist() == ["a0", "a2"]
    assert captioned["caption"].to_pylist() == ["A sky"] * 2
    assert invalid["reason"].to_pylist() == [REFUSED]
    expected = {"artworks": 3, "captioned": 2, "reused": 0, "kept": 0, "rejected": 1, "transient": 0, "unfinished": 0}
    assert counts == expected


def test_shard_without_new_images_starts_no_engine() -> None:
    images = [LoadedImage("Up", "f0", known_caption="A boat."), LoadedImage("Up")]
    rows = artworks([("a0", "t1", None, "x"), ("a1", "t1", "By hand.", None)])
    captioner = Captioner("no such model", FILES, CAPTIONING)
    captioned, _, counts = captioner(LoadedShard(rows, images, schema.INVALID_ROWS.empty_table()), no_engine)
    assert captioned["caption"].to_pylist() == ["A boat.", "By hand."]
    assert (counts["captioned"], counts["reused"], counts["kept"]) == (0, 1, 1)


def test_generation_config_adds_stop_tokens(model: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model)
    folder = tmp_path_factory.mktemp("stop")
    assert stop_tokens(folder, tokenizer) == [tokenizer.eos_token_id]
    GenerationConfig(eos_token_id=[7, 9]).save_pretrained(folder)
    assert stop_tokens(folder, tokenizer) == sorted({tokenizer.eos_token_id, 7, 9})
