"""DPO: the model learns to prefer the engaged artwork to another candidate (Rafailov et al., arXiv 2305.18290).

The reference is the same model with its adapters off. A training that starts from an earlier one starts from its
merged model with a fresh adapter, so that the reference is what that training made.
"""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from transformers import Trainer
from trl import DPOConfig, DPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference

from artsel_ray.errors import InputError
from artsel_ray.train.examples import RATIONALE_STREAM, REJECTED_STREAM, Batch, TrainingExamples
from artsel_ray.train.settings import Rejected
from artsel_ray.train.trainers import Order, RendersItself, TrainingTask, arguments


class Rejections:
    """Draws each example's rejected candidate, by the example's seed, index and epoch alone."""

    def __init__(self, examples: TrainingExamples, method: Rejected) -> None:
        """Collects what the examples log about each title's candidates; see `LearningSettings.rejected`."""
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

    def usable(self) -> list[int]:
        """Returns the indices of the examples whose title has another candidate."""
        return [index for index in range(len(self._examples)) if len(self._examples.title(index).contents) > 1]

    def draw(self, index: int, epoch: int) -> tuple[int, str | None]:
        """Returns the rejected candidate's index in its stored order, and what speaks for it.

        Its rationale was written for another example of the title, whose user engaged with that candidate. Where there
        is none it is the example's own, so that only the prediction differs.
        """
        examples = self._examples
        weights = self._weights(examples.title_n[index], examples.label_n[index])
        rng = np.random.default_rng([examples.seed, REJECTED_STREAM, epoch, index])
        rejected = int(rng.choice(len(weights), p=weights / weights.sum()))
        if not examples.tokenizer.spec.reason:
            return rejected, None
        rationales: Sequence[str] | None = self._rationales.get((examples.title_n[index], rejected))
        if not rationales:
            return rejected, examples.rationale_n[index]
        rng = np.random.default_rng([examples.seed, RATIONALE_STREAM, epoch, index])
        return rejected, rationales[int(rng.integers(len(rationales)))]

    def _weights(self, title: int, label: int) -> np.ndarray:
        """Returns how likely each of a title's candidates is rejected, up to a factor: [M]."""
        others = np.ones(len(self._examples.titles[title].contents))
        others[label] = 0.0
        if self._method == "logged":
            logged = others * [self._mean_propensity.get((title, each), 0.0) for each in range(len(others))]
            if logged.any():  # otherwise no other candidate of this title was ever logged
                return logged
        return others


class DpoCollator:
    """Renders the examples of a batch by their index, with chosen and rejected answers; `order` knows the epoch."""

    def __init__(self, examples: TrainingExamples, rejections: Rejections, order: Order, pad_token_id: int) -> None:
        self._examples, self._rejections, self.order = examples, rejections, order
        self._pad = DataCollatorForPreference(pad_token_id=pad_token_id)

    def __call__(self, rows: list[dict[str, int]]) -> Batch:
        """Returns `input_ids`, `attention_mask` and `completion_mask`, and the images' tensors in the same order.

        Each is [2 · rows, longest], the chosen answers first.
        """
        epoch, pairs, images = self.order.epoch, [], []
        for row in rows:
            pair = self._examples.preference(row["index"], epoch, *self._rejections.draw(row["index"], epoch))
            pairs.append({"prompt_ids": pair.prompt, "chosen_ids": pair.chosen, "rejected_ids": pair.rejected})
            images.append(pair.images)
        return self._examples.with_images(self._pad(pairs), images * 2)


class _DpoTrainer(RendersItself, DPOTrainer):
    """TRL's trainer, whose batches are rendered by the collator."""


def dpo_trainer(task: TrainingTask) -> Trainer:
    """Returns TRL's trainer of a task's examples.

    Raises:
        InputError: if no title has another candidate to reject.
    """
    examples, learning = task.examples, task.training.learning
    rejections = Rejections(examples, learning.rejected)
    usable = rejections.usable()
    if not usable:
        raise InputError(f"{examples.uri}: no title has two candidates, so there is none to reject; use sft")
    order = task.order([examples.length_n[index] for index in usable])
    args = DPOConfig(**arguments(task.training, task.output_dir), beta=learning.beta)
    return _DpoTrainer(task, args, usable, DpoCollator(examples, rejections, order, task.pad_token_id))
