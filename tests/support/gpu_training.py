"""What two GPUs would do in a training, on two CPU processes: run by `torchrun` from tests/train/test_distributed.py.

Base weights in bfloat16, bfloat16 autocast, gradient checkpointing, DDP: all of it runs on CPUs too, only slower.
(FSDP2 does not: accelerate 1.15 ignores it on CPUs.)
"""

import json
import sys
import tempfile
from typing import Any

import torch

from artsel_ray.config import from_flags
from artsel_ray.models.weights import read_model
from artsel_ray.train import choice, dpo, loop, sft, trainers
from artsel_ray.train.job import training_of
from artsel_ray.train.settings import TrainConfig


def gpu_arguments(task: trainers.TrainingTask) -> dict[str, Any]:
    """Returns the arguments of a training on GPUs, but for the device."""
    return {**trainers.arguments(task), "bf16": True, "gradient_checkpointing": True}


def main() -> None:
    """Runs trainings one after another; the first process writes each one's history."""
    for module in (sft, dpo, choice):
        module.arguments = gpu_arguments  # type: ignore[attr-defined]
    loop._read_weights = lambda name, path, is_frozen: read_model(path, torch.bfloat16 if is_frozen else torch.float32)
    for flags in json.loads(sys.argv[1]):
        config = from_flags(TrainConfig, **flags)
        with tempfile.TemporaryDirectory() as scratch:
            fitted = loop.fit(training_of(config), scratch, None, [], print)
        if torch.distributed.get_rank() == 0:
            with open(f"{config.output}/history.json", "w") as file:
                json.dump({"error": fitted.error, "history": fitted.history}, file)


if __name__ == "__main__":
    main()
