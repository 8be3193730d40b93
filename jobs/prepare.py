"""Turns logs and artworks into examples, splits and requests."""

from collections.abc import Callable

from artsel_ray.config import PrepareConfig, run


def job() -> Callable[[PrepareConfig], None]:
    from artsel_ray.prepare.job import prepare

    return prepare


if __name__ == "__main__":
    run(PrepareConfig, job)
