"""What a person sees of a long run."""

import time

_PROGRESS_SECONDS = 5.0


class Progress:
    """Prints how far a run is, at most every few seconds."""

    def __init__(self, shards: int, unit: str = "pairs") -> None:
        """Takes how many shards are to be done, and what they hold: the name of its count in their statistics."""
        self._shards, self._unit = shards, unit
        self._begun = self._printed = time.perf_counter()
        self._done_shards = self._done_units = 0
        self.rejected = 0

    def add(self, statistics: dict[str, float]) -> None:
        """Counts one more shard."""
        self._done_shards += 1
        self._done_units += int(statistics[self._unit])
        self.rejected += int(statistics["rejected"])
        now = time.perf_counter()
        if now - self._printed > _PROGRESS_SECONDS or self._done_shards == self._shards:
            self._printed, elapsed = now, now - self._begun
            left = elapsed / self._done_shards * (self._shards - self._done_shards)
            print(
                f"{self._done_shards:,}/{self._shards:,} shards, {self._done_units:,} {self._unit}, "
                f"{self._done_units / elapsed:,.1f} {self._unit}/s, {left:,.0f} s left",
                flush=True,
            )
