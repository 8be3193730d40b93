"""SFT: the model learns to answer with the engaged artwork. Loss on the answer alone, `-log p(a* | x, u)`."""

from typing import Any

from transformers import Trainer
from trl import SFTConfig, SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from artsel_ray.models.packed_attention import PACKED
from artsel_ray.prompts.packing import pack
from artsel_ray.prompts.tokenizer import TokenizedExample
from artsel_ray.train.examples import Batch, TrainingExamples
from artsel_ray.train.orders import Order
from artsel_ray.train.trainers import RendersItself, TrainingTask, arguments, row_weights

_IGNORED = -100  # the label that torch's cross-entropy leaves out


class SftCollator:
    """Renders the examples of a batch by their index and pads them; `order` knows the epoch."""

    packs = False
    """Whether a batch has what the answers are predicted from as packed rows, and else the answers alone."""

    def __init__(self, examples: TrainingExamples, order: Order, pad_token_id: int) -> None:
        self._examples, self.order = examples, order
        self._pad = DataCollatorForLanguageModeling(pad_token_id=pad_token_id)

    def __call__(self, rows: list[dict[str, Any]]) -> Batch:
        """Returns tensors [rows, longest], and the images'; ids that are not part of the answer are labeled -100."""
        order = self.order
        encoded = [self._examples.example(row["index"], order.epoch, order.shuffle_key(row["index"])) for row in rows]
        # The token before the answer predicts its first.
        tails = [1 + sum(each.supervised) if self.packs else len(each.ids) for each in encoded]
        batch = self._pad(
            [
                {"input_ids": each.ids[-tail:], "labels": _labels(each)[-tail:]}
                for each, tail in zip(encoded, tails, strict=True)
            ]
        )
        if self.packs:
            batch[PACKED] = pack([each.ids for each in encoded], tails)
        return self._examples.with_images(batch, [each.images for each in encoded]) | row_weights(rows)


def _labels(example: TokenizedExample) -> list[int]:
    pairs = zip(example.ids, example.supervised, strict=True)
    return [token if supervised else _IGNORED for token, supervised in pairs]


class _SftTrainer(RendersItself, SFTTrainer):
    """TRL's trainer, whose batches are rendered by the collator."""


def sft_trainer(task: TrainingTask) -> Trainer:
    """Returns TRL's trainer of a task's examples."""
    examples = task.examples
    if same := sum(int(examples.same_answers(index).sum()) > 1 for index in range(len(examples))):
        alike = "engage with an artwork that reads the same as another candidate: nothing tells the two apart"
        examples.notices.append(f"warning: {same:,} of {len(examples):,} train examples {alike}")
    args = SFTConfig(**arguments(task), dataset_kwargs={"skip_prepare_dataset": True}, shuffle_dataset=False)
    collator = SftCollator(examples, task.order(range(len(examples))), task.pad_token_id)
    return _SftTrainer(task, args, range(len(examples)), collator)
