"""The engine protocol: what decoders and jobs ask a language model. Imports no library that runs one."""

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


class UsageCounter:
    """Counts an engine's usage between two calls of `take`; every engine has one."""

    def __init__(self) -> None:
        """Starts at zero."""
        self._usage = Usage()

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


class Engine(Protocol):
    """Answers batches of questions about the next tokens of N prompts.

    If prompts have image placeholders, `images` are each prompt's images, in the order of its placeholders.
    """

    usage: UsageCounter
    """Everything since the last `take`."""

    def logprobs(
        self, prompts: "Sequence[Ids]", allowed: Sequence[list[int]], images: "Sequence[Sequence[ArtworkImage]]" = ()
    ) -> list[np.ndarray]:
        """Returns each prompt's log-probabilities of its allowed next tokens, in their order.

        They belong to the distribution over the whole vocabulary: the caller renormalizes.

        Args:
            prompts: [N] ids.
            allowed: [N] lists of ids.
            images: [N] images, or empty for text.

        Returns:
            [N] arrays, each as long as its list of allowed ids.
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
        """Returns each prompt's continuation, without the stop token that ended it.

        Args:
            prompts: [N] ids.
            max_tokens: length of a continuation that no stop token ended.
            stop: ids that end a continuation.
            sampling: how to sample; greedy if None.
            images: [N] images, or empty for text.

        Returns:
            [N] lists of ids.
        """
        ...
