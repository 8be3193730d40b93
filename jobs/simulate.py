"""Writes a simulated world: titles, artworks, interactions, impressions and the oracle."""

from collections.abc import Callable

from artsel_ray.config import SimulateConfig, run


def job() -> Callable[[SimulateConfig], None]:
    from artsel_ray.simulate.job import simulate

    return simulate


if __name__ == "__main__":
    run(SimulateConfig, job)
