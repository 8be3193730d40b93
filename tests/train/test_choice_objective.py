"""The choice objective against `rank`, and its loss against formulas written out."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from artsel_ray.decoding.trie import build, rank
from artsel_ray.train.choice_objective import ask, choice_loss, log_probabilities
from tests.support.engines import END, HashEngine, ids

ANSWERS = st.lists(st.lists(st.integers(0, 3), max_size=5), min_size=1, max_size=12)


def answered(questions, prompts) -> torch.Tensor:  # type: ignore[no-untyped-def]
    """Returns what `HashEngine` answers, for all tokens."""
    engine, every = HashEngine(), list(range(END + 1))
    asked = [
        np.concatenate((prompts[prompt], path)) for prompt, path in zip(questions.prompts, questions.paths, strict=True)
    ]
    answers = engine.logprobs(asked, [every] * len(asked))
    return torch.tensor(np.array(answers), dtype=torch.float64).reshape(len(asked), len(every))


@given(st.lists(ANSWERS, min_size=1, max_size=4))
def test_probabilities_are_those_of_rank(titles: list[list[list[int]]]) -> None:
    tries, prompts = [build(answers, END) for answers in titles], [ids(index) for index in range(len(titles))]
    questions = ask(tries, [range(trie.candidates) for trie in tries])
    got = log_probabilities(answered(questions, prompts), questions).exp()
    for trie, prompt, row in zip(tries, prompts, got, strict=True):
        np.testing.assert_allclose(row[: trie.candidates], rank(HashEngine(), [prompt], [trie])[0], atol=1e-12)
        assert not row[trie.candidates :].any()


@given(st.lists(ANSWERS, min_size=1, max_size=4), st.data())
def test_only_branches_on_the_way_to_a_wanted_candidate_are_asked(
    titles: list[list[list[int]]], data: st.DataObject
) -> None:
    tries, prompts = [build(answers, END) for answers in titles], [ids(index) for index in range(len(titles))]
    label = [data.draw(st.integers(0, trie.candidates - 1)) for trie in tries]
    questions = ask(tries, [[each] for each in label])
    loss = choice_loss(log_probabilities(answered(questions, prompts), questions), torch.zeros(len(label)).long())
    for index, (trie, each) in enumerate(zip(tries, label, strict=True)):
        assert loss[index].item() == pytest.approx(-np.log(rank(HashEngine(), [prompts[index]], [trie])[0][each]))
        paths = [path for prompt, path in zip(questions.prompts, questions.paths, strict=True) if prompt == index]
        answer = [*titles[index][each], END]
        assert all(answer[: len(path)] == path.tolist() for path in paths)


def test_a_prior_is_added_to_the_logits_of_candidates() -> None:
    log_p = torch.tensor([[0.2, 0.3, 0.5]], dtype=torch.float64).log()
    prior = torch.tensor([[0.1, 0.6, 0.3]], dtype=torch.float64).log()
    expected = -np.log(0.3 * 0.6 / (0.2 * 0.1 + 0.3 * 0.6 + 0.5 * 0.3))
    assert choice_loss(log_p, torch.tensor([1]), prior).item() == pytest.approx(expected)
    assert choice_loss(log_p, torch.tensor([1]), torch.zeros(1, 3)).item() == pytest.approx(-np.log(0.3))


def test_minus_the_reference_as_prior_is_softmax_dpo() -> None:
    generator = torch.Generator().manual_seed(0)
    policy, reference = (torch.randn(2, 4, generator=generator, dtype=torch.float64).log_softmax(1) for _ in range(2))
    label, beta = torch.tensor([2, 0]), 0.3
    got = choice_loss(policy, label, -beta * reference, beta)
    for row, chosen in enumerate(label.tolist()):
        ratios = [float(beta * (policy[row, each] - reference[row, each])) for each in range(4)]
        others = sum(np.exp(ratios[each] - ratios[chosen]) for each in range(4) if each != chosen)
        assert got[row].item() == pytest.approx(-np.log(1 / (1 + np.exp(np.log(others)))))  # -log σ(-log Σ …)


def test_padding_takes_no_part_in_loss_or_gradient() -> None:
    tries = [build([[1], [2], [3]], END), build([[1], [2]], END), build([[4]], END)]
    questions = ask(tries, [range(trie.candidates) for trie in tries])
    logits = torch.randn(2, END + 1, dtype=torch.float64, requires_grad=True)
    log_p = log_probabilities(logits, questions)
    prior = torch.zeros_like(log_p)
    choice_loss(log_p, torch.tensor([0, 1, 0]), prior).sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    allowed = logits.grad.abs() > 0
    assert allowed[0].nonzero().flatten().tolist() == [1, 2, 3]
    assert allowed[1].nonzero().flatten().tolist() == [1, 2]


def test_questions_without_a_branch_are_none() -> None:
    questions = ask([build([[1], [1]], END)], [[0, 1]])
    assert not questions.paths
    torch.testing.assert_close(log_probabilities(torch.empty(0, 9), questions), torch.log(torch.tensor([[0.5, 0.5]])))
