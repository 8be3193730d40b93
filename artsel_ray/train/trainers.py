"""What all methods share on TRL: settings, the order of examples, and rendering batch by batch."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import trl.trainer.utils
from peft import LoraConfig
from torch.utils.data import Sampler
from transformers import PreTrainedModel
from transformers.trainer_pt_utils import get_length_grouped_indices

from artsel_ray.train.examples import TrainingExamples
from artsel_ray.train.settings import Rejected

MLFLOW = "MLFLOW_TRACKING_URI"
"""The environment variable with MLflow's address, as MLflow names it."""


@dataclass(frozen=True)
class Optimization:
    """How a training runs, whatever its loss is."""

    output_dir: str
    """Local folder for checkpoints."""
    run_name: str
    """The run's name in MLflow."""
    learning_rate: float
    epochs: float
    max_steps: int | None
    """Optimizer steps, instead of `epochs`."""
    batch_size: int
    """Examples per optimizer step, over all workers."""
    micro_batch: int
    """Examples that a worker processes at once."""
    workers: int
    """Training processes."""
    fsdp: bool
    seed: int


@dataclass(frozen=True)
class TrainingTask:
    """What a method makes a trainer from."""

    examples: TrainingExamples
    model: PreTrainedModel
    lora: LoraConfig | None
    """None trains all weights."""
    optimization: Optimization
    beta: float
    """With DPO, how close to the reference model it stays."""
    rejected: Rejected
    """With DPO, how rejected candidates are drawn."""

    @property
    def pad_token_id(self) -> int:
        """Id that pads a batch."""
        return int(self.examples.tokenizer.tokenizer.pad_token_id)

    def order(self, length_n: Sequence[int]) -> "Order":
        """Returns the order of examples with these lengths, in tokens."""
        return Order(length_n, self.optimization.batch_size, self.optimization.seed)


class Order(Sampler[int]):
    """The order of an epoch: random, but with examples of similar length side by side, so that little is padded.

    It depends on seed and epoch alone, so that a resumed run has the order of an uninterrupted one. (The Trainer's own
    `group_by_length` draws from torch's global generator instead, whose state a resumed run has not.)
    """

    def __init__(self, length_n: Sequence[int], batch_size: int, seed: int) -> None:
        """Starts at epoch 0.

        Args:
            length_n: [N] tokens of each example.
            batch_size: examples per optimizer step.
            seed: seed of all epochs' orders.
        """
        self._length_n, self._batch_size, self._seed = list(length_n), batch_size, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the data loader before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Returns the number of examples."""
        return len(self._length_n)

    def __iter__(self) -> Iterator[int]:
        """Yields every index once."""
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self.epoch)
        yield from get_length_grouped_indices(self._length_n, self._batch_size, generator=generator)


class RendersItself:
    """Mixed into a TRL trainer whose collator turns indices into token ids: TRL has nothing to prepare or to shuffle.

    Both methods are private to TRL 1.16 and transformers 5.19; tests/train/test_trainers.py fails when they change.
    """

    order: Order

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        return dataset

    def _get_train_sampler(self, *_: Any) -> Order:
        return self.order


def compute_targets_only() -> None:
    """Makes TRL's fused head compute only the supervised positions on every device; loss and gradients are the same.

    TRL 1.16 does so on GPUs. Elsewhere it computes every position, because a compiled model would be compiled again for
    each number of them. Nothing is compiled here, and the head over 49,154 tokens was 96 % of a small Llama's time.
    """
    # Private; TRL 1.16 asks it here for nothing else. tests/train/test_trainers.py fails when it changes.
    trl.trainer.utils._use_triton = lambda device: True


def arguments(optimization: Optimization) -> dict[str, Any]:
    """Returns the training arguments that all methods share."""
    on_gpu = torch.cuda.is_available()
    at_once = optimization.micro_batch * optimization.workers
    return {
        "output_dir": optimization.output_dir,
        "per_device_train_batch_size": optimization.micro_batch,
        "gradient_accumulation_steps": optimization.batch_size // at_once,
        "learning_rate": optimization.learning_rate,
        "warmup_steps": 0.03,
        "lr_scheduler_type": "cosine",
        "num_train_epochs": optimization.epochs,
        "max_steps": -1 if optimization.max_steps is None else optimization.max_steps,
        "max_length": None,
        "bf16": on_gpu,
        "use_cpu": not on_gpu,
        # Not FSDP's own activation checkpointing: it renames modules, and PEFT then saves an empty adapter.
        "gradient_checkpointing": on_gpu,
        "fsdp": optimization.fsdp or None,
        "ddp_find_unused_parameters": False,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "eval_strategy": "no",
        "save_strategy": "no",
        "save_total_limit": 2,
        "report_to": ["mlflow"] if os.environ.get(MLFLOW) else [],
        "run_name": optimization.run_name,
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "dataloader_num_workers": 0,
        "seed": optimization.seed,
    }
