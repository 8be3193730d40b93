"""Validation: the model chooses for held-out examples with a decoder that scores."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import Trainer

from artsel_ray.decoding.base import Questions
from artsel_ray.decoding.decoders import DECODERS
from artsel_ray.engines.torch import TorchEngine
from artsel_ray.train.examples import TrainingExamples

# Examples whose images are in memory together.
_EXAMPLES_WITH_IMAGES = 32


def validate(trainer: Trainer, examples: TrainingExamples) -> dict[str, float]:
    """Chooses for the examples as scoring does; the workers share them.

    Returns:
        `validation_accuracy`, and `validation_ips`: the mean of hit · m, for π uniform over m candidates.
    """
    accelerator = trainer.accelerator
    # A sharded model answers only when all workers ask the same number of questions: then each chooses for all.
    workers = 1 if trainer.is_fsdp_enabled else accelerator.num_processes
    own = range(accelerator.process_index % workers, len(examples), workers)
    model: Any = trainer.model
    engine = TorchEngine(model, examples.tokenizer.placeholders)
    at_once = _EXAMPLES_WITH_IMAGES if examples.tokenizer.placeholders else max(len(own), 1)
    hits: list[bool] = []
    for start in range(0, len(own), at_once):
        some = own[start : start + at_once]
        choices = _choose(engine, examples, some)
        hits += [choice == examples.label_n[index] for choice, index in zip(choices, some, strict=True)]
    weighted = [hit * len(examples.answers(index)) for hit, index in zip(hits, own, strict=True)]
    sums = torch.tensor([len(own), sum(hits), sum(weighted)], dtype=torch.float32, device=accelerator.device)
    count, *totals = accelerator.reduce(sums, "sum").tolist()
    accuracy, ips = (total / count for total in totals)
    return {"validation_accuracy": accuracy, "validation_ips": ips}


def _choose(engine: TorchEngine, examples: TrainingExamples, indices: Sequence[int]) -> list[int]:
    """Returns the index of the candidate that is chosen for each of these examples."""
    tokenizer = examples.tokenizer
    prompts = [examples.prompt(index) for index in indices]
    images = [examples.images(index) for index in indices]
    if tokenizer.spec.reason:
        stop = [tokenizer.option, *tokenizer.end]
        written = engine.generate(prompts, tokenizer.spec.reason_tokens, stop, images=images)
        prompts = [tokenizer.with_rationale(prompt, ids)[0] for prompt, ids in zip(prompts, written, strict=True)]
    answers = [examples.answers(index) for index in indices]
    return DECODERS["choose"].decode(engine, Questions(tokenizer, prompts, answers, images)).candidates
