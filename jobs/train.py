"""Post-trains a model on examples."""

from collections.abc import Callable

from artsel_ray.config import TrainConfig, run


def job() -> Callable[[TrainConfig], object]:
    from artsel_ray.train.job import train

    return train


if __name__ == "__main__":
    run(TrainConfig, job)
