import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artsel_ray.decoding.trie import build, choose, rank
from artsel_ray.engines.base import Sampling
from artsel_ray.prompts.tokenizer import Ids

END = 99
ANSWERS = st.lists(st.lists(st.integers(0, 3), max_size=5), min_size=1, max_size=12)


def ids(*tokens: int) -> Ids:
    return np.array(tokens, dtype=np.int32)


class HashModel:
    """A language model whose next-token scores depend on the whole prompt, and which counts its questions."""

    def __init__(self) -> None:
        self.questions: list[tuple[list[int], list[int]]] = []

    def score(self, prompt: list[int], token: int) -> float:
        return math.sin(sum((place + 1) * (value + 1) for place, value in enumerate([*prompt, token]))) * 3

    def logprobs(self, prompts: Sequence[Ids], allowed: Sequence[list[int]], images: Any = ()) -> list[np.ndarray]:
        questions = [(prompt.tolist(), each) for prompt, each in zip(prompts, allowed, strict=True)]
        self.questions += questions
        return [np.array([self.score(prompt, token) for token in each]) for prompt, each in questions]

    def write(
        self,
        prompts: Sequence[Ids],
        max_tokens: int,
        stop: Sequence[int],
        sampling: Sampling | None = None,
        images: Any = (),
    ) -> list[list[int]]:
        raise NotImplementedError


def brute_force(model: HashModel, prompt: list[int], answers: list[list[int]]) -> np.ndarray:
    """Walks every candidate token by token; at each the model is held to what some candidate goes on with."""
    sequences = [[*answer, END] for answer in answers]
    probabilities = []
    for sequence in sequences:
        probability = 1.0
        for place, token in enumerate(sequence):
            following = sorted({other[place] for other in sequences if other[:place] == sequence[:place]})
            weights = np.exp([model.score(prompt + sequence[:place], each) for each in following])
            probability *= weights[following.index(token)] / weights.sum()
        probabilities.append(probability / sequences.count(sequence))
    return np.array(probabilities)


def greedy(model: HashModel, prompt: list[int], answers: list[list[int]]) -> int:
    sequences = [[*answer, END] for answer in answers]
    written: list[int] = []
    while written not in sequences:
        following = sorted({s[len(written)] for s in sequences if s[: len(written)] == written})
        written.append(max(following, key=lambda token: model.score(prompt + written, token)))
    return sequences.index(written)


@given(ANSWERS, st.lists(st.integers(0, 9), max_size=3))
def test_rank_is_the_brute_force_and_sums_to_one(answers: list[list[int]], prompt: list[int]) -> None:
    (got,) = rank(HashModel(), [ids(*prompt)], [build(answers, END)])
    np.testing.assert_allclose(got, brute_force(HashModel(), prompt, answers), atol=1e-12)
    assert got.sum() == pytest.approx(1)


@given(ANSWERS, st.lists(st.integers(0, 9), max_size=3))
def test_choose_is_greedy_constrained_decoding(answers: list[list[int]], prompt: list[int]) -> None:
    (got,) = choose(HashModel(), [ids(*prompt)], [build(answers, END)])
    assert got.candidate == greedy(HashModel(), prompt, answers)
    assert got.probability == pytest.approx(brute_force(HashModel(), prompt, answers)[got.candidate])


@given(ANSWERS)
def test_branches_part_the_candidates(answers: list[list[int]]) -> None:
    branches = build(answers, END).branches
    distinct = {tuple(answer) for answer in answers}
    assert sum(len(branch.tokens) - 1 for branch in branches) == len(distinct) - 1
    for branch in branches:
        assert len(branch.tokens) >= 2
        for token, members in zip(branch.tokens, branch.members, strict=True):
            for member in members:
                assert [*answers[member], END][: len(branch.path) + 1] == [*branch.path.tolist(), token]


def test_a_shared_beginning_is_appended_not_decoded() -> None:
    model = HashModel()
    choose(model, [ids(7)], [build([[1, 2, 3], [1, 2, 4]], END)])
    assert model.questions == [([7, 1, 2], [3, 4])]


def test_a_prefix_of_another_candidate_ends_with_the_end_token() -> None:
    (branch,) = build([[1, 2], [1, 2, 3]], END).branches
    assert (branch.path.tolist(), branch.tokens, branch.members) == ([1, 2], [3, END], [[1], [0]])


def test_identical_candidates_share_their_probability_and_the_first_is_chosen() -> None:
    tries = [build([[1], [2], [1]], END)]
    (distribution,) = rank(HashModel(), [ids(0)], tries)
    assert distribution[0] == distribution[2]
    assert distribution.sum() == pytest.approx(1)
    model = HashModel()
    model.score = lambda prompt, token: float(token == 1)  # type: ignore[method-assign]
    assert choose(model, [ids(0)], tries)[0].candidate == 0


@pytest.mark.parametrize("answers", [[[1, 2]], [[1, 2], [1, 2]], [[]]])
def test_nothing_to_decide_asks_nothing(answers: list[list[int]]) -> None:
    model, tries = HashModel(), [build(answers, END)]
    assert choose(model, [ids(0)], tries)[0].candidate == 0
    np.testing.assert_allclose(rank(model, [ids(0)], tries)[0], 1 / len(answers))
    assert model.questions == []


class Liar:
    """An engine that answers with whatever it was given, one number after the other, in a circle."""

    def __init__(self, numbers: list[float]) -> None:
        self.numbers = itertools.cycle(numbers)

    def logprobs(self, prompts: Sequence[Ids], allowed: Sequence[list[int]], images: Any = ()) -> list[np.ndarray]:
        return [np.array(list(itertools.islice(self.numbers, len(each)))) for each in allowed]

    def write(
        self,
        prompts: Sequence[Ids],
        max_tokens: int,
        stop: Sequence[int],
        sampling: Sampling | None = None,
        images: Any = (),
    ) -> list[list[int]]:
        raise NotImplementedError


@settings(max_examples=500, deadline=None)
@given(
    st.lists(ANSWERS, min_size=1, max_size=4),
    st.lists(st.floats() | st.floats(-30, 0) | st.just(-math.inf), min_size=1, max_size=9),
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_whatever_the_engine_answers_one_of_the_candidates_is_chosen(
    titles: list[list[list[int]]], numbers: list[float]
) -> None:
    tries, prompts = [build(answers, END) for answers in titles], [ids(7)] * len(titles)
    choices, distributions = choose(Liar(numbers), prompts, tries), rank(Liar(numbers), prompts, tries)
    for answers, choice, distribution in zip(titles, choices, distributions, strict=True):
        assert choice.candidate in range(len(answers))
        assert int(np.argmax(distribution)) in range(len(answers))
        assert len(distribution) == len(answers)
        # Either a probability, or what says that the engine gave no numbers: never something in between.
        assert math.isnan(choice.probability) or 0 < choice.probability <= 1 + 1e-9
        if np.isfinite(numbers).all():
            assert distribution.sum() == pytest.approx(1)
            assert ((distribution >= 0) & (distribution <= 1 + 1e-9)).all()


def test_no_candidate_is_an_error() -> None:
    with pytest.raises(ValueError, match="no candidate"):
        build([], END)
