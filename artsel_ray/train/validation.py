"""Choices for held-out examples, by the decoding that scores, with the model as it is at the moment."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import reduce

from artsel_ray.config import DEFAULT_LIMITS, RowLimits
from artsel_ray.data.priors import Prior
from artsel_ray.decoding.base import Questions
from artsel_ray.decoding.decoders import DECODERS
from artsel_ray.engines.torch import TorchEngine
from artsel_ray.errors import InputError
from artsel_ray.evaluation.examples import Examples
from artsel_ray.evaluation.held_out import held_out_metrics, held_out_sums
from artsel_ray.evaluation.logging_policy import log_warnings
from artsel_ray.prompts.tokenizer import PromptTokenizer
from artsel_ray.train.examples import TrainingExamples
from artsel_ray.train.reading import COLUMNS, read_examples

Chooser = Callable[[TorchEngine, TrainingExamples, Sequence[int]], list[int]]

VALIDATION = "validation_"  # what names of metrics on validation begin with
# Examples whose images are in memory together.
_EXAMPLES_WITH_IMAGES = 32


def read_validation(
    uri: str, tokenizer: PromptTokenizer, max_model_length: int, size: int, image_roots: Sequence[str] = (),
    limits: RowLimits = DEFAULT_LIMITS, prior: Prior | None = None,
) -> TrainingExamples:  # fmt: skip
    """Reads the first examples, at most `size`, to choose for: all must be valid, and none needs a rationale."""
    empty = TrainingExamples(uri, tokenizer, image_roots=image_roots, limits=limits, prior=prior)
    examples = read_examples(empty, [*COLUMNS], max_model_length, size)
    right, label_n = [examples.right_answers(index) for index in range(len(examples))], np.array(examples.label_n)
    size_n, propensity_n = np.array([len(each) for each in right]), np.array(examples.propensity_n)
    text_c = np.concatenate([np.where(each, 0, 1 + np.arange(len(each))) for each in right])
    logged = Examples(np.arange(len(examples)), label_n, size_n, propensity_n, text_c)
    warnings = log_warnings(logged, label_n, np.array(examples.title_n))
    examples.notices += [f"warning: validation: {text}" for text in warnings]
    return examples


def choose(engine: TorchEngine, examples: TrainingExamples, indices: Sequence[int]) -> list[int]:
    """Returns the candidates that greedy decoding chooses for some examples, after a rationale where there are some."""
    tokenizer = examples.tokenizer
    prompts = [examples.prompt(index) for index in indices]
    images = [examples.images(index) for index in indices]
    if tokenizer.spec.reason:
        stop = [tokenizer.option, *tokenizer.end]
        written = engine.generate(prompts, tokenizer.spec.reason_tokens, stop, images=images)
        prompts = [tokenizer.with_rationale(prompt, ids)[0] for prompt, ids in zip(prompts, written, strict=True)]
    answers = [examples.answers(index) for index in indices]
    return DECODERS["choose"].decode(engine, Questions(tokenizer, prompts, answers, images)).candidates


def validate(
    engine: TorchEngine, examples: TrainingExamples, is_sharded: bool = False, choose: Chooser = choose
) -> dict[str, float]:
    """Returns the metrics of `held_out_metrics` for the engine's choices, each name after `validation_`.

    A choice that reads as the engaged artwork is right. They are NaN if the model answers with NaN. All workers call
    it, and share the examples.

    Args:
        choose: returns the choice for some examples.
        is_sharded: whether no worker has the complete model. Then all must ask the same number of questions, and each
            chooses for all examples.
    """
    state = PartialState()
    workers = 1 if is_sharded else state.num_processes
    own = range(state.process_index % workers, len(examples), workers)
    at_once = _EXAMPLES_WITH_IMAGES if examples.tokenizer.placeholders else max(len(own), 1)
    hits: list[float] = []
    # Once also without an example of its own: a chooser may wait for all workers.
    for start in range(0, max(len(own), 1), at_once):
        some = own[start : start + at_once]
        try:
            chosen = zip(choose(engine, examples, some), some, strict=True)
            hits += [float(examples.right_answers(index)[choice]) for choice, index in chosen]
        except InputError:  # the model answers with NaN; other workers wait for this one's sums
            hits += [math.nan] * len(some)
    share_n = np.array([examples.right_answers(index).mean() for index in own])
    # The log shows duplicates in equal shares.
    propensity_n = np.array([examples.propensity_n[index] * examples.right_answers(index).sum() for index in own])
    own_sums = held_out_sums(np.array(hits), 1 / share_n, propensity_n)
    sums = reduce(torch.tensor(own_sums, dtype=torch.float64, device=state.device), "sum")
    return {VALIDATION + name: value for name, value in held_out_metrics(sums.cpu().numpy()).items()}
