"""Has a teacher write a rationale for each example's choice."""

from artsel_ray.command_line import run
from artsel_ray.distill.settings import DistillConfig

if __name__ == "__main__":
    run(DistillConfig, "artsel_ray.distill.job:distill")
