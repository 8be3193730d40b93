"""What a person sees of a long run."""

import time

from artsel_ray.runtime.shards import REJECTED_ROWS, RESTARTS

_PROGRESS_SECONDS = 5.0


class Progress:
    """Prints how far a run is, at most every few seconds."""

    def __init__(self, shards: int, unit: str) -> None:
        """Starts the clock; `unit` is the name of the units' count in the shards' statistics."""
        self._shards, self._unit = shards, unit
        self._since = self._printed = time.perf_counter()
        self._done_shards = self._done_units = self._skipped_units = 0
        self._restarts = 0
        self.invalid = 0.0
        self.seconds_left = 0.0

    def add(self, statistics: dict[str, float]) -> None:
        """Counts one more shard."""
        self._done_shards += 1
        self._done_units += int(statistics[self._unit])
        # Rows where a row becomes many units. All shards here are of this version, which counts them for all or none.
        self.invalid += statistics.get(REJECTED_ROWS, statistics["rejected"])
        self._restarts += int(statistics.get(RESTARTS, 0))
        now = time.perf_counter()
        rate = (self._done_units - self._skipped_units) / max(now - self._since, 1e-9)
        left = (self._shards - self._done_shards) * self._done_units / self._done_shards
        self.seconds_left = left / max(rate, 1e-9)
        if now - self._printed > _PROGRESS_SECONDS or self._done_shards == self._shards:
            self._printed = now
            restarts = f", {self._restarts:,} engine restart(s)" if self._restarts else ""
            print(
                f"{self._done_shards:,}/{self._shards:,} shards, {self._done_units:,} {self._unit}, "
                f"{rate:,.1f} {self._unit}/s, {self.seconds_left:,.0f} s left{restarts}",
                flush=True,
            )
        if self._done_shards == 1:  # the time that engines took to start predicts nothing
            self._since, self._skipped_units = now, self._done_units
