"""The actors that hold an engine: how many, on what, how often they may restart, and what they count."""

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import psutil
import pyarrow as pa
import ray

from artsel_ray.config import EngineSettings
from artsel_ray.errors import InputError, one_line
from artsel_ray.runtime.metrics import engine_memory
from artsel_ray.runtime.shards import MEMORY, Shard, Statistics
from artsel_ray.runtime.task_result import capture, unwrap, wrap

if TYPE_CHECKING:
    import numpy as np

    from artsel_ray.engines.base import Engine

# Starts of each engine, with the first, since the last completed shard. More rarely help, and would hide a broken GPU.
MAX_STARTS = 4
# What vLLM and transformers raise for too little memory, a cache that is too small, or a model they do not know.
_START_ERRORS = (InputError, ValueError, RuntimeError, ImportError, OSError)

GetEngine = Callable[[], "Engine"]


class Processed(NamedTuple):
    """What an engine stage made of a shard."""

    rows: pa.Table
    invalid: pa.Table
    counts: Statistics


@dataclass(frozen=True)
class EngineStage:
    """The step of a sharded job that asks an engine."""

    name: str
    """Its time is counted as `NAME_seconds`."""
    make: Callable[[], Callable[[Any, GetEngine], Processed]]
    load: GetEngine
    starts_at_once: bool = True
    """Whether to load the engine with the actor, or when it is first asked for."""


@dataclass(frozen=True)
class Item:
    """What travels from one stage to the next."""

    shard: int
    value: Any
    seconds: Statistics


class _Starts:
    """Counts engine starts since the last completed shard: Ray restarts forever what dies."""

    def __init__(self) -> None:
        self._count = 0

    def add(self) -> int:
        self._count += 1
        return self._count

    def clear(self) -> None:
        self._count = 0


# Not Ray's `max_restarts`, which counts over the whole run: engines that are restarted for their memory would end it.
Starts = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(_Starts)


class EngineActor:
    """Sends shards through an engine stage; holds one engine."""

    def __init__(
        self, stage: EngineStage, starts: Any, max_starts: int, max_memory_gib: float | None, output: str
    ) -> None:
        """Loads the engine if it starts at once; `max_starts`: of all engines, since the last completed shard."""
        self._stage, self._starts, self._max_starts = stage, starts, max_starts
        self._max_memory_gib, self._memory_gib = max_memory_gib or math.inf, 0.0
        self._engine: Engine | None = None
        self._load_seconds = 0.0
        self._gauge = engine_memory(output)
        self._process: Any = capture(stage.make)
        # A model that does not load is reported with the first shard: an actor that raises is restarted forever.
        self._refused: Any = capture(self._get_engine) if stage.starts_at_once else None

    def _get_engine(self) -> "Engine":
        if self._engine is None:
            started = time.perf_counter()
            try:
                if ray.get(self._starts.add.remote()) > self._max_starts:
                    raise InputError("it crashed at every start before completing a shard, perhaps out of memory; "
                                     "see Ray's logs")  # fmt: skip
                self._engine = self._stage.load()
            except _START_ERRORS as error:
                raise InputError(f"the engine does not start: {one_line(error)}") from None
            self._load_seconds = time.perf_counter() - started
        return self._engine

    def __call__(self, batch: dict[str, Any]) -> "dict[str, np.ndarray]":
        """Processes one shard."""
        item = unwrap(batch)
        for failed in (item, self._process, self._refused):
            if isinstance(failed, InputError):
                return wrap(failed)
        if self._memory_gib > self._max_memory_gib:
            # A process hardly gives memory back. Ray restarts the actor and gives it this shard again.
            os._exit(1)
        return wrap(capture(self._shard, item))

    def _shard(self, item: Item) -> Shard:
        started = time.perf_counter()
        rows, invalid, counts = self._process(item.value, self._get_engine)
        self._starts.clear.remote()
        self._memory_gib = psutil.Process().memory_info().rss / 2**30
        self._gauge.set(self._memory_gib * 2**30)
        statistics = {**counts, **self._usage(), **item.seconds, MEMORY: self._memory_gib}
        statistics[f"{self._stage.name}_seconds"] = time.perf_counter() - started
        return Shard(item.shard, rows, invalid, statistics)

    def _usage(self) -> Statistics:
        """Returns what the engine has used since the last shard; its loading counts with the first."""
        load_seconds, self._load_seconds = self._load_seconds, 0.0
        if self._engine is None:
            names = ("prompt_tokens", "cached_tokens", "decoded_tokens", "load_seconds", "engine_seconds")
            return dict.fromkeys(names, 0)
        used = self._engine.usage.take()
        return {
            "prompt_tokens": used.prompt_tokens,
            "cached_tokens": used.cached_tokens,
            "decoded_tokens": used.decoded_tokens,
            "load_seconds": load_seconds,
            "engine_seconds": used.seconds,
        }


def actor_options(pool: EngineSettings, gpus_per_engine: float | None = None) -> dict[str, Any]:
    """Returns how `map_batches` runs actors that hold an engine, one shard at a time.

    Args:
        gpus_per_engine: by default `tensor_parallel` where the cluster has GPUs, else none.

    Raises:
        InputError: if the cluster has too few GPUs for `tensor_parallel`.
    """
    cpus, gpus = ray.cluster_resources().get("CPU", 1.0), ray.cluster_resources().get("GPU", 0.0)
    if gpus_per_engine is None:
        gpus_per_engine = float(pool.tensor_parallel if gpus else 0)
    wanted = pool.engines * pool.tensor_parallel
    if pool.tensor_parallel > 1 and wanted > gpus:
        raise InputError(
            f"--engines {pool.engines} with --tensor-parallel {pool.tensor_parallel} need {wanted} GPUs, the cluster "
            f"has {gpus:g}"
        )
    threads = max(1, int(cpus // pool.engines))
    return {
        "batch_size": 1,
        "compute": ray.data.ActorPoolStrategy(size=pool.engines),
        "num_cpus": min(1.0, cpus / pool.engines),
        "num_gpus": gpus_per_engine,
        # Engines on one machine must not bind to the same cores.
        "runtime_env": {"env_vars": {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": str(threads)}},
    }
