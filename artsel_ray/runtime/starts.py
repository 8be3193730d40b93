"""Counts how often actors start. Apart from them: the process that counts imports Ray and nothing else."""

import ray


class _Starts:
    """Counts actors' starts since the last completed shard: Ray restarts forever what dies."""

    def __init__(self) -> None:
        self._count = self._restarts = 0
        self._reason = ""

    def add(self, is_restart: bool) -> tuple[int, str]:
        """Counts a start; returns how many there were, and why the last actor failed, if it could say it."""
        self._count += 1
        self._restarts += is_restart
        return self._count, self._reason

    def fail(self, reason: str) -> None:
        self._reason = reason

    def clear(self) -> int:
        """Called after a completed shard; returns the restarts since the one before."""
        restarts, self._restarts, self._count = self._restarts, 0, 0
        return restarts


# Not Ray's `max_restarts`, which counts over the whole run: engines that are restarted for their memory would end it.
Starts = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(_Starts)
