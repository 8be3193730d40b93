"""Accuracy and off-policy estimates of predictions, with intervals."""

from artsel_ray.command_line import run
from artsel_ray.evaluate.settings import EvaluateConfig

if __name__ == "__main__":
    run(EvaluateConfig, "artsel_ray.evaluate.job:evaluate")
