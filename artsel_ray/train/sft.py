"""SFT: the model learns to answer with the engaged artwork. Loss on the answer alone, `-log p(a* | x, u)`."""

from typing import Any

import torch
from datasets import Dataset
from transformers import Trainer
from trl import SFTConfig, SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from artsel_ray.prompts.tokenizer import TokenizedExample
from artsel_ray.train.examples import TrainingExamples
from artsel_ray.train.trainers import Order, RendersItself, TrainingTask, arguments

_IGNORED = -100
"""The label that torch's cross-entropy leaves out."""


class SftCollator:
    """Renders the examples of a batch and pads them."""

    def __init__(self, examples: TrainingExamples, order: Order, pad_token_id: int) -> None:
        """Renders `examples` by their index.

        Args:
            order: knows the epoch, on which shuffled candidates depend.
            pad_token_id: fills shorter examples.
        """
        self._examples, self._order = examples, order
        self._pad = DataCollatorForLanguageModeling(pad_token_id=pad_token_id)

    def __call__(self, rows: list[dict[str, int]]) -> dict[str, torch.Tensor]:
        """Returns `input_ids`, `attention_mask` and `labels`, each [rows, longest], and the images' tensors.

        Every id that is not part of the answer is labeled -100.
        """
        encoded = [self._examples.example(row["index"], self._order.epoch) for row in rows]
        batch = self._pad([{"input_ids": each.ids, "labels": _labels(each)} for each in encoded])
        placeholders = self._examples.tokenizer.placeholders
        if placeholders is None:
            return batch
        return batch | placeholders.inputs(batch["input_ids"], [each.images for each in encoded])


def _labels(example: TokenizedExample) -> list[int]:
    return [
        token if supervised else _IGNORED for token, supervised in zip(example.ids, example.supervised, strict=True)
    ]


class _SftTrainer(RendersItself, SFTTrainer):
    """TRL's trainer, whose batches are rendered by the collator."""


def sft_trainer(task: TrainingTask) -> Trainer:
    """Returns TRL's trainer of a task's examples."""
    order = task.order(task.examples.length_n)
    settings: dict[str, Any] = arguments(task.optimization)
    trainer = _SftTrainer(
        model=task.model,
        args=SFTConfig(**settings, dataset_kwargs={"skip_prepare_dataset": True}, shuffle_dataset=False),
        train_dataset=Dataset.from_dict({"index": range(len(task.examples))}),
        data_collator=SftCollator(task.examples, order, task.pad_token_id),
        processing_class=task.examples.tokenizer.tokenizer,
        peft_config=task.lora,
    )
    trainer.order = order
    return trainer
