"""DPO: the model learns to prefer the engaged artwork to another candidate (Rafailov et al., arXiv 2305.18290).

The reference is the same model with its adapters off. A training that starts from an earlier one starts from its
merged model with a fresh adapter, so that the reference is what that training made.
"""

import torch
from datasets import Dataset
from transformers import Trainer
from trl import DPOConfig, DPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference

from artsel_ray.errors import InputError
from artsel_ray.train.examples import TrainingExamples
from artsel_ray.train.rejections import Rejections
from artsel_ray.train.trainers import Order, RendersItself, TrainingTask, arguments


class DpoCollator:
    """Renders the examples of a batch with their chosen and rejected answers, and pads them."""

    def __init__(self, examples: TrainingExamples, rejections: Rejections, order: Order, pad_token_id: int) -> None:
        """Renders `examples` by their index.

        Args:
            rejections: draws the rejected candidates.
            order: knows the epoch, on which rejected and shuffled candidates depend.
            pad_token_id: fills shorter examples.
        """
        self._examples, self._rejections, self._order = examples, rejections, order
        self._pad = DataCollatorForPreference(pad_token_id=pad_token_id)

    def __call__(self, rows: list[dict[str, int]]) -> dict[str, torch.Tensor]:
        """Returns `input_ids`, `attention_mask` and `completion_mask`, and the images' tensors in the same order.

        Each is [2 · rows, longest], the chosen answers first.
        """
        epoch, pairs, images = self._order.epoch, [], []
        for row in rows:
            rejected, rationale = self._rejections.draw(row["index"], epoch)
            pair = self._examples.preference(row["index"], epoch, rejected, rationale)
            pairs.append({"prompt_ids": pair.prompt, "chosen_ids": pair.chosen, "rejected_ids": pair.rejected})
            images.append(pair.images)
        batch, placeholders = self._pad(pairs), self._examples.tokenizer.placeholders
        return batch if placeholders is None else batch | placeholders.inputs(batch["input_ids"], images * 2)


class _DpoTrainer(RendersItself, DPOTrainer):
    """TRL's trainer, whose batches are rendered by the collator."""


def dpo_trainer(task: TrainingTask) -> Trainer:
    """Returns TRL's trainer of a task's examples.

    Raises:
        InputError: if no title has another candidate to reject.
    """
    rejections = Rejections(task.examples, task.rejected)
    usable = rejections.usable()
    if not usable:
        raise InputError(f"{task.examples.uri}: no title has two candidates, so there is none to reject; use sft")
    order = task.order([task.examples.length_n[index] for index in usable])
    trainer = _DpoTrainer(
        model=task.model,
        args=DPOConfig(**arguments(task.optimization), beta=task.beta),
        train_dataset=Dataset.from_dict({"index": usable}),
        data_collator=DpoCollator(task.examples, rejections, order, task.pad_token_id),
        processing_class=task.examples.tokenizer.tokenizer,
        peft_config=task.lora,
    )
    trainer.order = order
    return trainer
