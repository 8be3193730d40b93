"""SFT: the model learns to answer with the engaged artwork. Loss on the answer alone, `-log p(a* | x, u)`."""

from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer
from trl import SFTConfig, SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from artsel_ray.train.data import TrainingExamples
from artsel_ray.train.settings import TrainConfig
from artsel_ray.train.trainers import Order, RendersItself, arguments

_IGNORED = -100


class SftCollator:
    """Renders examples and pads them; every id that is not of the answer is labelled -100."""

    def __init__(self, examples: TrainingExamples, order: Order, pad_token_id: int) -> None:
        """Takes what a batch's indices stand for, and what knows the epoch."""
        self._examples, self._order = examples, order
        self._pad = DataCollatorForLanguageModeling(pad_token_id=pad_token_id)

    def __call__(self, rows: list[dict[str, int]]) -> dict[str, torch.Tensor]:
        """Returns `input_ids`, `attention_mask` and `labels`, each [rows, longest], and what the model sees."""
        encoded = [self._examples.example(row["index"], self._order.epoch) for row in rows]
        batch = self._pad(
            [
                {
                    "input_ids": each.ids,
                    "labels": [
                        token if supervised else _IGNORED
                        for token, supervised in zip(each.ids, each.supervised, strict=True)
                    ],
                }
                for each in encoded
            ]
        )
        placeholders = self._examples.tokenizer.placeholders
        return (
            batch | placeholders.inputs(batch["input_ids"], [each.images for each in encoded])
            if placeholders
            else batch
        )


class _SftTrainer(RendersItself, SFTTrainer):
    """TRL's trainer, whose batches are rendered by the collator."""


def sft_trainer(
    config: TrainConfig,
    examples: TrainingExamples,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    lora: LoraConfig | None,
    output_dir: str,
    callbacks: list[Any],
) -> Trainer:
    """Returns TRL's trainer of these examples; `lora` of None trains all weights."""
    order = Order(examples.length_n, config.batch_size, config.seed)
    trainer = _SftTrainer(
        model=model,
        args=SFTConfig(
            **arguments(config, output_dir), dataset_kwargs={"skip_prepare_dataset": True}, shuffle_dataset=False
        ),
        train_dataset=Dataset.from_dict({"index": range(len(examples))}),
        data_collator=SftCollator(examples, order, int(tokenizer.pad_token_id)),
        processing_class=tokenizer,
        peft_config=lora,
        callbacks=callbacks,
    )
    trainer.order = order
    return trainer
