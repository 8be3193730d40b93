"""Choosing among candidates by the trie of their token ids.

A candidate's sequence is its answer's ids and an end token, so that an answer that begins another one still has
a leaf of its own. Only branching nodes ask the model anything: what all candidates below a node share is
appended to the prompt, not decoded. Candidates with identical sequences share a leaf: `choose` takes the first of
them, `rank` gives each the same part of the leaf's probability.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from artsel_ray.decoding.engine import Engine

LEAF = -1


@dataclass(frozen=True)
class Branch:
    """A node of the trie where candidates part."""

    path: list[int]
    """Ids from the root to this node, to be appended to the prompt."""
    tokens: list[int]
    """The children's ids, ascending."""
    members: list[list[int]]
    """For each child, the candidates below it, ascending."""
    next: list[int]
    """For each child, the index of the next branch below it, or `LEAF`."""


def build(answers: Sequence[list[int]], end: int) -> list[Branch]:
    """Returns the branching nodes of the candidates' trie, the root's first, parents before children.

    Empty if there is nothing to decide: one candidate, or only identical ones.

    Raises:
        ValueError: if there is no candidate.
    """
    if not answers:
        raise ValueError("no candidate to choose from")
    sequences = [[*answer, end] for answer in answers]
    branches: list[Branch] = []
    _add(branches, sequences, list(range(len(answers))), 0)
    return branches


def _add(branches: list[Branch], sequences: list[list[int]], members: list[int], depth: int) -> int:
    """Adds the branches below a node and returns the first one's index, or LEAF if the members are identical."""
    first = sequences[members[0]]
    # All sequences end with the same token, which stands nowhere else: none is a prefix of another, so that
    # a sequence which agrees so far is as long as the first one at least.
    while depth < len(first) and all(sequences[member][depth] == first[depth] for member in members):
        depth += 1
    if depth == len(first):
        return LEAF
    children: dict[int, list[int]] = {}
    for member in members:
        children.setdefault(sequences[member][depth], []).append(member)
    tokens = sorted(children)
    index = len(branches)
    branches.append(Branch(first[:depth], tokens, [children[token] for token in tokens], []))
    branches[index].next.extend(_add(branches, sequences, children[token], depth + 1) for token in tokens)
    return index


@dataclass(frozen=True)
class Choice:
    """The candidate chosen for a prompt."""

    candidate: int
    probability: float
    """Product of the renormalised probabilities on the way to it; the candidate's part, where it has twins."""


def choose(engine: Engine, prompts: Sequence[list[int]], tries: Sequence[list[Branch]]) -> list[Choice]:
    """Returns the candidate that greedy decoding takes when it is held to the candidates' sequences.

    Args:
        prompts: [N] ids up to the answer.
        tries: [N] from `build`; prompts of one title may share one.
    """
    candidate, log_probability = [0] * len(prompts), [0.0] * len(prompts)
    open_at = {index: 0 for index, branches in enumerate(tries) if branches}
    twins = [1] * len(prompts)
    while open_at:
        at = [(index, tries[index][branch]) for index, branch in open_at.items()]
        answers = engine.logprobs([prompts[i] + branch.path for i, branch in at], [branch.tokens for _, branch in at])
        for (index, branch), answer in zip(at, answers, strict=True):
            child = int(np.argmax(answer))
            log_probability[index] += float(log_softmax(answer)[child])
            candidate[index], twins[index] = branch.members[child][0], len(branch.members[child])
            open_at[index] = branch.next[child]
        open_at = {index: branch for index, branch in open_at.items() if branch != LEAF}
    return [
        Choice(*result) for result in zip(candidate, (np.exp(log_probability) / np.array(twins)).tolist(), strict=True)
    ]


def rank(
    engine: Engine, prompts: Sequence[list[int]], tries: Sequence[list[Branch]], candidates: Sequence[int]
) -> list[np.ndarray]:
    """Returns each prompt's distribution over its candidates.

    At each branching node the children's probabilities are renormalised; a candidate's probability is the
    product down its path. Every branch is known beforehand, so that all are asked for in one round.

    Args:
        prompts: [N] ids up to the answer.
        tries: [N] from `build`.
        candidates: [N] number of candidates M of each prompt.

    Returns:
        [N] arrays of [M] probabilities, which sum to 1.
    """
    at = [(index, branch) for index, branches in enumerate(tries) for branch in branches]
    answers = engine.logprobs([prompts[i] + branch.path for i, branch in at], [branch.tokens for _, branch in at])
    log_m = [np.zeros(count) for count in candidates]
    twins_m = [np.full(count, 1 if branches else count) for count, branches in zip(candidates, tries, strict=True)]
    for (index, branch), answer in zip(at, answers, strict=True):
        for members, following, value in zip(branch.members, branch.next, log_softmax(answer), strict=True):
            log_m[index][members] += value
            if following == LEAF:
                twins_m[index][members] = len(members)
    return [np.exp(log) / twins for log, twins in zip(log_m, twins_m, strict=True)]


def log_softmax(values: np.ndarray) -> np.ndarray:
    """Returns log-probabilities renormalised over these values, [C] to [C]."""
    shifted = np.asarray(values, dtype=np.float64) - np.max(values)
    return shifted - np.log(np.exp(shifted).sum())
