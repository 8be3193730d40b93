"""What a decoder asks of a language model, and nothing of any library that runs one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from artsel_ray.data.images import ArtworkImage
from artsel_ray.prompts.tokenizer import Ids


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn instead of decoded greedily."""

    temperature: float
    """0 is greedy."""
    top_p: float
    """Only the likeliest tokens with together this probability, in (0, 1]."""
    top_k: int
    """Only this many of the likeliest tokens; 0 is all."""
    seeds: Sequence[int]
    """One for each prompt, so that what is written does not depend on the other prompts."""


class Engine(Protocol):
    """Answers batches of questions about the next tokens of prompts.

    Where prompts have marks of pictures, `images` are each one's, in the order of their marks.
    """

    def logprobs(
        self, prompts: Sequence[Ids], allowed: Sequence[list[int]], images: Sequence[Sequence[ArtworkImage]] = ()
    ) -> list[np.ndarray]:
        """Returns for each prompt the log-probabilities of its allowed next tokens, in their order.

        They are of the unconstrained distribution: the caller renormalises.
        """
        ...

    def write(
        self,
        prompts: Sequence[Ids],
        max_tokens: int,
        stop: Sequence[int],
        sampling: Sampling | None = None,
        images: Sequence[Sequence[ArtworkImage]] = (),
    ) -> list[list[int]]:
        """Returns for each prompt its continuation, greedy or sampled, without the stop token that ended it.

        One that was not ended has `max_tokens` ids.
        """
        ...
