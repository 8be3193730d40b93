"""Chooses an artwork for every user-title pair of the requests, or counts what that costs."""

from collections.abc import Callable

from artsel_ray.config import ScoreConfig, run


def job() -> Callable[[ScoreConfig], None]:
    from artsel_ray.score.cost_estimate import forecast
    from artsel_ray.score.job import score

    return lambda config: (forecast if config.plan else score)(config)


if __name__ == "__main__":
    run(ScoreConfig, job)
