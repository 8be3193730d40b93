"""Trainings on Ray Train that neither retry forever nor take Ctrl-C from the job."""

from typing import Any

from ray.train.torch import TorchTrainer
from ray.train.v2.api.config import FailureConfig
from ray.train.v2.api.exceptions import ControllerError

from artsel_ray.errors import one_line, sentences

# Ray Train's own limits are infinite. Each start waits for a minute.
MAX_STARTS, _MAX_PREEMPTIONS = 10, 100


class Trainer(TorchTrainer):
    """Ray Train's trainer, which leaves Ctrl-C to the job."""

    def _register_sigint_handler(self, controller: Any) -> None:
        """Does nothing; Ray Train 2.60 would end the job with exit code 0. A test fails when it is no longer called."""


def restarts(max_failures: int) -> FailureConfig:
    """Returns how often a training may fail, and how often its workers may not even start."""
    return FailureConfig(
        max_failures=max_failures, controller_failure_limit=MAX_STARTS, max_preemption_failures=_MAX_PREEMPTIONS
    )


def cause(error: Exception, workers: int) -> str:
    """Returns in one line why a training on a number of workers failed."""
    if isinstance(error, ControllerError):
        first = sentences(one_line(error.controller_failure))[0]
        return f"{workers} worker(s) did not start in {MAX_STARTS + 1} tries: {first} Ask for fewer --workers"
    return str(error).strip().splitlines()[-1]
