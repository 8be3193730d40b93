"""Runs what the paper's tables need and shows our numbers beside its."""

from collections.abc import Callable

from artsel_ray.config import ReproduceConfig, run


def job() -> Callable[[ReproduceConfig], None]:
    from artsel_ray.reproduce.job import reproduce

    return reproduce


if __name__ == "__main__":
    run(ReproduceConfig, job)
