"""The actors of captioning: they load shards with their pictures, describe these with an engine, and write them."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from artsel_ray.caption.loading import CaptionSettings, LoadedShard, Look, load_shard
from artsel_ray.caption.prompts import CaptionPrompts
from artsel_ray.caption.settings import CaptionConfig
from artsel_ray.data import checks
from artsel_ray.data.row_ranges import read_shard, write_shard
from artsel_ray.engines.vision import TransformersVisionEngine
from artsel_ray.engines.vllm import Usage, VllmEngine
from artsel_ray.errors import InputError, one_line
from artsel_ray.models.load import load
from artsel_ray.runtime.task_result import answer
from artsel_ray.schema import CAPTIONED
from artsel_ray.score.stages import MAX_ENGINE_STARTS, boxed, unboxed

COUNTS = ("artworks", "captioned", "carried", "kept", "rejected")
WROTE_NOTHING = "the model wrote nothing about the picture"
REFUSED = "the model refuses the picture, or it exceeds --max-model-length"


class Loader:
    """Loads shards: their artworks and pictures."""

    def __init__(self, config: CaptionConfig, captioning: CaptionSettings, shared: ray.ObjectRef) -> None:
        """Takes the data from the object store: files, shards, titles' names and known captions."""
        self._files, self._shards, self._names, self._known = ray.get(shared)
        self._config, self._captioning = config, captioning

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Loads one shard."""
        begun, index, config = time.perf_counter(), int(batch["shard"][0]), self._config
        loaded: LoadedShard | InputError
        try:
            rows = read_shard(self._files, "artworks", self._shards[index])
            loaded = load_shard(
                index, rows, self._files, config.artworks, self._names, self._known, self._captioning, config.max_pixels
            )
        except InputError as error:  # goes on to the driver as a value
            loaded = error
        return {"loaded": boxed(loaded), "load_seconds": [time.perf_counter() - begun]}


class Captioner:
    """Captions loaded shards and writes them; its engine starts with the first picture that needs it."""

    def __init__(self, config: CaptionConfig, captioning: CaptionSettings, files: list[str], starts: Any) -> None:
        """Takes the run's flags, the artworks' files, and the actor that counts the engines' starts."""
        self._config, self._captioning, self._files, self._starts = config, captioning, files, starts
        self._engine: VllmEngine | TransformersVisionEngine | None = None
        self._prompts: CaptionPrompts
        self._stop: list[int]

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Captions and writes one shard, and returns its statistics."""
        load_seconds = float(batch["load_seconds"][0])
        written = answer(lambda loaded: self._caption(loaded, load_seconds), unboxed(batch["loaded"]))
        return {name: [value] for name, value in written.items()}

    def _caption(self, loaded: LoadedShard | InputError, load_seconds: float) -> dict[str, float]:
        if isinstance(loaded, InputError):
            raise loaded
        begun, looks = time.perf_counter(), loaded.looks
        new = [place for place, look in enumerate(looks) if look.image is not None]
        captions: list[str | None] = [look.known for look in looks]
        described, unfinished = self._describe([looks[place] for place in new])
        for place, text in zip(new, described, strict=True):
            captions[place] = text
        captioned, refused = fill(loaded.artworks, self._files, looks, captions, self._captioning.model_id)
        counts = {
            "artworks": loaded.artworks.num_rows + loaded.invalid.num_rows,
            "captioned": len(new) - refused.num_rows,
            "carried": sum(look.known is not None for look in looks),
            "kept": sum(look.fingerprint is None for look in looks),
            "rejected": loaded.invalid.num_rows + refused.num_rows,
        }
        usage = self._engine.take_usage() if self._engine else Usage()
        statistics = {
            **counts,
            "unfinished": unfinished,
            "prompt_tokens": usage.prompt_tokens,
            "decoded_tokens": usage.decoded_tokens,
            "load_seconds": load_seconds,
            "engine_seconds": usage.seconds,
            "shard_seconds": time.perf_counter() - begun,
        }
        invalid = pa.concat_tables([loaded.invalid, refused]).sort_by("row")
        write_shard(self._config.output, loaded.index, "captioned", captioned, invalid, statistics)
        self._starts.clear.remote()
        return statistics

    def _describe(self, looks: Sequence[Look]) -> tuple[list[str | None], int]:
        """Returns a caption for each picture, None where the model refuses it, and how many were not finished."""
        if not looks:
            return [], 0
        engine = self._engine or self._start()
        most = self._config.caption_tokens
        written: list[list[int] | None] = []
        try:
            written += self._write(engine, looks)
        except ValueError:  # an engine refuses all for one
            for look in looks:
                try:
                    written += self._write(engine, [look])
                except ValueError:
                    written.append(None)
        texts = [None if ids is None else self._prompts.caption(ids, len(ids) < most) for ids in written]
        return texts, sum(ids is not None and len(ids) >= most for ids in written)

    def _write(self, engine: VllmEngine | TransformersVisionEngine, looks: Sequence[Look]) -> list[list[int]]:
        asked = [self._prompts.question(look.title_name) for look in looks]
        images = [[look.image] for look in looks if look.image is not None]
        return engine.write(asked, self._config.caption_tokens, self._stop, images=images)

    def _start(self) -> VllmEngine | TransformersVisionEngine:
        from transformers import AutoConfig, AutoProcessor, GenerationConfig

        config = self._config
        try:
            if ray.get(self._starts.add.remote()) > MAX_ENGINE_STARTS * config.engines:
                raise InputError("every time it dies with no shard done, perhaps for lack of memory; see Ray's logs")
            path = load(config.model, options=False).path
            processor = AutoProcessor.from_pretrained(path, trust_remote_code=False)
            self._prompts = CaptionPrompts(processor)
            ends = {processor.tokenizer.eos_token_id}
            if (path / "generation_config.json").is_file():
                also = GenerationConfig.from_pretrained(path).eos_token_id
                ends |= set(also if isinstance(also, list) else [also])
            self._stop = sorted(ends - {None})
            if config.engine == "transformers":
                self._engine = TransformersVisionEngine(path, self._prompts.head, config.dtype)
            else:
                text = AutoConfig.from_pretrained(path, trust_remote_code=False).get_text_config()
                length = min(config.max_model_length, text.max_position_embeddings)
                self._engine = VllmEngine(
                    path, length, 1, config.dtype, tensor_parallel=config.tensor_parallel, images=1
                )
        except (InputError, ValueError, RuntimeError, ImportError, OSError) as error:
            raise InputError(f"the engine does not start: {one_line(error)}") from None
        return self._engine


def fill(
    artworks: pa.Table, files: list[str], looks: Sequence[Look], captions: Sequence[str | None], model_id: str
) -> tuple[pa.Table, pa.Table]:
    """Returns artworks with their captions, and the rejected rows of those whose pictures got none.

    Artworks without a picture keep the caption that they have.
    """
    pictured_n = np.array([look.fingerprint is not None for look in looks], dtype=bool)
    empty_n = np.array([not caption for caption in captions], dtype=bool) & pictured_n
    refused_n = np.array([caption is None for caption in captions], dtype=bool) & pictured_n
    own = artworks["caption"].to_pylist()
    filled = [caption if pictured else kept for caption, pictured, kept in zip(captions, pictured_n, own, strict=True)]
    columns = {
        "caption": filled,
        "model_id": [model_id if pictured else None for pictured in pictured_n],
        "fingerprint": [look.fingerprint for look in looks],
    }
    table = artworks.drop_columns("caption")
    for name, values in columns.items():
        table = table.append_column(name, pa.array(values, pa.string()))
    found: list[checks.RowCheck] = [("image_uri", REFUSED, refused_n), ("caption", WROTE_NOTHING, empty_n)]
    kept, invalid = checks.split_valid(table, "artworks", files, found)
    return kept.select(CAPTIONED.names), invalid
