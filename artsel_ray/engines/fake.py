"""An engine without a model, to measure and test everything else."""

import time
from collections.abc import Sequence

import numpy as np

from artsel_ray.data.images import ArtworkImage
from artsel_ray.engines.base import Sampling, UsageCounter
from artsel_ray.prompts.tokenizer import Ids

_BLOCK = 16


class FakeEngine:
    """Answers with numbers that depend on the prompt's length and the allowed tokens only.

    At once, or after the time that an engine would take that computes what a prompt does not share with the last one.
    """

    def __init__(self, tokens_per_second: float | None = None) -> None:
        """Takes the speed to pretend."""
        self._seconds_per_token = 1 / tokens_per_second if tokens_per_second else 0.0
        self._last: Ids = np.empty(0, dtype=np.int32)
        self.usage = UsageCounter()

    def logprobs(
        self, prompts: Sequence[Ids], allowed: Sequence[list[int]], images: Sequence[Sequence[ArtworkImage]] = ()
    ) -> list[np.ndarray]:
        """See `artsel_ray.engines.base.Engine`."""
        self._count(prompts)
        return [
            -np.abs(np.sin(np.array(ids, dtype=np.float64) * (len(prompt) + 1))) - 0.1
            for prompt, ids in zip(prompts, allowed, strict=True)
        ]

    def generate(
        self,
        prompts: Sequence[Ids],
        max_tokens: int,
        stop: Sequence[int],
        sampling: Sampling | None = None,
        images: Sequence[Sequence[ArtworkImage]] = (),
    ) -> list[list[int]]:
        """See `artsel_ray.engines.base.Engine`."""
        self._count(prompts)
        return [prompt[-max_tokens:].tolist() for prompt in prompts]

    def _count(self, prompts: Sequence[Ids]) -> None:
        with self.usage.timed() as usage:
            asked = sum(map(len, prompts))
            usage.prompt_tokens += asked
            usage.decoded_tokens += len(prompts)
            if self._seconds_per_token:
                shared = sum(self._shared(prompt) for prompt in prompts)
                usage.cached_tokens += shared
                time.sleep((asked - shared) * self._seconds_per_token)

    def _shared(self, prompt: Ids) -> int:
        """Returns how many tokens a prompt shares with the start of the last one, in whole blocks."""
        length = min(len(prompt), len(self._last))
        different = np.flatnonzero(prompt[:length] != self._last[:length])
        self._last = prompt
        return int(different[0] if len(different) else length) // _BLOCK * _BLOCK
