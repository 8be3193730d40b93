"""A run's numbers while it runs, among Ray's own metrics: Prometheus reads them as `ray_artsel_…`.

Their one tag is the last part of the output's name, such as `date=2026-11-22`. They hold no id and no text.
"""

import time
from typing import TypeVar

from ray.util.metrics import Counter, Gauge

M = TypeVar("M", Counter, Gauge)

_TOKENS = {
    "prompt_tokens": "Tokens of prompts",
    "cached_tokens": "Prompt tokens that came from the engine's cache",
    "decoded_tokens": "Tokens that the engine decoded",
}


class RunMetrics:
    """What the driver knows. Counters count what this driver has seen: a run's are the sum over its drivers."""

    def __init__(self, output: str, unit: str, shards: int, done: int, invalid: int) -> None:
        """Registers the metrics; `invalid` units were rejected before the first shard."""
        counted = {unit: f"Finished {unit}, reused ones included", f"rejected_{unit}": f"Rejected {unit}", **_TOKENS}
        self._counters = {name: _tagged(Counter, name, text, output) for name, text in counted.items()}
        self._done = _tagged(Gauge, "shards_done", "Finished shards", output)
        self._left = _tagged(Gauge, "eta_seconds", "Estimated seconds until the last shard", output)
        self._shards = _tagged(Gauge, "shards", "Shards of the run", output)
        self._unit, self._total, self._shards_done = unit, shards, done
        self._shards.set(shards)
        self._count(f"rejected_{unit}", invalid)
        self._done.set(done)

    def add(self, statistics: dict[str, float], seconds_left: float) -> None:
        """Counts one more shard."""
        self._shards_done += 1
        self._shards.set(self._total)  # Ray exports what was set since the last time, and soon forgets it
        self._done.set(self._shards_done)
        self._left.set(seconds_left)
        self._count(f"rejected_{self._unit}", statistics["rejected"])
        for name in (self._unit, *_TOKENS):
            self._count(name, statistics[name])

    def _count(self, name: str, value: float) -> None:
        if value:  # Ray refuses to count nothing
            self._counters[name].inc(value)


def report_published(output: str) -> None:
    """Reports that the run's manifest has just been written."""
    _tagged(Gauge, "published_timestamp_seconds", "When the manifest was written", output).set(time.time())


def engine_memory(output: str) -> Gauge:
    """Returns the gauge of an engine process's memory, in bytes; Ray adds the process as `WorkerId`."""
    return _tagged(Gauge, "engine_memory_bytes", "Memory of an engine's process", output)


def _tagged(kind: type[M], name: str, description: str, output: str) -> M:
    run = output.partition("?")[0].rstrip("/").rsplit("/", 1)[-1]
    metric = kind(f"artsel_{name}", description, tag_keys=("run",))
    metric.set_default_tags({"run": run})
    return metric
