"""Choosing among candidates by the trie of their token ids.

A candidate's sequence is its answer's ids and an end token, so that an answer that is a prefix of another one still has
a leaf of its own. Only branching nodes ask the model: what all candidates below a node share is appended to the prompt,
not decoded. Candidates with identical sequences (duplicates) share a leaf: `choose` takes the first of them, `rank`
gives each an equal share of the leaf's probability.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from artsel_ray.engines.base import Engine, Images, Prompts
    from artsel_ray.prompts.tokenizer import Ids

LEAF = -1


@dataclass(frozen=True)
class Branch:
    """A node of the trie with several children."""

    path: "Ids"
    """Ids from the root to this node, to append to the prompt."""
    tokens: list[int]
    """The children's ids, ascending."""
    members: list[list[int]]
    """For each child, the candidates below it, ascending."""
    next: list[int]
    """For each child, the index of the next branch below it, or `LEAF`."""


@dataclass(frozen=True)
class Trie:
    """The candidates of one title: their number, and the branches between them."""

    candidates: int
    branches: list[Branch]
    """Parents before children; empty if all candidates are identical."""


def build(answers: Sequence[list[int]], end: int) -> Trie:
    """Returns the trie of the candidates' answers, each followed by the end token; ValueError if there is none."""
    if not answers:
        raise ValueError("no candidate to choose from")
    sequences = [[*answer, end] for answer in answers]
    order = sorted(range(len(sequences)), key=sequences.__getitem__)
    branches: list[Branch] = []
    _add(branches, sequences, order)
    return Trie(len(answers), branches)


def leaves(answers: Sequence[list[int]]) -> list[int]:
    """Returns each candidate's leaf: the index of the first candidate with the same answer."""
    first: dict[tuple[int, ...], int] = {}
    return [first.setdefault(tuple(answer), index) for index, answer in enumerate(answers)]


def most_likely(probability_m: np.ndarray, leaf_m: Sequence[int]) -> int:
    """Returns the first candidate of the most likely leaf, whose probability its duplicates share; the first of equals.

    Args:
        probability_m: [M] probabilities of the candidates.
        leaf_m: [M] from `leaves`.
    """
    return int(np.argmax(np.bincount(leaf_m, probability_m, len(leaf_m))))


def _add(branches: list[Branch], sequences: list[list[int]], order: list[int]) -> int:
    """Returns the first new branch's index, or LEAF; `order` is sorted by sequence, duplicates ascending."""
    # In sorted order, what the first and the last sequence share is shared by all.
    first, index = sequences[order[0]], len(branches)
    pairs = enumerate(zip(first, sequences[order[-1]], strict=False))
    depth = next((position for position, (left, right) in pairs if left != right), len(first))
    if depth == len(first):
        return LEAF
    # All sequences end with the same token, which occurs nowhere else: none ends where another continues.
    groups = itertools.groupby(order, lambda member: sequences[member][depth])
    children = {token: list(members) for token, members in groups}
    members = [sorted(below) for below in children.values()]
    branches.append(Branch(np.array(first[:depth], dtype=np.int32), list(children), members, []))
    branches[index].next.extend(_add(branches, sequences, below) for below in children.values())
    return index


class Choice(NamedTuple):
    """The index of the candidate chosen for a prompt, and its probability."""

    candidate: int
    probability: float
    """Product of the renormalized probabilities on the path to it, divided by the number of its duplicates."""


def choose(engine: "Engine", prompts: "Prompts", tries: Sequence[Trie], images: "Images" = ()) -> list[Choice]:
    """Returns the candidate that greedy decoding, constrained to the candidates' sequences, generates.

    `prompts` are [N] ids up to the answer, `tries` are [N] from `build`; prompts of one title may share one.
    """
    candidate, log_probability = [0] * len(prompts), [0.0] * len(prompts)
    open_at = {index: 0 for index, trie in enumerate(tries) if trie.branches}
    duplicates = [trie.candidates for trie in tries]
    while open_at:
        at = [(index, tries[index].branches[branch]) for index, branch in open_at.items()]
        for (index, branch), answer in zip(at, _ask(engine, prompts, at, images), strict=True):
            child = int(np.argmax(answer))
            log_probability[index] += float(answer[child])
            candidate[index], duplicates[index] = branch.members[child][0], len(branch.members[child])
            open_at[index] = branch.next[child]
        open_at = {index: branch for index, branch in open_at.items() if branch != LEAF}
    probability = (np.exp(log_probability) / np.array(duplicates)).tolist()
    return [Choice(*result) for result in zip(candidate, probability, strict=True)]


def rank(engine: "Engine", prompts: "Prompts", tries: Sequence[Trie], images: "Images" = ()) -> list[np.ndarray]:
    """Returns each prompt's distribution over its candidates: [N] arrays of [M] probabilities, each summing to 1.

    At each branch the children's probabilities are renormalized; a candidate's probability is the product along its
    path. All branches are known in advance, so that one call of the engine answers them. Arguments as for `choose`.
    """
    at = [(index, branch) for index, trie in enumerate(tries) for branch in trie.branches]
    log_m = [np.zeros(trie.candidates) for trie in tries]
    duplicates_m = [np.full(trie.candidates, trie.candidates) for trie in tries]
    for (index, branch), answer in zip(at, _ask(engine, prompts, at, images), strict=True):
        for members, following, value in zip(branch.members, branch.next, answer, strict=True):
            log_m[index][members] += value
            if following == LEAF:
                duplicates_m[index][members] = len(members)
    return [np.exp(log) / duplicates for log, duplicates in zip(log_m, duplicates_m, strict=True)]


def _ask(engine: "Engine", prompts: "Prompts", at: list[tuple[int, Branch]], images: "Images") -> list[np.ndarray]:
    """Returns the children's renormalized log-probabilities for each branch `at` the index of a prompt.

    Raises:
        InputError: if the model answers with NaN.
    """
    from artsel_ray.engines.base import check_finite  # flags need the table of decoders, and no images

    questions = [np.concatenate((prompts[index], branch.path)) for index, branch in at]
    shown = [images[index] for index, _ in at] if images else ()
    answers = engine.logprobs(questions, [branch.tokens for _, branch in at], shown)
    check_finite(np.array([answer.max() for answer in answers]))
    return [answer - answer.max() - np.log(np.exp(answer - answer.max()).sum()) for answer in answers]
