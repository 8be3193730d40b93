"""The skeleton of every job that sends shards through engines: score, caption, distill and propose.

A shard goes through three actors of Ray Data: one prepares it, one asks an engine, and one writes it. Shards that were
completed before a job is killed are kept: their objects exist. A job defines its shards, its two stages, and how many
invalid rows it tolerates.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import ray

from artsel_ray import storage
from artsel_ray.config import EngineSettings
from artsel_ray.errors import InputError
from artsel_ray.runtime.engine_pool import (
    MAX_STARTS,
    ActorError,
    EngineActor,
    EngineStage,
    Item,
    actor_options,
    count_start,
    gpus_per_engine,
)
from artsel_ray.runtime.metrics import RunMetrics, report_published
from artsel_ray.runtime.progress import Progress
from artsel_ray.runtime.ray_cluster import start_ray, wait_for_resources
from artsel_ray.runtime.run import Run
from artsel_ray.runtime.shards import (
    INVALID_FOLDER,
    REJECTED_ROWS,
    RESTARTS,
    Shard,
    Statistics,
    done_shards,
    part_name,
    read_statistics,
    sum_statistics,
    write_shard,
)
from artsel_ray.runtime.starts import Starts
from artsel_ray.runtime.task_result import capture, results, unwrap, wrap

if TYPE_CHECKING:
    import numpy as np

# Preparing and writing are light next to an engine: they claim no CPU, so that engines on all CPUs never wait for them.
_LIGHT_CPUS = 0


@dataclass(frozen=True)
class InputRows:
    """Rows of a job's input, of which one may become many units."""

    rows: int
    invalid: int
    """Those of them that were rejected before the first shard."""
    unit: str


@dataclass(frozen=True)
class PrepareStage:
    """The step that prepares shards for an engine."""

    name: str
    """Its time is counted as `NAME_seconds`."""
    make: Callable[..., Callable[[int], Any]]
    """Makes, in the actor, the function from a shard's index to the input of the engine stage. Is given what `share`
    returns, if there is one."""
    share: Callable[[], Any] | None = None
    """Reads, in the driver, what the actors share through Ray's object store. Is not called if no shard is missing."""


@dataclass(frozen=True)
class ShardedJob:
    """One job's shards and stages."""

    run: Run
    table: str
    """The output's table, as in `schema.TABLES`."""
    unit: str
    """What shards contain, such as `pairs`: the name of its count in their statistics."""
    shards: int
    rows: int
    """Units in all shards together."""
    model_id: str
    started: float
    """When the job started, by `time.perf_counter`."""
    prepare: PrepareStage
    engine: EngineStage
    pool: EngineSettings
    max_memory_gib: float | None = None
    """Restart an engine, between two shards, when its process holds more."""
    finish: Callable[[pa.Table], pa.Table] | None = None
    """Changes a shard's rows just before they are written."""
    max_reject_rate: float = 1
    """Stop if a larger share of the units is invalid."""
    known_invalid: int = 0
    """Units that were rejected before the first shard; not among `rows`."""
    inputs: InputRows | None = None
    """What the reject rate is of, if not of the units; shards then count `REJECTED_ROWS`."""
    redo_transient: bool = False
    """Whether shards whose statistics count `transient` rows are done again: those that failed for a passing reason.
    Shards of earlier versions have no such count, and are done again if they have any invalid row."""

    def resume(self) -> None:
        """Reports which shards an earlier driver has completed, and processes the others.

        Raises:
            InputError: as `process` does, and if too many units were rejected before the first shard.
        """
        self._check_invalid(0, self.inputs)
        done = done_shards(self.run.output)
        if self.redo_transient:
            statistics = {index: read_statistics(self.run.output, index) for index in done}
            done = {index for index, each in statistics.items() if not each.get("transient", each["rejected"])}
        missing = [index for index in range(self.shards) if index not in done]
        print(
            f"{self.rows:,} {self.unit} in {self.shards:,} shards, {len(done):,} done; model {self.model_id}",
            flush=True,
        )
        if missing:
            start_ray()
        self.process(missing)

    def process(self, missing: list[int]) -> None:
        """Sends the missing shards through the stages, and returns when all of them are written.

        Raises:
            InputError: that a stage raised, if another driver has taken the output, or for too many invalid rows.
        """
        done = self.shards - len(missing)
        # An earlier driver has counted what was rejected before the first shard.
        metrics = RunMetrics(self.run.output, self.unit, self.shards, done, 0 if done else self.known_invalid)
        if not missing:
            return
        progress, left = Progress(len(missing), self.unit), set(missing)
        while left:
            before = len(left)
            starts: Any = Starts.remote()
            try:
                for index, statistics in results(self._dataset(sorted(left), starts)):
                    left.discard(index)
                    progress.add(statistics)
                    metrics.add(statistics, progress.seconds_left)
                    self.run.check()
                    self._check_invalid(progress.invalid, self.inputs)
            except ActorError as error:
                if len(left) == before:
                    raise
                # Ray sends a shard to the same engine again and again, even if its GPU is broken and others are not.
                print(f"{error}; {len(left):,} shards go to other processes", flush=True)
            finally:
                ray.kill(starts)  # Ray Data keeps handles: it would live as long as the driver

    def totals(self) -> Counter[str]:
        """Returns the statistics of all shards together.

        Raises:
            InputError: for too many invalid rows.
        """
        totals = sum_statistics(self.run.output, self.shards)
        by_rows = self.inputs if REJECTED_ROWS in totals else None
        self._check_invalid(totals[REJECTED_ROWS if by_rows else "rejected"], by_rows)
        return totals

    def summary(self, counts: Mapping[str, Any], totals: Mapping[str, float]) -> dict[str, Any]:
        """Returns the counts with the model, the seconds since the job started, and each stage's."""
        seconds = {"total": time.perf_counter() - self.started, "stages": stage_seconds(totals)}
        restarts = int(totals[RESTARTS]) if RESTARTS in totals else 0
        return {**counts, "model_id": self.model_id, RESTARTS: restarts, "seconds": seconds}

    def publish(self, summary: dict[str, Any], manifest: dict[str, Any]) -> None:
        """Writes summary.json and, last, the manifest, which lists the shards' objects.

        Raises:
            InputError: if another driver has taken the output.
        """
        storage.write_json(storage.join(self.run.output, "summary.json"), summary)
        self.run.publish({"parts": [part_name(index) for index in range(self.shards)], **manifest})
        report_published(self.run.output)

    def _check_invalid(self, in_shards: float, inputs: InputRows | None) -> None:
        known = inputs.invalid if inputs else self.known_invalid
        rows, unit = (inputs.rows, inputs.unit) if inputs else (self.rows + known, self.unit)
        invalid = in_shards + known
        if invalid > self.max_reject_rate * rows:
            raise InputError(
                f"{math.ceil(invalid):,} of {rows:,} {unit} were rejected, more than --max-reject-rate "
                f"{self.max_reject_rate:g} allows; the reasons are in {storage.join(self.run.output, INVALID_FOLDER)}. "
                "Fix the data or raise the limit, and run the same command again: completed shards are kept"
            )

    def _dataset(self, missing: list[int], starts: Any) -> ray.data.Dataset:
        engines, gpus = self.pool.engines, gpus_per_engine(self.pool)
        options = actor_options(engines, gpus)
        wait_for_resources(f"{engines} engine(s)", {"CPU": options["num_cpus"], "GPU": gpus}, engines)
        where = f"{gpus:g} GPU(s) each" if gpus else "CPUs"
        when = "" if self.engine.starts_at_once else " when first needed"
        print(f"starting {engines} engine(s) on {where}{when}, which takes a minute or more", flush=True)
        shared = [ray.put(self.prepare.share())] if self.prepare.share else []
        light: dict[str, Any] = {"batch_size": 1, "num_cpus": _LIGHT_CPUS}
        limit = [starts, MAX_STARTS * (engines + 1)]  # of those that prepare and the one that writes
        # One row and block for each shard, so that actors share them out.
        dataset = ray.data.from_items([{"shard": index} for index in missing], override_num_blocks=len(missing))
        prepared = dataset.map_batches(
            PrepareActor,
            fn_constructor_args=[*limit, self.prepare.name, self.prepare.make, shared],
            compute=ray.data.ActorPoolStrategy(size=engines),
            **light,
        )
        processed = prepared.map_batches(
            EngineActor,
            fn_constructor_args=[self.engine, starts, MAX_STARTS * engines, self.max_memory_gib, self.run.output],
            **options,
        )
        return processed.map_batches(
            WriteActor,
            fn_constructor_args=[*limit, self.run.output, self.table, self.finish],
            compute=ray.data.ActorPoolStrategy(size=1),
            **light,
        )


