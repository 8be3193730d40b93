"""Chooses an artwork for every user-title pair of the requests."""

from collections.abc import Callable

from artsel_ray.config import ScoreConfig, run


def job() -> Callable[[ScoreConfig], None]:
    from artsel_ray.inference.pipeline import score

    return score


if __name__ == "__main__":
    run(ScoreConfig, job)
