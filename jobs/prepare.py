"""Turns logs and artworks into examples, splits and requests."""

from artsel_ray.command_line import run
from artsel_ray.prepare.settings import PrepareConfig

if __name__ == "__main__":
    run(PrepareConfig, "artsel_ray.prepare.job:prepare")
