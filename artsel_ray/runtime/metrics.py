"""A night's numbers while it runs, among Ray's own metrics: Prometheus reads them as `ray_artsel_…`.

Their one tag is the last part of the output's name, such as `night=2026-11-22`. No id and no text is in them.
"""

import time
from typing import TypeVar

from ray.util.metrics import Counter, Gauge

M = TypeVar("M", Counter, Gauge)

_COUNTED = {
    "pairs": "Pairs that have a choice, with those carried over",
    "rejected_pairs": "Pairs without a choice",
    "prompt_tokens": "Tokens of prompts",
    "cached_tokens": "Tokens of prompts that came out of the engine's cache",
    "decoded_tokens": "Tokens that the engine decoded",
}


class RunMetrics:
    """What the driver knows. Counters count what this driver has seen: a night's are the sum over its drivers."""

    def __init__(self, output: str, shards: int, done: int, invalid: int) -> None:
        """Takes how many shards the night has and how many are done, and the pairs rejected with whole rows."""
        self._counters = {name: _tagged(Counter, name, text, output) for name, text in _COUNTED.items()}
        self._done = _tagged(Gauge, "shards_done", "Shards that are done", output)
        self._left = _tagged(Gauge, "eta_seconds", "Seconds until the last shard, as estimated", output)
        self._published = _tagged(Gauge, "published_timestamp_seconds", "When the manifest was written", output)
        self._shards = _tagged(Gauge, "shards", "Shards of the night", output)
        self._total = shards
        self._shards.set(shards)
        self._count("rejected_pairs", invalid)
        self._shards_done = done
        self._done.set(done)

    def add(self, statistics: dict[str, float], seconds_left: float) -> None:
        """Counts one more shard."""
        self._shards_done += 1
        self._shards.set(self._total)  # Ray exports what was set since the last time, and soon forgets it
        self._done.set(self._shards_done)
        self._left.set(seconds_left)
        for name in _COUNTED:
            self._count(name, statistics[name.removesuffix("_pairs")])

    def publish(self) -> None:
        """Says that the night is whole."""
        self._published.set(time.time())

    def _count(self, name: str, value: float) -> None:
        if value:  # Ray refuses to count nothing
            self._counters[name].inc(value)


def engine_memory(output: str) -> Gauge:
    """Returns the gauge of what an engine's process holds, in bytes; Ray adds which process, as `WorkerId`."""
    return _tagged(Gauge, "engine_memory_bytes", "Memory of an engine's process", output)


def _tagged(kind: type[M], name: str, description: str, output: str) -> M:
    night = output.partition("?")[0].rstrip("/").rsplit("/", 1)[-1]
    metric = kind(f"artsel_{name}", description, tag_keys=("night",))
    metric.set_default_tags({"night": night})
    return metric
