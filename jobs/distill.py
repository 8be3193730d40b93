"""Has a teacher write the reason of every example's choice."""

from collections.abc import Callable

from artsel_ray.config import DistillConfig, run


def job() -> Callable[[DistillConfig], None]:
    from artsel_ray.distill.job import distill

    return distill


if __name__ == "__main__":
    run(DistillConfig, job)
