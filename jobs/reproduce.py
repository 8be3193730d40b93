"""Runs what the paper's tables need and shows our numbers next to its."""

from artsel_ray.command_line import run
from artsel_ray.reproduce.settings import ReproduceConfig

if __name__ == "__main__":
    run(ReproduceConfig, "artsel_ray.reproduce.job:reproduce")
