"""An engine without a model: measures and tests everything else."""

import time
from collections.abc import Sequence

import numpy as np

from artsel_ray.engines.base import Images, Prompts, Sampling, UsageCounter
from artsel_ray.prompts.tokenizer import Ids

# Tokens of a page of vLLM's prefix cache, which holds full pages only.
_PAGE_TOKENS = 16


class FakeEngine:
    """Makes up log-probabilities from the prompt's length and the allowed tokens.

    It answers at once, or at `tokens_per_second`, like an engine that computes only what a prompt does not share with
    the one before.
    """

    def __init__(self, tokens_per_second: float | None = None) -> None:
        self._seconds_per_token = 1 / tokens_per_second if tokens_per_second else 0.0
        self._last: Ids = np.empty(0, dtype=np.int32)
        self.usage = UsageCounter()

    def logprobs(self, prompts: Prompts, allowed: Sequence[list[int]], images: Images = ()) -> list[np.ndarray]:
        """See `artsel_ray.engines.base.Engine`."""
        self._count(prompts)
        return [
            -np.abs(np.sin(np.array(ids, dtype=np.float64) * (len(prompt) + 1))) - 0.1
            for prompt, ids in zip(prompts, allowed, strict=True)
        ]

    def generate(
        self, prompts: Prompts, max_tokens: int, stop: list[int], sampling: Sampling | None = None, images: Images = ()
    ) -> list[list[int]]:
        """See `artsel_ray.engines.base.Engine`."""
        self._count(prompts)
        # As of a real engine, a shorter text is the beginning of a longer one.
        return [prompt[len(prompt) // 2 :][:max_tokens].tolist() for prompt in prompts]

    def _count(self, prompts: Prompts) -> None:
        with self.usage.timed() as usage:
            total = sum(map(len, prompts))
            usage.prompt_tokens += total
            usage.decoded_tokens += len(prompts)
            if self._seconds_per_token:
                shared = sum(self._shared(prompt) for prompt in prompts)
                usage.cached_tokens += shared
                time.sleep((total - shared) * self._seconds_per_token)

    def _shared(self, prompt: Ids) -> int:
        """Returns how many tokens a prompt shares with the start of the one before, in full pages."""
        length = min(len(prompt), len(self._last))
        different = np.flatnonzero(prompt[:length] != self._last[:length])
        self._last = prompt
        return int(different[0] if len(different) else length) // _PAGE_TOKENS * _PAGE_TOKENS
