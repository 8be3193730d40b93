"""Turns logs and artworks into examples, splits and requests."""

from artsel_ray.config import run
from artsel_ray.prepare.settings import PrepareConfig

if __name__ == "__main__":
    run(PrepareConfig, "artsel_ray.prepare.job:prepare")
