"""Trainings by several CPU processes (gloo, DDP): run by `torchrun` from tests/train/test_orders.py."""

import json
import sys
import tempfile

from artsel_ray.config import from_flags
from artsel_ray.train.job import training_of
from artsel_ray.train.loop import fit
from artsel_ray.train.settings import TrainConfig

if __name__ == "__main__":
    for flags in json.loads(sys.argv[1]):
        with tempfile.TemporaryDirectory() as scratch:
            fitted = fit(training_of(from_flags(TrainConfig, **flags)), scratch, None, [], print)
        assert not fitted.error, fitted.error
