"""Decoders that walk the trie of the candidates: `choose` follows the best child, `rank` asks every branch."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from artsel_ray.config import Output
from artsel_ray.decoding import trie
from artsel_ray.decoding.base import Choices, QuestionCost, Questions

if TYPE_CHECKING:
    from artsel_ray.engines.base import Engine


@dataclass(frozen=True)
class Choose:
    """Greedy decoding held to the candidates: most often one question for each pair."""

    gives_distribution: bool = False
    output: Output | None = None

    def decode(self, engine: "Engine", questions: Questions) -> Choices:
        """See `Decoder`."""
        chosen = trie.choose(engine, questions.prompts, _tries(questions), questions.images)
        return Choices([choice.candidate for choice in chosen], [choice.probability for choice in chosen])

    def cost(self, answers: Sequence[list[int]], option_end: int) -> QuestionCost:
        """Returns the mean over all candidates of the branches on the way to them."""
        branches = trie.build(answers, option_end).branches
        lengths = np.array([len(branch.path) for branch in branches], dtype=np.int64)
        asked = np.zeros((len(answers), len(branches)), dtype=bool)
        for index, branch in enumerate(branches):
            asked[list(itertools.chain.from_iterable(branch.members)), index] = True
        means = asked.sum(1).mean(), (asked @ lengths).mean(), (asked * lengths).max(1, initial=0).mean()
        return QuestionCost(*(float(mean) for mean in means))


@dataclass(frozen=True)
class Rank:
    """Every candidate's probability: one question for each branch, all in one round."""

    output: Output | None = None
    gives_distribution: bool = True

    def decode(self, engine: "Engine", questions: Questions) -> Choices:
        """See `Decoder`."""
        distributions = trie.rank(engine, questions.prompts, _tries(questions), questions.images)
        return most_likely(distributions)

    def cost(self, answers: Sequence[list[int]], option_end: int) -> QuestionCost:
        """Returns the cost of all branches."""
        branches = trie.build(answers, option_end).branches
        lengths = [len(branch.path) for branch in branches]
        paths = {tuple(branch.path[:length].tolist()) for branch in branches for length in range(len(branch.path))}
        return QuestionCost(float(len(branches)), float(sum(lengths)), float(len(paths)))


def most_likely(distributions: list[np.ndarray]) -> Choices:
    """Returns the most likely candidate of each distribution, the first of equals."""
    best = [int(np.argmax(each)) for each in distributions]
    return Choices(best, [float(each[i]) for each, i in zip(distributions, best, strict=True)], distributions)


def _tries(questions: Questions) -> list[trie.Trie]:
    """Returns each question's trie, built once for the users of a title."""
    built: dict[int, trie.Trie] = {}
    for answers in questions.answers:
        if id(answers) not in built:
            built[id(answers)] = trie.build(answers, questions.tokenizer.option_end)
    return [built[id(answers)] for answers in questions.answers]