class PrepareActor:
    """Prepares shards. An actor, not a task: Ray ends idle workers, and each new one loads everything again."""

    def __init__(
        self, starts: Any, max_starts: int,
        name: str, make: Callable[..., Callable[[int], Any]], shared: Sequence[ray.ObjectRef],
    ) -> None:  # fmt: skip
        self._name = name
        # Counted first: what follows may be what this process dies of.
        refused = capture(count_start, starts, max_starts, "preparing")
        self._prepare: Any = refused or capture(make, *ray.get(list(shared)))

    def __call__(self, batch: dict[str, Any]) -> "dict[str, np.ndarray]":
        """Prepares one shard."""
        if isinstance(self._prepare, InputError):
            return wrap(self._prepare)
        return wrap(capture(self._item, int(batch["shard"][0])))

    def _item(self, index: int) -> Item:
        started = time.perf_counter()
        value = self._prepare(index)
        return Item(index, value, {f"{self._name}_seconds": time.perf_counter() - started})


class WriteActor:
    """Writes shards, and passes their indices and statistics on."""

    def __init__(
        self, starts: Any, max_starts: int, output: str, table: str, finish: Callable[[pa.Table], pa.Table] | None
    ) -> None:
        self._output, self._table, self._finish, self._starts = output, table, finish, starts
        self._refused: Any = capture(count_start, starts, max_starts, "writing")

    def __call__(self, batch: dict[str, Any]) -> "dict[str, np.ndarray]":
        """Writes one shard; returns its index and statistics."""
        return wrap(self._refused or capture(self._write, unwrap(batch)))

    def _write(self, shard: Shard | InputError) -> tuple[int, Statistics]:
        if isinstance(shard, InputError):
            raise shard
        rows = self._finish(shard.rows) if self._finish else shard.rows
        write_shard(self._output, self._table, Shard(shard.index, rows, shard.invalid, shard.statistics))
        ray.get(self._starts.clear.remote("light"))
        return shard.index, shard.statistics


def stage_seconds(totals: Mapping[str, float]) -> dict[str, float]:
    """Returns the seconds of each stage, summed over all shards."""
    return {name.removesuffix("_seconds"): value for name, value in totals.items() if name.endswith("_seconds")}
