"""The objective `choice`: candidates' log-probabilities as `rank` scores them, differentiable, and the loss on them.

At each branch of the trie the children's logits are normalized over the children; a candidate's log-probability is the
sum along its path. So an answer ends at its last branch, and what cannot be chosen costs nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from artsel_ray.decoding.trie import LEAF, Trie

if TYPE_CHECKING:
    from artsel_ray.prompts.tokenizer import Ids


@dataclass(frozen=True)
class ChoiceQuestions:
    """The Q questions to the model that tell the log-probabilities of some candidates of U prompts."""

    prompts: list[int]
    """[Q] the prompt of each question."""
    paths: "list[Ids]"
    """[Q] the ids that follow the prompt; the question is what comes after them."""
    children: Tensor
    """[Q, most children] ids to choose between; 0 where there is none."""
    is_child: Tensor
    """[Q, most children]"""
    steps: Tensor
    """[3, all steps of all wanted candidates] question, child, and index into the flat [U, W] candidates."""
    duplicates: Tensor
    """[U, W] number of candidates with the same answer; 0 where a prompt has fewer than W wanted candidates."""

    def to(self, device: torch.device) -> "ChoiceQuestions":
        """Returns the same on another device."""
        tensors = (each.to(device) for each in (self.children, self.is_child, self.steps, self.duplicates))
        return ChoiceQuestions(self.prompts, self.paths, *tensors)


def ask(tries: Sequence[Trie], wanted: Sequence[Sequence[int]]) -> ChoiceQuestions:
    """Returns the questions about each prompt's wanted candidates: all of them, or the engaged one alone.

    `tries` are [U] from `trie.build`, `wanted` [U] lists of at most W candidates.
    """
    prompts: list[int] = []
    paths: list[Ids] = []
    children: list[Tensor] = []
    steps: list[tuple[int, int, int]] = []
    duplicates = np.zeros((len(tries), max(map(len, wanted))), dtype=np.int64)
    for prompt, (trie, candidates) in enumerate(zip(tries, wanted, strict=True)):
        slots = {candidate: prompt * duplicates.shape[1] + slot for slot, candidate in enumerate(candidates)}
        duplicates[prompt, : len(candidates)] = _duplicates(trie)[list(candidates)]
        for branch in trie.branches:
            found = [(child, slots[candidate]) for child, below in enumerate(branch.members)
                     for candidate in below if candidate in slots]  # fmt: skip
            if found:
                steps += [(len(prompts), child, slot) for child, slot in found]
                prompts.append(prompt)
                paths.append(branch.path)
                children.append(torch.tensor(branch.tokens))
    ids = torch.nn.utils.rnn.pad_sequence(children, batch_first=True, padding_value=-1) if children else _NOTHING
    table = torch.tensor(steps, dtype=torch.long).reshape(-1, 3).T
    return ChoiceQuestions(prompts, paths, ids.clamp(min=0), ids >= 0, table, torch.from_numpy(duplicates))


_NOTHING = torch.empty(0, 1, dtype=torch.long)


def _duplicates(trie: Trie) -> NDArray[np.int64]:
    """Returns for each candidate the number of those with its answer, itself included: [M]."""
    count_m = np.full(trie.candidates, trie.candidates)
    for branch in trie.branches:
        for members, following in zip(branch.members, branch.next, strict=True):
            if following == LEAF:
                count_m[members] = len(members)
    return count_m


def log_probabilities(logits: Tensor, questions: ChoiceQuestions) -> Tensor:
    """Returns the wanted candidates' log-probabilities, as `rank` gives them: [U, W], -inf where there is none.

    Args:
        logits: [Q, vocabulary] the model's answer to each question.
    """
    choices = logits.gather(1, questions.children)
    choices = choices.to(torch.promote_types(choices.dtype, torch.float32))  # halves are too coarse for a loss
    choices = choices.masked_fill(~questions.is_child, -torch.inf).log_softmax(dim=1)
    question, child, slot = questions.steps
    shape = questions.duplicates.shape
    total = choices.new_zeros(shape.numel()).index_add(0, slot, choices[question, child]).view(shape)
    # Of 0 duplicates the logarithm is -inf, and so must be what there is not.
    return total - questions.duplicates.log().abs()


def choice_loss(log_p: Tensor, label: Tensor, prior: Tensor | None = None, scale: float = 1.0) -> Tensor:
    """Returns `-log p(label)` for each prompt: [U].

    With a prior, p is the softmax of `scale · log_p + prior` over the candidates: the model learns what the prior does
    not know. For `scale` β and `prior` -β · log π_ref that is softmax DPO (S-DPO, arXiv 2406.09215, equation 7).

    Args:
        log_p: [U, W] from `log_probabilities`; of all candidates where there is a prior.
        label: [U] index of the engaged candidate among the W.
        prior: [U, W] log-probabilities up to a constant, of a model that is already there.
    """
    if prior is None and scale == 1:
        return -log_p.gather(1, label[:, None])[:, 0]
    scores = scale * log_p + (0 if prior is None else prior)
    return functional.cross_entropy(scores, label, reduction="none")
