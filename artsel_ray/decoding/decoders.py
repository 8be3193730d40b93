"""The table of decoders, by the names that --decoding takes; and those that walk the trie of the candidates."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from artsel_ray.config import Output
from artsel_ray.decoding import trie
from artsel_ray.decoding.base import Choices, Decoder, QuestionCost, Questions
from artsel_ray.decoding.freetext import FreeText

if TYPE_CHECKING:
    from artsel_ray.engines.base import Engine


@dataclass(frozen=True)
class Choose:
    """Greedy decoding, constrained to the candidates; one question for most pairs."""

    description: str = "the best candidate"
    gives_distribution: bool = False
    output: Output | None = None

    def decode(self, engine: "Engine", questions: Questions) -> Choices:
        """See `Decoder`."""
        chosen = trie.choose(engine, questions.prompts, _tries(questions), questions.images)
        return Choices([choice.candidate for choice in chosen], [choice.probability for choice in chosen])

    def cost(self, answers: Sequence[list[int]], option_end: int) -> QuestionCost:
        """Returns the mean cost over candidates of the branches on the path to each."""
        branches = trie.build(answers, option_end).branches
        lengths = np.array([len(branch.path) for branch in branches], dtype=np.int64)
        # [candidates, branches]: whether choosing the candidate asks the branch.
        asked = np.zeros((len(answers), len(branches)), dtype=bool)
        for index, branch in enumerate(branches):
            asked[list(itertools.chain.from_iterable(branch.members)), index] = True
        # The paths to a candidate are prefixes of the longest, which an engine computes once.
        means = asked.sum(1).mean(), (asked @ lengths).mean(), (asked * lengths).max(1, initial=0).mean()
        return QuestionCost(*(float(mean) for mean in means))


@dataclass(frozen=True)
class Rank:
    """Every candidate's probability: one question for each branch, all in one call of the engine."""

    description: str = "also every candidate's probability"
    output: Output | None = None
    gives_distribution: bool = True

    def decode(self, engine: "Engine", questions: Questions) -> Choices:
        """See `Decoder`."""
        distributions = trie.rank(engine, questions.prompts, _tries(questions), questions.images)
        return most_likely(distributions, questions.answers)

    def cost(self, answers: Sequence[list[int]], option_end: int) -> QuestionCost:
        """Returns the cost of all branches."""
        branches = trie.build(answers, option_end).branches
        lengths = [len(branch.path) for branch in branches]
        distinct = {tuple(branch.path[:end]) for branch in branches for end in range(1, len(branch.path) + 1)}
        return QuestionCost(float(len(branches)), float(sum(lengths)), float(len(distinct)))


def most_likely(distributions: list[np.ndarray], answers: Sequence[list[list[int]]]) -> Choices:
    """Returns the choice of each distribution: the first candidate of its most likely leaf, the first of equals.

    Args:
        answers: [N] lists of each candidate's answer ids; users of one title share one list object.
    """
    leaves = {id(each): trie.leaves(each) for each in answers}
    pairs = zip(distributions, answers, strict=True)
    best = [trie.most_likely(each, leaves[id(candidates)]) for each, candidates in pairs]
    return Choices(best, [float(each[i]) for each, i in zip(distributions, best, strict=True)], distributions)


def _tries(questions: Questions) -> list[trie.Trie]:
    """Returns each question's trie, built once for all users of a title, who share one list of answers."""
    distinct = {id(answers): answers for answers in questions.answers}
    built = {key: trie.build(answers, questions.tokenizer.option_end) for key, answers in distinct.items()}
    return [built[id(answers)] for answers in questions.answers]


DECODERS: dict[str, Decoder] = {
    "choose": Choose(),
    "rank": Rank(),
    "labels": Rank("rank by the candidates' numbers", output="number"),
    "freetext": FreeText(),
}
