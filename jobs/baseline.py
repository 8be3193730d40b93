"""Trains the network without a language model, and predicts validation and test with it."""

from collections.abc import Callable

from artsel_ray.config import BaselineConfig, run


def job() -> Callable[[BaselineConfig], None]:
    from artsel_ray.baseline.job import baseline

    return baseline


if __name__ == "__main__":
    run(BaselineConfig, job)
