"""Engines and a tokenizer without a model, and brute-force decoding to compare decoders with."""

import itertools
import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from artsel_ray.engines.base import Sampling, UsageCounter
from artsel_ray.prompts.tokenizer import Ids

END = 99


def ids(*tokens: int) -> Ids:
    return np.array(tokens, dtype=np.int32)


class HashEngine:
    """A language model whose next-token scores depend on the whole prompt; records its questions."""

    def __init__(self) -> None:
        self.usage = UsageCounter()
        self.questions: list[tuple[list[int], list[int]]] = []
        self.images: list[Any] = []

    def score(self, prompt: list[int], token: int) -> float:
        return math.sin(sum((index + 1) * (value + 1) for index, value in enumerate([*prompt, token]))) * 3

    def logprobs(self, prompts: Sequence[Ids], allowed: Sequence[list[int]], images: Any = ()) -> list[np.ndarray]:
        questions = [(prompt.tolist(), each) for prompt, each in zip(prompts, allowed, strict=True)]
        self.questions += questions
        self.images += list(images)
        return [np.array([self.score(prompt, token) for token in each]) for prompt, each in questions]

    def generate(
        self,
        prompts: Sequence[Ids],
        max_tokens: int,
        stop: Sequence[int],
        sampling: Sampling | None = None,
        images: Any = (),
    ) -> list[list[int]]:
        raise NotImplementedError


class SteeredEngine(HashEngine):
    """A language model that prefers one sequence after its prompt."""

    def __init__(self, prompt: list[int], sequence: list[int]) -> None:
        super().__init__()
        self._wanted = [*prompt, *sequence]

    def score(self, prompt: list[int], token: int) -> float:
        return float(self._wanted[: len(prompt) + 1] == [*prompt, token])


class CyclingEngine(HashEngine):
    """An engine that answers with given numbers, whatever the question, over and over."""

    def __init__(self, numbers: list[float]) -> None:
        super().__init__()
        self._numbers = itertools.cycle(numbers)

    def score(self, prompt: list[int], token: int) -> float:
        return next(self._numbers)


class WritingEngine(HashEngine):
    """An engine that generates given ids for each prompt."""

    def __init__(self, written: list[list[int]]) -> None:
        super().__init__()
        self._written = written

    def generate(
        self,
        prompts: Sequence[Ids],
        max_tokens: int,
        stop: Sequence[int],
        sampling: Sampling | None = None,
        images: Any = (),
    ) -> list[list[int]]:
        self.questions += [(prompt.tolist(), []) for prompt in prompts]
        self.images += list(images)
        return [written[:max_tokens] for written in self._written]


def word_tokenizer() -> Any:
    """A prompt tokenizer whose token n is the word `wn`."""

    def batch_decode(sequences: list[list[int]]) -> list[str]:
        return [" ".join(f"w{token}" for token in sequence) for sequence in sequences]

    return SimpleNamespace(option_end=END, end=[END, END + 1], tokenizer=SimpleNamespace(batch_decode=batch_decode))


def brute_force(engine: HashEngine, prompt: list[int], answers: list[list[int]]) -> np.ndarray:
    """Scores every candidate token by token, each time renormalized over what some candidate continues with."""
    sequences = [[*answer, END] for answer in answers]
    probabilities = []
    for sequence in sequences:
        probability = 1.0
        for index, token in enumerate(sequence):
            following = sorted({other[index] for other in sequences if other[:index] == sequence[:index]})
            weights = np.exp([engine.score(prompt + sequence[:index], each) for each in following])
            probability *= weights[following.index(token)] / weights.sum()
        probabilities.append(probability / sequences.count(sequence))
    return np.array(probabilities)


def greedy(engine: HashEngine, prompt: list[int], answers: list[list[int]]) -> int:
    """Generates token by token, each time the best of those that some candidate continues with."""
    sequences = [[*answer, END] for answer in answers]
    written: list[int] = []
    while written not in sequences:
        following = sorted({s[len(written)] for s in sequences if s[: len(written)] == written})
        written.append(max(following, key=lambda token: engine.score(prompt + written, token)))
    return sequences.index(written)
