"""The engine protocol: what decoders and jobs ask a language model. Imports no library that runs one."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from artsel_ray.data.images import ArtworkImage
from artsel_ray.errors import InputError
from artsel_ray.prompts.tokenizer import Ids

Prompts = Sequence[Ids]
Images = Sequence[Sequence[ArtworkImage]]
"""Each prompt's images, in the order of its placeholders; empty for text."""

NOT_A_NUMBER = "the model answers with NaN: its weights are damaged, or overflow; take another --dtype or another model"


class RefusedError(Exception):
    """A library's refusal of what an engine asks it, which would be the same at any other try."""


@contextmanager
def refusals() -> Iterator[None]:
    """Makes a `ValueError` of the library that is asked in the `with` block a `RefusedError`, without its message: it
    may quote a prompt.
    """
    try:
        yield
    except ValueError as error:
        raise RefusedError(type(error).__name__).with_traceback(error.__traceback__) from None


@dataclass(frozen=True)
class Sampling:
    """How tokens are sampled. Without it, decoding is greedy."""

    temperature: float
    """0 is greedy."""
    top_p: float
    """Cumulative probability of the most likely tokens to sample from, in (0, 1]."""
    top_k: int
    """Number of most likely tokens to sample from; 0 means all."""
    seeds: Sequence[int]
    """[N] one for each prompt, so that a prompt's text does not depend on the other prompts."""


@dataclass
class Usage:
    """Tokens and time of an engine's calls."""

    prompt_tokens: int = 0
    """Prompt tokens, with those of expanded images."""
    cached_tokens: int = 0
    """Prompt tokens found in the prefix cache."""
    decoded_tokens: int = 0
    """Generated tokens; one for each question about log-probabilities."""
    seconds: float = 0.0
    """Wall-clock time."""


@dataclass
class UsageCounter:
    """Counts an engine's usage between two calls of `take`; every engine has one."""

    _usage: Usage = field(default_factory=Usage)

    @contextmanager
    def timed(self) -> Iterator[Usage]:
        """Adds the time of the `with` block to the usage; the block itself adds its tokens to what it is given."""
        started = time.perf_counter()
        yield self._usage
        self._usage.seconds += time.perf_counter() - started

    def take(self) -> Usage:
        """Returns the usage since the last call."""
        used, self._usage = self._usage, Usage()
        return used


def check_finite(values: np.ndarray) -> None:
    """Raises an InputError if what a model answered is not a number: a choice among such values is not the model's.

    Args:
        values: for each prompt the largest of its logits or log-probabilities.
    """
    if not np.isfinite(values).all():
        raise InputError(NOT_A_NUMBER)


class Engine(Protocol):
    """Answers batches of questions about the next tokens of N prompts."""

    usage: UsageCounter

    def logprobs(self, prompts: Prompts, allowed: Sequence[list[int]], images: Images = ()) -> list[np.ndarray]:
        """Returns [N] arrays: allowed next tokens' log-probabilities over the whole vocabulary, not renormalized."""
        ...

    def generate(
        self, prompts: Prompts, max_tokens: int, stop: list[int], sampling: Sampling | None = None, images: Images = ()
    ) -> list[list[int]]:
        """Returns each prompt's continuation, without the stop token that ended it; greedy if `sampling` is None."""
        ...
