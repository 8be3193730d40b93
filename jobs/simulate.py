"""Writes a simulated world: titles, artworks, interactions, impressions and the oracle."""

from artsel_ray.command_line import run
from artsel_ray.simulate.settings import SimulateConfig

if __name__ == "__main__":
    run(SimulateConfig, "artsel_ray.simulate.job:simulate")
