"""The engine stage of captioning: a loaded shard becomes artworks with captions."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

import pyarrow as pa
import pyarrow.compute as pc

from artsel_ray.caption.loading import CaptionSettings, LoadedImage, LoadedShard
from artsel_ray.caption.prompts import CaptionPrompts
from artsel_ray.config import EngineSettings
from artsel_ray.data import checks
from artsel_ray.data.image_files import TRANSIENT
from artsel_ray.engines.base import Engine, RefusedError
from artsel_ray.engines.vision import TransformersVisionEngine
from artsel_ray.engines.vllm import VllmEngine
from artsel_ray.errors import InputError
from artsel_ray.models.files import read_object
from artsel_ray.models.load import load, load_tokenizer
from artsel_ray.models.weights import model_length, read_processor
from artsel_ray.runtime.engine_pool import GetEngine, Processed
from artsel_ray.schema import CAPTIONED

NO_TEXT = "the model generated no text for the image"
REFUSED = "the model refuses the image, or it exceeds --max-model-length"
COUNTS = ("artworks", "captioned", "reused", "kept", "rejected", "transient")
"""The counts of a shard that a run's manifest repeats."""


def load_engine(model: str, engine: Literal["vllm", "transformers"], pool: EngineSettings) -> Engine:
    """Loads the model on this machine; an `InputError` if there is none, or nothing can be asked of it."""
    prepared = load(model, options=False)
    if engine == "transformers":
        head = CaptionPrompts(read_processor(prepared.base)).head
        # It has no `logprobs`, which captions do not need.
        return cast(Engine, TransformersVisionEngine(prepared.path, head, pool.dtype))
    length = min(pool.max_model_length, model_length(prepared.base))
    return VllmEngine(prepared, length, 1, pool, images=1)


@dataclass(frozen=True)
class Captioner:
    """Captions loaded shards. Only a shard with a new image asks for the engine."""

    model: str
    files: list[str]
    captioning: CaptionSettings

    def __call__(self, shard: LoadedShard, get_engine: GetEngine) -> Processed:
        """Returns a shard's artworks with captions, and its invalid rows."""
        new = [each for each in shard.images if each.image is not None]
        generated, unfinished = self._describe(get_engine(), new) if new else ([], 0)
        described = iter(generated)
        captions = [each.known_caption if each.image is None else next(described) for each in shard.images]
        artworks, refused = fill(shard.artworks, self.files, shard.images, captions, self.captioning.model_id)
        invalid = pa.concat_tables([shard.invalid, refused]).sort_by("row")
        counts = {
            "artworks": shard.artworks.num_rows + shard.invalid.num_rows,
            "captioned": len(new) - refused.num_rows,
            "reused": sum(each.known_caption is not None for each in shard.images),
            "kept": sum(each.fingerprint is None for each in shard.images),
            "rejected": invalid.num_rows,
            "transient": invalid["reason"].to_pylist().count(TRANSIENT),
            "unfinished": unfinished,
        }
        return Processed(artworks, invalid, counts)

    @cached_property
    def _prompts(self) -> tuple[CaptionPrompts, list[int]]:
        path = load_tokenizer(self.model, options=False)
        processor = read_processor(path)
        return CaptionPrompts(processor), stop_tokens(path, processor.tokenizer)

    def _describe(self, engine: Engine, images: Sequence[LoadedImage]) -> tuple[list[str | None], int]:
        """Returns a caption for each image, None where the model refuses it, and how many texts are unfinished."""
        (prompts, _), limit = self._prompts, self.captioning.caption_tokens
        generated = self._generate(engine, images)
        texts = [None if ids is None else prompts.caption(ids, len(ids) < limit) for ids in generated]
        return texts, sum(ids is not None and len(ids) >= limit for ids in generated)

    def _generate(self, engine: Engine, images: Sequence[LoadedImage]) -> list[list[int] | None]:
        prompts, stop = self._prompts
        questions = [prompts.question(each.title_name) for each in images]
        shown = [[each.image] for each in images if each.image is not None]
        try:
            return [*engine.generate(questions, self.captioning.caption_tokens, stop, images=shown)]
        except RefusedError:  # a batch for one of its images
            return [None] if len(images) == 1 else [ids for each in images for ids in self._generate(engine, [each])]


def stop_tokens(path: Path, tokenizer: Any) -> list[int]:
    """Returns the ids that end a text: the tokenizer's, and those of the model's generation config.

    Raises:
        InputError: if there are none.
    """
    ends = {tokenizer.eos_token_id}
    if (path / "generation_config.json").is_file():
        more = read_object(path / "generation_config.json").get("eos_token_id")
        ends |= set(more if isinstance(more, list) else [more])
    if ends == {None}:
        raise InputError(f"{path}: no file names an end token; add eos_token to tokenizer_config.json")
    return sorted(ends - {None})


def fill(
    artworks: pa.Table, files: list[str], images: Sequence[LoadedImage], captions: Sequence[str | None], model_id: str
) -> tuple[pa.Table, pa.Table]:
    """Returns artworks with their captions, and the invalid rows of those whose images got none.

    A caption is None where the model refuses the image. Artworks without an image keep the caption that they have.
    """
    fingerprints = pa.array([each.fingerprint for each in images], pa.string())
    generated, has_image = pa.array(captions, pa.string()), fingerprints.is_valid()
    columns = dict(zip(artworks.column_names, artworks.columns, strict=True)) | {"fingerprint": fingerprints}
    columns["caption"] = pc.if_else(has_image, generated, artworks["caption"])
    columns["model_id"] = pc.if_else(has_image, model_id, pa.scalar(None, pa.string()))
    refused_n = checks.mask(pc.and_(has_image, generated.is_null()))
    empty_n = checks.mask(pc.and_(has_image, pc.equal(generated, "")))
    found = [("image_uri", REFUSED, refused_n), ("caption", NO_TEXT, empty_n)]
    valid, invalid = checks.split_valid(pa.table(columns), "artworks", files, found)
    return valid.select(CAPTIONED.names), invalid
