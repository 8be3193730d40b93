"""The skeleton of every job that sends shards through engines: score, caption, distill and propose.

A shard goes through three actors of Ray Data: one prepares it, one asks an engine, and one writes it. Shards that were
completed before a job is killed are kept: their objects exist. A job defines its shards, its two stages, and how many
invalid rows it tolerates.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import ray

from artsel_ray import storage
from artsel_ray.config import EngineSettings
from artsel_ray.errors import InputError
from artsel_ray.runtime.engine_pool import MAX_STARTS, EngineActor, EngineStage, Item, Starts, actor_options
from artsel_ray.runtime.metrics import RunMetrics, report_published
from artsel_ray.runtime.progress import Progress
from artsel_ray.runtime.run import Run
from artsel_ray.runtime.shards import INVALID_FOLDER, Shard, Statistics, part_name, sum_statistics, write_shard
from artsel_ray.runtime.task_result import capture, results, unwrap, wrap

if TYPE_CHECKING:
    import numpy as np

# Preparing and writing are light next to an engine: they claim no CPU, so that engines on all CPUs never wait for them.
_LIGHT_CPUS = 0


@dataclass(frozen=True)
class PrepareStage:
    """The step that prepares shards for an engine."""

    name: str
    """Its time is counted as `NAME_seconds`."""
    make: Callable[[], Callable[[int], Any]]
    """Makes, in the actor, the function from a shard's index to the input of the engine stage."""


@dataclass(frozen=True)
class RejectLimit:
    """How many of a run's rows may be invalid."""

    rate: float
    total: int
    unit: str
    """What is counted, such as `pairs`."""
    output: str
    known: int = 0
    """Invalid rows known before the first shard."""

    def check(self, invalid: int) -> None:
        """Stops a run with too many invalid rows.

        Raises:
            InputError: naming the counts, the flag, and where the rows are.
        """
        invalid += self.known
        if invalid > self.rate * self.total:
            raise InputError(
                f"{invalid:,} of {self.total:,} {self.unit} were rejected, more than --max-reject-rate {self.rate:g} "
                f"allows; the reasons are in {storage.join(self.output, INVALID_FOLDER)}. Fix the data or raise the "
                "limit, and run the same command again: completed shards are kept"
            )


@dataclass(frozen=True)
class ShardedJob:
    """One job's shards and stages."""

    run: Run
    table: str
    """The output's table, as in `schema.TABLES`."""
    unit: str
    """What shards contain, such as `pairs`: the name of its count in their statistics."""
    shards: int
    prepare: PrepareStage
    engine: EngineStage
    pool: EngineSettings
    gpus_per_engine: float | None = None
    max_memory_gib: float | None = None
    """Restart an engine, between two shards, when its process holds more."""
    finish: Callable[[pa.Table], pa.Table] | None = None
    """Changes a shard's rows just before they are written."""
    limit: RejectLimit | None = None

    def process(self, missing: list[int], invalid: int = 0) -> None:
        """Sends the missing shards through the stages, and returns when all of them are written.

        Args:
            missing: indices of the shards to do.
            invalid: rows that were rejected before, for the metrics.

        Raises:
            InputError: that a stage raised, if another driver has taken the output, or for too many invalid rows.
        """
        metrics = RunMetrics(self.run.output, self.unit, self.shards, self.shards - len(missing), invalid)
        if not missing:
            return
        progress = Progress(len(missing), self.unit)
        starts: Any = Starts.remote()
        try:
            for statistics in results(self._dataset(missing, starts)):
                progress.add(statistics)
                metrics.add(statistics, progress.seconds_left)
                self.run.check()
                if self.limit:
                    self.limit.check(progress.invalid)
        finally:
            ray.kill(starts)  # Ray Data keeps a handle to it: it would live as long as the driver

    def totals(self) -> Counter[str]:
        """Returns the statistics of all shards together.

        Raises:
            InputError: for too many invalid rows.
        """
        totals = sum_statistics(self.run.output, self.shards)
        if self.limit:
            self.limit.check(int(totals["rejected"]))
        return totals

    def publish(self, summary: dict[str, Any], manifest: dict[str, Any]) -> None:
        """Writes summary.json and, last, the manifest, which lists the shards' objects.

        Raises:
            InputError: if another driver has taken the output.
        """
        storage.write_json(storage.join(self.run.output, "summary.json"), summary)
        self.run.publish({"parts": [part_name(index) for index in range(self.shards)], **manifest})
        report_published(self.run.output)

    def _dataset(self, missing: list[int], starts: Any) -> ray.data.Dataset:
        engines = self.pool.engines
        when = "" if self.engine.starts_at_once else " when first needed"
        print(f"starting {engines} engine(s){when}, which takes a minute or more", flush=True)
        light: dict[str, Any] = {"batch_size": 1, "num_cpus": _LIGHT_CPUS}
        # One row and block for each shard, so that actors share them out.
        dataset = ray.data.from_items([{"shard": index} for index in missing], override_num_blocks=len(missing))
        prepared = dataset.map_batches(
            PrepareActor, fn_constructor_args=[self.prepare], compute=ray.data.ActorPoolStrategy(size=engines), **light
        )
        processed = prepared.map_batches(
            EngineActor,
            fn_constructor_args=[self.engine, starts, MAX_STARTS * engines, self.max_memory_gib, self.run.output],
            **actor_options(self.pool, self.gpus_per_engine),
        )
        return processed.map_batches(
            WriteActor,
            fn_constructor_args=[self.run.output, self.table, self.finish],
            compute=ray.data.ActorPoolStrategy(size=1),
            **light,
        )


class PrepareActor:
    """Prepares shards. An actor, not a task: Ray ends idle workers, and each new one loads everything again."""

    def __init__(self, stage: PrepareStage) -> None:
        """Makes the stage's function."""
        self._stage = stage
        self._prepare: Any = capture(stage.make)

    def __call__(self, batch: dict[str, Any]) -> "dict[str, np.ndarray]":
        """Prepares one shard."""
        if isinstance(self._prepare, InputError):
            return wrap(self._prepare)
        return wrap(capture(self._item, int(batch["shard"][0])))

    def _item(self, index: int) -> Item:
        started = time.perf_counter()
        value = self._prepare(index)
        return Item(index, value, {f"{self._stage.name}_seconds": time.perf_counter() - started})


class WriteActor:
    """Writes shards, and passes their statistics on."""

    def __init__(self, output: str, table: str, finish: Callable[[pa.Table], pa.Table] | None) -> None:
        """Writes to an output, as `ShardedJob` says."""
        self._output, self._table, self._finish = output, table, finish

    def __call__(self, batch: dict[str, Any]) -> "dict[str, np.ndarray]":
        """Writes one shard; returns its statistics."""
        return wrap(capture(self._write, unwrap(batch)))

    def _write(self, shard: Shard | InputError) -> Statistics:
        if isinstance(shard, InputError):
            raise shard
        rows = self._finish(shard.rows) if self._finish else shard.rows
        write_shard(self._output, self._table, Shard(shard.index, rows, shard.invalid, shard.statistics))
        return shard.statistics


def stage_seconds(totals: Mapping[str, float]) -> dict[str, float]:
    """Returns the seconds of each stage, summed over all shards."""
    return {name.removesuffix("_seconds"): value for name, value in totals.items() if name.endswith("_seconds")}
