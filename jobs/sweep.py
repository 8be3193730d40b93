"""Trains once for each learning rate and keeps the best model."""

from artsel_ray.command_line import run
from artsel_ray.train.settings import SweepConfig

if __name__ == "__main__":
    run(SweepConfig, "artsel_ray.train.sweep:sweep")
