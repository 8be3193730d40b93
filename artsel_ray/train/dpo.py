"""DPO: the model learns to prefer the engaged artwork to another candidate (Rafailov et al., arXiv 2305.18290).

The reference is the same model with its adapters off. A training that starts from an earlier one starts from its
merged model with a fresh adapter, so that the reference is what that training made.
"""

from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer
from trl import DPOConfig, DPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference

from artsel_ray.errors import InputError
from artsel_ray.train.data import Rejections, TrainingExamples
from artsel_ray.train.settings import TrainConfig
from artsel_ray.train.trainers import Order, RendersItself, arguments


class DpoCollator:
    """Renders examples with their chosen and rejected answers, and pads them."""

    def __init__(self, examples: TrainingExamples, rejections: Rejections, order: Order, pad_token_id: int) -> None:
        """Takes what a batch's indices stand for, and what knows the epoch."""
        self._examples, self._rejections, self._order = examples, rejections, order
        self._pad = DataCollatorForPreference(pad_token_id=pad_token_id)

    def __call__(self, rows: list[dict[str, int]]) -> dict[str, torch.Tensor]:
        """Returns `input_ids`, `attention_mask` and `completion_mask`: [2 · rows, longest], the chosen ones first.

        And what the model sees, in the same order.
        """
        epoch, pairs, images = self._order.epoch, [], []
        for row in rows:
            rejected, reason = self._rejections.draw(row["index"], epoch)
            pair = self._examples.preference(row["index"], epoch, rejected, reason)
            pairs.append({"prompt_ids": pair.prompt, "chosen_ids": pair.chosen, "rejected_ids": pair.rejected})
            images.append(pair.images)
        batch, placeholders = self._pad(pairs), self._examples.tokenizer.placeholders
        return batch | placeholders.inputs(batch["input_ids"], images * 2) if placeholders else batch


class _DpoTrainer(RendersItself, DPOTrainer):
    """TRL's trainer, whose batches are rendered by the collator."""


def dpo_trainer(
    config: TrainConfig,
    examples: TrainingExamples,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    lora: LoraConfig | None,
    output_dir: str,
    callbacks: list[Any],
) -> Trainer:
    """Returns TRL's trainer of these examples.

    Raises:
        InputError: if no title has another candidate to reject.
    """
    rejections = Rejections(examples, config.rejected)
    usable = rejections.usable()
    if not usable:
        raise InputError(f"{config.examples}: no title has two candidates, so there is none to reject")
    order = Order([examples.length_n[index] for index in usable], config.batch_size, config.seed)
    trainer = _DpoTrainer(
        model=model,
        args=DPOConfig(**arguments(config, output_dir), beta=config.beta),
        train_dataset=Dataset.from_dict({"index": usable}),
        data_collator=DpoCollator(examples, rejections, order, int(tokenizer.pad_token_id)),
        processing_class=tokenizer,
        peft_config=lora,
        callbacks=callbacks,
    )
    trainer.order = order
    return trainer
