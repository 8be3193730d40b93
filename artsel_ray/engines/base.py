"""What decoders and jobs ask of a language model, and nothing of any library that runs one."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from artsel_ray.data.images import ArtworkImage
    from artsel_ray.prompts.tokenizer import Ids


@dataclass(frozen=True)
class Sampling:
    """How tokens are sampled instead of decoded greedily."""

    temperature: float
    """0 is greedy."""
    top_p: float
    """Only the most likely tokens that together have this probability, in (0, 1]."""
    top_k: int
    """Only this many of the most likely tokens; 0 means all."""
    seeds: Sequence[int]
    """One for each prompt, so that what is generated does not depend on the other prompts."""


@dataclass
class Usage:
    """What an engine has computed, and how long that took."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Prompt tokens that came from the prefix cache."""
    decoded_tokens: int = 0
    seconds: float = 0.0


class UsageCounter:
    """Counts an engine's usage between two calls of `take`. Every engine has one; nothing else counts."""

    def __init__(self) -> None:
        """Starts at nothing."""
        self._usage = Usage()

    @contextmanager
    def timed(self) -> Iterator[Usage]:
        """Adds the time of the block, and what the block adds to the usage it is given."""
        started = time.perf_counter()
        yield self._usage
        self._usage.seconds += time.perf_counter() - started

    def take(self) -> Usage:
        """Returns the usage since the last call."""
        used, self._usage = self._usage, Usage()
        return used


class Engine(Protocol):
    """Answers batches of questions about the next tokens of prompts.

    Where prompts have image placeholders, `images` are each prompt's, in the order of its placeholders.
    """

    usage: UsageCounter

    def logprobs(
        self, prompts: "Sequence[Ids]", allowed: Sequence[list[int]], images: "Sequence[Sequence[ArtworkImage]]" = ()
    ) -> list[np.ndarray]:
        """Returns for each prompt the log-probabilities of its allowed next tokens, in their order.

        They are of the unconstrained distribution: the caller renormalizes.
        """
        ...

    def generate(
        self,
        prompts: "Sequence[Ids]",
        max_tokens: int,
        stop: Sequence[int],
        sampling: Sampling | None = None,
        images: "Sequence[Sequence[ArtworkImage]]" = (),
    ) -> list[list[int]]:
        """Returns for each prompt its continuation, greedy or sampled, without the stop token that ended it.

        One that no stop token ended has `max_tokens` ids.
        """
        ...
