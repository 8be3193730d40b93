"""The actors that hold an engine: how many, on what, how often they may restart, and what they count."""

import math
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import psutil
import pyarrow as pa
import ray

from artsel_ray.config import EngineSettings
from artsel_ray.errors import InputError, one_line
from artsel_ray.runtime.metrics import engine_memory
from artsel_ray.runtime.ray_cluster import node_resources
from artsel_ray.runtime.shards import MEMORY, RESTARTS, Shard, Statistics
from artsel_ray.runtime.task_result import capture, unwrap, wrap

if TYPE_CHECKING:
    import numpy as np

    from artsel_ray.engines.base import Engine

# Starts of each actor, with the first, since the last completed shard. More rarely help, and would hide a broken GPU.
MAX_STARTS = 4
# What vLLM and transformers raise for a cache that is too small or a model they do not know: the next start would too.
_REFUSALS = (InputError, ValueError, ImportError, OSError)

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


class ActorError(InputError):
    """Actors died again and again; others may be able to do what is left."""


def count_start(starts: Any, max_starts: int, what: str) -> None:
    """Counts a start of an actor without an engine.

    Args:
        what: what the actor does with shards, such as `writing`.

    Raises:
        ActorError: if all such actors together have started more often since the last completed shard.
    """
    count, _ = ray.get(starts.add.remote("light", _is_restarted()))
    if count > max_starts:
        raise ActorError(
            f"{what} shards does not work: its process crashed again and again before a shard was written, perhaps "
            "killed for its memory; end other programs, or take machines with more memory; see Ray's logs"
        )


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
            count, reason = ray.get(self._starts.add.remote("engine", _is_restarted()))
            if count > self._max_starts:
                crashed = "it crashed at every start before completing a shard, perhaps out of memory; see Ray's logs"
                raise ActorError(f"the engine does not start: {reason or crashed}")
            try:
                self._engine = self._stage.load()
            except _REFUSALS as error:
                raise InputError(f"the engine does not start: {one_line(error)}") from None
            except Exception as error:  # noqa: BLE001  # of CUDA, above all
                self._leave(error)
            self._load_seconds = time.perf_counter() - started
        return self._engine

    def _leave(self, error: Exception) -> NoReturn:
        """Ends this process: after a CUDA error it can compute nothing. Ray starts another one with the same shard."""
        # Messages of RuntimeErrors come from libraries; others may quote what a user has written.
        reason = one_line(error) if isinstance(error, RuntimeError) else f"{type(error).__name__}; see Ray's logs"
        traceback.print_tb(error.__traceback__)
        print(f"the engine failed with {type(error).__name__}; its process ends", file=sys.stderr, flush=True)
        ray.get(self._starts.fail.remote(reason))
        os._exit(1)

    def __call__(self, batch: dict[str, Any]) -> "dict[str, np.ndarray]":
        """Processes one shard."""
        item = unwrap(batch)
        for failed in (item, self._process, self._refused):
            if isinstance(failed, InputError):
                return wrap(failed)
        if self._memory_gib > self._max_memory_gib:
            # A process hardly gives memory back. Ray restarts the actor and gives it this shard again.
            os._exit(1)
        try:
            return wrap(capture(self._shard, item))
        except Exception as error:  # noqa: BLE001  # whatever it is, another process may not have it
            self._leave(error)

    def _shard(self, item: Item) -> Shard:
        started = time.perf_counter()
        rows, invalid, counts = self._process(item.value, self._get_engine)
        restarts = ray.get(self._starts.clear.remote("engine"))
        self._memory_gib = psutil.Process().memory_info().rss / 2**30
        self._gauge.set(self._memory_gib * 2**30)
        statistics = {**counts, **self._usage(), **item.seconds, MEMORY: self._memory_gib, RESTARTS: restarts}
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


def _is_restarted() -> bool:
    context = ray.get_runtime_context()
    return context.get_actor_id() is not None and context.was_current_actor_reconstructed


def gpus_per_engine(pool: EngineSettings) -> float:
    """Returns what `--gpus-per-engine` says, or else `tensor_parallel` where the cluster has GPUs.

    Raises:
        InputError: if no node has `tensor_parallel` GPUs, and the flag does not say that such nodes will come.
    """
    if pool.gpus_per_engine is not None:
        return pool.gpus_per_engine
    gpus = [node["GPU"] for node in node_resources()]
    parallel = pool.tensor_parallel
    if parallel > 1 and max(gpus) < parallel:
        raise InputError(
            f"--tensor-parallel {parallel} needs {parallel} GPUs on one node, and the nodes have "
            f"{', '.join(f'{each:g}' for each in gpus)}; lower it, or add --gpus-per-engine {parallel} if the cluster "
            "starts such nodes on demand"
        )
    return float(parallel if any(gpus) else 0)


def actor_options(engines: int, gpus: float) -> dict[str, Any]:
    """Returns how `map_batches` runs actors that hold an engine, one shard at a time; `gpus` are of each engine."""
    cpus = ray.cluster_resources().get("CPU", 1.0)
    threads = max(1, int(cpus // engines))
    return {
        "batch_size": 1,
        "compute": ray.data.ActorPoolStrategy(size=engines),
        # Rounded down as Ray counts, in 1/10,000.
        "num_cpus": min(1.0, math.floor(1e4 * cpus / engines) / 1e4),
        "num_gpus": gpus,
        # Engines on one machine must not bind to the same cores.
        "runtime_env": {"env_vars": {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": str(threads)}},
    }
