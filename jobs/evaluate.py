"""Accuracy and off-policy estimates of predictions, with intervals."""

from collections.abc import Callable

from artsel_ray.config import EvaluateConfig, run


def job() -> Callable[[EvaluateConfig], None]:
    from artsel_ray.evaluate.job import evaluate

    return evaluate


if __name__ == "__main__":
    run(EvaluateConfig, job)
