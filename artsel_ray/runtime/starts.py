"""Counts how often actors start. Apart from them: the process that counts imports Ray and nothing else."""

from collections import Counter
from typing import Literal

import ray

Kind = Literal["engine", "light"]
"""Actors that hold an engine, or those that prepare and write."""


class _Starts:
    """Counts each kind's starts since the last completed shard: Ray restarts forever what dies."""

    def __init__(self) -> None:
        self._count, self._restarts = Counter[Kind](), Counter[Kind]()
        self._reason = ""

    def add(self, kind: Kind, is_restart: bool) -> tuple[int, str]:
        """Counts a start; returns how many there were, and why the last engine failed, if it could say it."""
        self._count[kind] += 1
        self._restarts[kind] += is_restart
        return self._count[kind], self._reason

    def fail(self, reason: str) -> None:
        self._reason = reason

    def clear(self, kind: Kind) -> int:
        """Called after a completed shard; returns the restarts since the one before."""
        restarts, self._restarts[kind], self._count[kind] = self._restarts[kind], 0, 0
        return restarts


# Not Ray's `max_restarts`, which counts over the whole run: engines that are restarted for their memory would end it.
Starts = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(_Starts)
