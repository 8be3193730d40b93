"""Choice: the model learns to choose the engaged artwork among the title's, by exactly what `rank` scores with.

Softmax DPO (`dpo --negatives all`; S-DPO, arXiv 2406.09215) is the same loss on log-probabilities relative to those of
the model before the training.
"""

import copy
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import Trainer
from trl import SFTConfig, SFTTrainer

from artsel_ray.decoding import trie
from artsel_ray.engines.torch import left_padded
from artsel_ray.errors import InputError
from artsel_ray.models.packed_attention import PACKED, use_packed_attention
from artsel_ray.prompts.packing import pack
from artsel_ray.train.choice_objective import ChoiceQuestions, ask, choice_loss, log_probabilities
from artsel_ray.train.examples import TrainingExamples
from artsel_ray.train.orders import Order
from artsel_ray.train.trainers import WEIGHT, RendersItself, TrainingTask, arguments, row_weights


class ChoiceCollator:
    """Renders the questions about a batch's examples by their index; `order` knows the epoch."""

    packs = False
    """Whether a batch has its questions as packed rows, and else as padded ones."""

    def __init__(self, examples: TrainingExamples, order: Order, needs_all: bool) -> None:
        """Asks only what the engaged candidate's probability needs, unless all candidates' are needed.

        Examples with a prior have it in the batch if all are needed.
        """
        self._examples, self.order, self._needs_all = examples, order, needs_all

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Returns the inputs of the model, a row for each of the `questions`, and each example's `label`."""
        order, tokenizer = self.order, self._examples.tokenizer
        asked = [self._examples.question(row["index"], order.epoch, order.shuffle_key(row["index"])) for row in rows]
        tries = [trie.build(each.answers, tokenizer.option_end) for each in asked]
        wanted = [range(len(each.answers)) if self._needs_all else [each.label] for each in asked]
        questions = ask(tries, wanted)
        batch: dict[str, Any] = {
            "questions": questions, "label": torch.tensor([each.label if self._needs_all else 0 for each in asked])
        }  # fmt: skip
        if self._needs_all and asked[0].prior is not None:
            priors = [torch.from_numpy(each.prior) for each in asked]
            batch["prior"] = pad_sequence(priors, batch_first=True).float()
        pairs = zip(questions.prompts, questions.paths, strict=True)
        inputs = self._inputs([asked[prompt].prompt + path.tolist() for prompt, path in pairs])
        images = [asked[prompt].images for prompt in questions.prompts]
        return batch | self._examples.with_images(inputs, images) | row_weights(rows)

    def _inputs(self, ids: list[list[int]]) -> dict[str, Any]:
        """Returns the inputs of which the last position's logits answer the questions."""
        if self.packs:
            return {"input_ids": torch.tensor([each[-1:] for each in ids]), PACKED: pack(ids, [1] * len(ids))}
        rows = [torch.tensor(each) for each in ids]
        mask = left_padded([torch.ones_like(row) for row in rows], 0)
        inputs = {"input_ids": left_padded(rows, 0), "attention_mask": mask}
        if self._examples.tokenizer.placeholders is None:
            inputs["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)
        return inputs


class _ChoiceTrainer(RendersItself, SFTTrainer):
    """TRL's trainer with another loss."""

    shares_prompts = True
    beta: float | None = None
    """Beta of softmax DPO; without it, the objective `choice`."""
    ref_model: Any = None
    """What softmax DPO compares with, if it is not the model with its adapter off."""

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        """Returns the mean loss of a batch's examples; weights scale their gradients, as with the other methods."""
        weights = inputs.pop(WEIGHT, None)
        label, questions = inputs.pop("label"), inputs.pop("questions").to(inputs["input_ids"].device)
        prior = inputs.pop("prior", None)
        log_p = _log_probabilities(model, inputs, questions)
        if self.beta is None:
            losses = choice_loss(log_p, label, None if prior is None else prior.to(log_p.device))
        else:
            losses = choice_loss(log_p, label, -self.beta * self._reference(inputs, questions), self.beta)
        if weights is not None and losses.requires_grad:
            losses.register_hook(lambda gradient: gradient * weights.to(gradient))
        return losses.mean()

    @torch.no_grad()
    def _reference(self, inputs: dict[str, Any], questions: ChoiceQuestions) -> Tensor:
        """Returns the reference's log-probabilities; 0 instead of -inf where there is no candidate."""
        model: Any = self.ref_model or self.model
        adapter_off = nullcontext() if self.ref_model else self.accelerator.unwrap_model(model).disable_adapter()
        with adapter_off, self.accelerator.autocast():
            log_p = _log_probabilities(model, inputs, questions)
        return log_p.masked_fill(log_p.isinf(), 0)


def _log_probabilities(model: Any, inputs: dict[str, Any], questions: ChoiceQuestions) -> Tensor:
    logits = model(**inputs, use_cache=False, logits_to_keep=1).logits[:, -1]
    return log_probabilities(logits, questions)


def choice_trainer(task: TrainingTask) -> Trainer:
    """Returns the trainer of a task's examples.

    Raises:
        InputError: as `TrainingTask.comparable`, or if the prompt asks for a rationale.
    """
    return _trainer(task, needs_all=task.examples.prior is not None and task.training.learning.prior_in_loss)


def softmax_dpo_trainer(task: TrainingTask) -> Trainer:
    """Returns the trainer of `dpo --negatives all`; raises as `choice_trainer`."""
    reference = task.read_reference() if task.read_reference else None
    if reference is None and task.lora is None:  # all weights are trained
        reference = copy.deepcopy(task.model).requires_grad_(False)
    trainer = _trainer(task, needs_all=True, reference=reference)
    trainer.beta = task.training.learning.beta
    return trainer


def _trainer(task: TrainingTask, needs_all: bool, reference: Any = None) -> _ChoiceTrainer:
    examples = task.examples
    if examples.tokenizer.spec.reason:
        raise InputError(f"{task.training.model} writes a rationale first, which sft and dpo teach; take one of them")
    usable = task.comparable()
    collator = ChoiceCollator(examples, task.order(usable), needs_all)
    args = SFTConfig(**arguments(task), dataset_kwargs={"skip_prepare_dataset": True}, shuffle_dataset=False)
    trainer = _ChoiceTrainer(task, args, usable, collator)
    if reference is not None:
        trainer.ref_model = trainer.accelerator.prepare_model(reference.eval(), evaluation_mode=True)
        collator.packs = collator.packs and use_packed_attention(reference)
    return trainer
