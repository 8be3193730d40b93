"""What a person sees of a long run."""

import time

_PROGRESS_SECONDS = 5.0


class Progress:
    """Prints how far a run is, at most every few seconds."""

    def __init__(self, shards: int) -> None:
        """Takes how many shards are to be done."""
        self._shards = shards
        self._begun = self._printed = time.perf_counter()
        self._done_shards = self._done_pairs = 0
        self.rejected = 0

    def add(self, statistics: dict[str, float]) -> None:
        """Counts one more shard."""
        self._done_shards += 1
        self._done_pairs += int(statistics["pairs"])
        self.rejected += int(statistics["rejected"])
        now = time.perf_counter()
        if now - self._printed > _PROGRESS_SECONDS or self._done_shards == self._shards:
            self._printed, elapsed = now, now - self._begun
            left = elapsed / self._done_shards * (self._shards - self._done_shards)
            print(
                f"{self._done_shards:,}/{self._shards:,} shards, {self._done_pairs:,} pairs, "
                f"{self._done_pairs / elapsed:,.1f} pairs/s, {left:,.0f} s left",
                flush=True,
            )
