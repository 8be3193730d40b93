"""DPO: the model learns to prefer the engaged artwork to another candidate (Rafailov et al., arXiv 2305.18290).

The reference is the same model with its adapter off. A training that starts from an earlier one trains its adapter
further, and the reference is a second model, as that training made it. (TRL's own way, a frozen copy of the adapter
that is switched on for the reference, fails on DDP workers: a parameter gets no gradient in PEFT 0.21 and TRL 1.16.)
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers import Trainer
from trl import DPOConfig, DPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference

from artsel_ray.models.packed_attention import PACKED
from artsel_ray.prompts.packing import PackedRows, pack
from artsel_ray.train.choice import softmax_dpo_trainer
from artsel_ray.train.examples import RATIONALE_STREAM, REJECTED_STREAM, Batch, TrainingExamples
from artsel_ray.train.orders import Order
from artsel_ray.train.settings import Rejected
from artsel_ray.train.trainers import RendersItself, TrainingTask, arguments, row_weights


class Rejections:
    """Draws each example's rejected candidate, by the example's seed, index and epoch alone."""

    def __init__(self, examples: TrainingExamples, method: Rejected) -> None:
        self._examples, self._method = examples, method
        propensities: defaultdict[tuple[int, int], list[float]] = defaultdict(list)
        self._rationales: defaultdict[tuple[int, int], list[str]] = defaultdict(list)
        columns = (examples.title_n, examples.label_n, examples.propensity_n, examples.rationale_n)
        for title, label, propensity, rationale in zip(*columns, strict=True):
            if np.isfinite(propensity):
                propensities[title, label].append(propensity)
            if rationale:
                self._rationales[title, label].append(rationale)
        self._mean_propensity = {key: float(np.mean(values)) for key, values in propensities.items()}

    def draw(self, index: int, epoch: int) -> tuple[int, str | None]:
        """Returns the rejected candidate's stored index and its rationale: another example's, else this example's."""
        examples = self._examples
        weights = self._weights(index)
        rng = np.random.default_rng([examples.seed, REJECTED_STREAM, epoch, index])
        rejected = int(rng.choice(len(weights), p=weights / weights.sum()))
        if not examples.tokenizer.spec.reason:
            return rejected, None
        rationales: Sequence[str] | None = self._rationales.get((examples.title_n[index], rejected))
        if not rationales:
            return rejected, examples.rationale_n[index]
        rng = np.random.default_rng([examples.seed, RATIONALE_STREAM, epoch, index])
        return rejected, rationales[int(rng.integers(len(rationales)))]

    def _weights(self, index: int) -> np.ndarray:
        """Returns how likely each candidate is rejected, up to a factor: [M]; 0 for those that read like the label."""
        title, others = self._examples.title_n[index], 1.0 - self._examples.same_answers(index)
        if self._method == "logged":
            logged = others * [self._mean_propensity.get((title, each), 0.0) for each in range(len(others))]
            if logged.any():  # otherwise no other candidate of this title was ever logged
                return logged
        return others


class DpoCollator:
    """Renders the examples of a batch by their index, with chosen and rejected answers; `order` knows the epoch."""

    packs = False
    """As in `SftCollator`."""

    def __init__(self, examples: TrainingExamples, rejections: Rejections, order: Order, pad_token_id: int) -> None:
        self._examples, self._rejections, self.order = examples, rejections, order
        self._pad = DataCollatorForPreference(pad_token_id=pad_token_id)

    def __call__(self, rows: list[dict[str, Any]]) -> Batch:
        """Returns tensors [2 · rows, longest], the chosen answers first, and the images' tensors in the same order."""
        epoch, pairs, images = self.order.epoch, [], []
        for index in (row["index"] for row in rows):
            rejected, key = self._rejections.draw(index, epoch), self.order.shuffle_key(index)
            pair = self._examples.preference(index, epoch, *rejected, key)
            pairs.append({"prompt_ids": pair.prompt, "chosen_ids": pair.chosen, "rejected_ids": pair.rejected})
            images.append(pair.images)
        packed = _packed(pairs) if self.packs else None
        if packed:  # the prompt's last token predicts an answer's first
            pairs = [{**pair, "prompt_ids": pair["prompt_ids"][-1:]} for pair in pairs]
        batch = self._examples.with_images(self._pad(pairs), images * 2) | row_weights(rows, copies=2)
        return batch | {PACKED: packed} if packed else batch


def _packed(pairs: list[dict[str, list[int]]]) -> PackedRows:
    answers = [(pair["prompt_ids"], pair[name]) for name in ("chosen_ids", "rejected_ids") for pair in pairs]
    return pack([prompt + answer for prompt, answer in answers], [1 + len(answer) for _, answer in answers])


class _DpoTrainer(RendersItself, DPOTrainer):
    """TRL's trainer, whose batches are rendered by the collator."""


def dpo_trainer(task: TrainingTask) -> Trainer:
    """Returns TRL's trainer of a task's examples.

    Raises:
        InputError: as `TrainingTask.comparable`.
    """
    examples, learning = task.examples, task.training.learning
    if learning.negatives == "all":
        return softmax_dpo_trainer(task)
    usable = task.comparable()
    args = DPOConfig(**arguments(task), beta=learning.beta)
    reference = task.read_reference() if task.read_reference else None
    collator = DpoCollator(examples, Rejections(examples, learning.rejected), task.order(usable), task.pad_token_id)
    return _DpoTrainer(task, args, usable, collator, ref_model=reference)
