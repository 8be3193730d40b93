"""What a decoder asks of a language model, and nothing of any library that runs one."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from artsel_ray.prompts.tokenize import Ids


class Engine(Protocol):
    """Answers batches of questions about the next tokens of prompts."""

    def logprobs(self, prompts: Sequence[Ids], allowed: Sequence[list[int]]) -> list[np.ndarray]:
        """Returns for each prompt the log-probabilities of its allowed next tokens, in their order.

        They are of the unconstrained distribution: the caller renormalises.
        """
        ...

    def write(self, prompts: Sequence[Ids], max_tokens: int, stop: Sequence[int]) -> list[list[int]]:
        """Returns for each prompt the greedily decoded continuation, without the stop token that ended it."""
        ...
