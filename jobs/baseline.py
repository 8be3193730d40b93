"""Trains the non-LLM network, and predicts validation and test with it."""

from artsel_ray.baseline.settings import BaselineConfig
from artsel_ray.command_line import run

if __name__ == "__main__":
    run(BaselineConfig, "artsel_ray.baseline.job:baseline")
