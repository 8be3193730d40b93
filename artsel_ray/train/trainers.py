"""What SFT and DPO have in common on TRL: settings, order of examples, and rendering batch by batch."""

import os
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import trl.trainer.utils
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices

from artsel_ray.train.settings import TrainConfig

MLFLOW = "MLFLOW_TRACKING_URI"
"""The variable that says where MLflow is, as MLflow names it."""


class Order(Sampler[int]):
    """The order of an epoch: random, but with examples of similar length side by side, so that little is padded.

    It depends on seed and epoch alone, so that a resumed run sees what the interrupted one would have seen.
    """

    def __init__(self, length_n: Sequence[int], batch_size: int, seed: int) -> None:
        """Takes the examples' tokens and the examples of an optimizer step."""
        self._length_n, self._batch_size, self._seed = list(length_n), batch_size, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Is called by the data loader before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Returns the number of examples."""
        return len(self._length_n)

    def __iter__(self) -> Iterator[int]:
        """Yields every index once."""
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self.epoch)
        yield from get_length_grouped_indices(self._length_n, self._batch_size, generator=generator)


class RendersItself:
    """Mixed into a TRL trainer whose collator makes token ids out of indices: TRL has nothing to prepare or shuffle."""

    order: Order

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        return dataset

    def _get_train_sampler(self, *_: Any) -> Order:
        return self.order


def compute_targets_only() -> None:
    """Makes TRL's fused head compute the supervised positions alone on every device; loss and gradients are the same.

    TRL 1.16 does so on GPUs; elsewhere it computes every position, because a compiled model would be compiled anew for
    each number of them. Nothing is compiled here, and the head over 49,154 tokens was 96 % of a small Llama's time.
    """
    trl.trainer.utils._use_triton = lambda device: True  # it is asked for nothing else there


def arguments(config: TrainConfig, output_dir: str) -> dict[str, Any]:
    """Returns the training arguments that both methods share."""
    on_gpu = torch.cuda.is_available()
    return {
        "output_dir": output_dir,
        "per_device_train_batch_size": config.micro_batch,
        "gradient_accumulation_steps": config.batch_size // (config.micro_batch * max(config.workers, 1)),
        "learning_rate": config.learning_rate,
        "warmup_steps": 0.03,
        "lr_scheduler_type": "cosine",
        "num_train_epochs": config.epochs,
        "max_steps": -1 if config.max_steps is None else config.max_steps,
        "max_length": None,
        "bf16": on_gpu,
        "use_cpu": not on_gpu,
        # Not FSDP's own activation checkpointing: it renames modules, and PEFT then saves an empty adapter.
        "gradient_checkpointing": on_gpu,
        "fsdp": config.fsdp or None,
        "ddp_find_unused_parameters": False,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "eval_strategy": "no",
        "save_strategy": "no",
        "save_total_limit": 2,
        "report_to": ["mlflow"] if os.environ.get(MLFLOW) else [],
        "run_name": config.output.partition("?")[0].rstrip("/").rpartition("/")[2],
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "dataloader_num_workers": 0,
        "seed": config.seed,
    }
