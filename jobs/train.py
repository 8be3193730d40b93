"""Post-trains a model on examples."""

from artsel_ray.command_line import run
from artsel_ray.train.settings import TrainConfig

if __name__ == "__main__":
    run(TrainConfig, "artsel_ray.train.job:train")
