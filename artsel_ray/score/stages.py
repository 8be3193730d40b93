"""The actors of bulk scoring: they render shards, score them with an engine, and write them.

Tasks would do for rendering and writing, but Ray ends idle workers, and each new one loads everything again.
"""

import contextlib
import math
import os
import time
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import ray

from artsel_ray import storage
from artsel_ray.engines.vllm import FakeEngine, TransformersEngine, VllmEngine
from artsel_ray.errors import InputError, one_line
from artsel_ray.models.load import load
from artsel_ray.runtime import shards as resume
from artsel_ray.runtime.metrics import engine_memory
from artsel_ray.runtime.task_result import answer
from artsel_ray.score.rendering import RenderedShard, prompt_tokenizer, render_shard
from artsel_ray.score.resolve import ScoringSettings
from artsel_ray.score.scoring import score_shard
from artsel_ray.score.serving import serve
from artsel_ray.score.settings import ScoreConfig

INVALID_ROWS = "rejected"
# Of an engine, without one shard done: more would hardly help, and at night nobody would notice.
MAX_ENGINE_STARTS = 4


class Renderer:
    """Renders shards."""

    def __init__(self, shared: ray.ObjectRef, rendering: ScoringSettings) -> None:
        """Takes from the object store what `render_shard` reads, from its work objects to the artworks' contents."""
        self._work, self._previous, self._files, self._catalog, self._contents = ray.get(shared)
        self._rendering = rendering
        with contextlib.suppress(InputError):  # a model that is not on this machine is told of with the first shard
            prompt_tokenizer(rendering.model, rendering.spec)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Renders one shard."""
        begun = time.perf_counter()
        rendered: RenderedShard | InputError
        try:
            index, inputs = int(batch["shard"][0]), (self._work, self._previous, self._files)
            rendered = render_shard(index, *inputs, self._catalog, self._contents, self._rendering)
        except InputError as error:  # goes on to the driver as a value
            rendered = error
        return {"shard": boxed(rendered), "render_seconds": [time.perf_counter() - begun]}


class _Starts:
    """Counts the starts of engines since one of them has done a shard: Ray starts what dies for ever."""

    def __init__(self) -> None:
        """Begins with none."""
        self._count = 0

    def add(self) -> int:
        """Counts one more; returns how many there were."""
        self._count += 1
        return self._count

    def clear(self) -> None:
        """Begins anew."""
        self._count = 0


Starts = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(_Starts)


class Scorer:
    """Scores rendered shards with an engine of its own."""

    def __init__(self, config: ScoreConfig, rendering: ScoringSettings, most_candidates: int, starts: Any) -> None:
        """Loads the model, unless engines have died too often, as the actor `starts` counts."""
        begun = time.perf_counter()
        self._rendering, self._starts = rendering, starts
        self._refused: InputError | None = None
        try:
            if ray.get(starts.add.remote()) > MAX_ENGINE_STARTS * config.engines:
                raise InputError("every time it dies with no shard done, perhaps for lack of memory; see Ray's logs")
            prompt_tokenizer(rendering.model, rendering.spec)
            self._engine = _start(config, rendering, most_candidates)
        except (InputError, ValueError, RuntimeError) as error:
            # vLLM's words for too little memory, a cache too small, a model that it does not know.
            self._refused = InputError(f"the engine does not start: {one_line(error)}")
        self._load_seconds = time.perf_counter() - begun
        self._limit, self._memory = config.engine_memory or math.inf, 0.0
        self._gauge = engine_memory(config.output)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Scores one shard."""
        shard: RenderedShard | InputError = self._refused or unboxed(batch["shard"])
        if isinstance(shard, InputError):
            return {"scored": boxed(shard)}
        if self._memory > self._limit:
            # What a process holds it hardly gives back. Ray starts the actor anew and gives it this shard again.
            os._exit(1)
        begun = time.perf_counter()
        try:
            scored, counts = score_shard(shard, self._engine, self._rendering)
        except InputError as error:
            return {"scored": boxed(error)}
        self._starts.clear.remote()
        usage = self._engine.take_usage()
        statistics = {
            **shard.counts,
            **counts,
            "prompt_tokens": usage.prompt_tokens,
            "cached_tokens": usage.cached_tokens,
            "decoded_tokens": usage.decoded_tokens,
            "load_seconds": self._load_seconds,
            "render_seconds": float(batch["render_seconds"][0]),
            "engine_seconds": usage.seconds,
            "score_seconds": time.perf_counter() - begun,
            resume.MEMORY: psutil.Process().memory_info().rss / 2**30,
        }
        self._load_seconds, self._memory = 0.0, statistics[resume.MEMORY]
        self._gauge.set(self._memory * 2**30)
        predictions = pa.concat_tables([scored, shard.carried])
        return {"scored": boxed((shard.index, predictions, shard.invalid, statistics))}


def _start(
    config: ScoreConfig, rendering: ScoringSettings, most_candidates: int
) -> VllmEngine | TransformersEngine | FakeEngine:
    if config.engine == "null":
        return FakeEngine(config.tokens_per_second)
    path = load(config.model).path
    if config.engine == "transformers":
        return TransformersEngine(path, config.dtype, prompt_tokenizer(rendering.model, rendering.spec).placeholders)
    return VllmEngine(
        path,
        rendering.max_model_length,
        most_candidates + 1,
        config.dtype,
        tensor_parallel=config.tensor_parallel,
        images=most_candidates if rendering.spec.assets == "image" else 0,
    )


class Writer:
    """Settles what is served and writes scored shards."""

    def __init__(self, config: ScoreConfig) -> None:
        """Takes the run's flags."""
        self._config = config

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Writes one shard and passes its statistics on."""
        written = answer(self._write, unboxed(batch["scored"]))
        return {name: [value] for name, value in written.items()}

    def _write(self, scored: tuple[int, pa.Table, pa.Table, dict[str, float]] | InputError) -> dict[str, float]:
        if isinstance(scored, InputError):
            raise scored
        index, predictions, invalid, statistics = scored
        output, name = self._config.output, resume.part_name(index)
        if invalid.num_rows:
            storage.write_table(storage.join(output, INVALID_ROWS, name), invalid, "rejected")
        metadata = resume.statistics_metadata(statistics)
        # Last: this object says that the shard is done.
        storage.write_table(storage.join(output, name), serve(predictions, self._config), "predictions", metadata)
        return statistics


class _Box:
    """Holds an object and does not show it: Ray Data writes what Arrow has no type for into its logs."""

    def __init__(self, value: Any) -> None:
        """Takes the object."""
        self.value = value


def boxed(value: Any) -> np.ndarray:
    """Returns an array of one object: Ray Data then moves it as it is, and logs nothing of it."""
    box = np.empty(1, dtype=object)
    box[0] = _Box(value)
    return box


def unboxed(box: np.ndarray) -> Any:
    """Returns the object of `boxed`."""
    return box[0].value
