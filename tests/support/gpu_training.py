"""What two GPUs would do in a training, on two CPU processes: run by `torchrun` from tests/train/test_distributed.py.

Base weights in bfloat16, bfloat16 autocast, gradient checkpointing, DDP and FSDP2: all of it runs on CPUs too, only
slower.
"""

import functools
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate.state import PartialState
from accelerate.utils import DistributedType

from artsel_ray.config import from_flags
from artsel_ray.models.weights import read_model
from artsel_ray.train import choice, dpo, loop, sft, trainers
from artsel_ray.train.job import training_of
from artsel_ray.train.settings import TrainConfig


def gpu_arguments(task: trainers.TrainingTask) -> dict[str, Any]:
    """Returns the arguments of a training on GPUs, but for the device."""
    return {**trainers.arguments(task), "bf16": True, "gradient_checkpointing": True}


@functools.cache
def let_cpus_shard() -> None:
    """Makes accelerate, which ignores FSDP on CPUs, take two CPU processes for two devices of which it knows little."""
    initialize = PartialState.__init__

    def as_devices(self: PartialState, *args: Any, **kwargs: Any) -> None:
        initialize(self, *args, **kwargs)
        if self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type = DistributedType.MULTI_XPU

    PartialState.__init__ = as_devices


def main() -> None:
    """Runs trainings one after another, each to its end and again from its checkpoint of step 3.

    The first process writes each one's `history`, how it `resumed`, and whether its checkpoint `is_sharded`.
    """
    for module in (sft, dpo, choice):
        module.arguments = gpu_arguments  # type: ignore[attr-defined]
    loop._read_weights = lambda name, path, is_frozen: read_model(path, torch.bfloat16 if is_frozen else torch.float32)
    for flags in json.loads(sys.argv[1]):
        config = from_flags(TrainConfig, **flags)
        if config.optimization.fsdp:
            let_cpus_shard()
        # Each worker has a folder of its own, and Ray puts what they write into one checkpoint.
        own, merged = Path(config.output, f"worker-{os.environ['RANK']}"), Path(config.output, "checkpoint-3")
        fitted = loop.fit(training_of(config), str(own), None, [], print)
        shutil.copytree(own / merged.name, merged, dirs_exist_ok=True)
        torch.distributed.barrier()
        resumed = loop.fit(training_of(config), str(own), str(merged), [], print)
        if torch.distributed.get_rank() == 0:
            result = {"error": fitted.error, "history": fitted.history, "resumed": resumed.history}
            is_sharded = any(merged.glob("pytorch_model_fsdp*"))
            Path(config.output, "history.json").write_text(json.dumps({**result, "is_sharded": is_sharded}))


if __name__ == "__main__":
    main()
