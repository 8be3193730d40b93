import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artsel_ray.decoding.trie import build, choose, rank
from artsel_ray.errors import InputError
from tests.support.engines import END, CyclingEngine, HashEngine, SteeredEngine, brute_force, greedy, ids

ANSWERS = st.lists(st.lists(st.integers(0, 3), max_size=5), min_size=1, max_size=12)
PROMPT = st.lists(st.integers(0, 9), max_size=3)


@given(ANSWERS, PROMPT)
def test_rank_is_the_brute_force_and_sums_to_one(answers: list[list[int]], prompt: list[int]) -> None:
    (got,) = rank(HashEngine(), [ids(*prompt)], [build(answers, END)])
    np.testing.assert_allclose(got, brute_force(HashEngine(), prompt, answers), atol=1e-12)
    assert got.sum() == pytest.approx(1)


@given(ANSWERS, PROMPT)
def test_choose_is_greedy_constrained_decoding(answers: list[list[int]], prompt: list[int]) -> None:
    (got,) = choose(HashEngine(), [ids(*prompt)], [build(answers, END)])
    assert got.candidate == greedy(HashEngine(), prompt, answers)
    assert got.probability == pytest.approx(brute_force(HashEngine(), prompt, answers)[got.candidate])


@given(st.lists(ANSWERS, min_size=1, max_size=4), PROMPT)
def test_a_prompt_is_answered_as_if_alone(titles: list[list[list[int]]], prompt: list[int]) -> None:
    prompts = [ids(*prompt, index) for index in range(len(titles))]
    tries = [build(answers, END) for answers in titles]
    alone = [choose(HashEngine(), [each], [trie])[0] for each, trie in zip(prompts, tries, strict=True)]
    assert choose(HashEngine(), prompts, tries) == alone
    for together, each, trie in zip(rank(HashEngine(), prompts, tries), prompts, tries, strict=True):
        np.testing.assert_array_equal(together, rank(HashEngine(), [each], [trie])[0])


@given(ANSWERS)
def test_branches_separate_the_candidates(answers: list[list[int]]) -> None:
    branches = build(answers, END).branches
    distinct = {tuple(answer) for answer in answers}
    assert sum(len(branch.tokens) - 1 for branch in branches) == len(distinct) - 1
    for branch in branches:
        assert len(branch.tokens) >= 2
        for token, members in zip(branch.tokens, branch.members, strict=True):
            for member in members:
                assert [*answers[member], END][: len(branch.path) + 1] == [*branch.path.tolist(), token]


def test_a_shared_prefix_is_appended_not_decoded() -> None:
    engine = HashEngine()
    choose(engine, [ids(7)], [build([[1, 2, 3], [1, 2, 4]], END)])
    assert engine.questions == [([7, 1, 2], [3, 4])]


def test_a_prefix_of_another_candidate_ends_with_the_end_token() -> None:
    (branch,) = build([[1, 2], [1, 2, 3]], END).branches
    assert (branch.path.tolist(), branch.tokens, branch.members) == ([1, 2], [3, END], [[1], [0]])


def test_duplicates_share_their_probability_and_the_first_is_chosen() -> None:
    tries = [build([[1], [2], [1]], END)]
    (distribution,) = rank(HashEngine(), [ids(0)], tries)
    assert distribution[0] == distribution[2]
    assert distribution.sum() == pytest.approx(1)
    assert choose(SteeredEngine([0], [1]), [ids(0)], tries)[0].candidate == 0


@pytest.mark.parametrize("answers", [[[1, 2]], [[1, 2], [1, 2]], [[]]])
def test_nothing_to_decide_asks_nothing(answers: list[list[int]]) -> None:
    engine, tries = HashEngine(), [build(answers, END)]
    assert choose(engine, [ids(0)], tries)[0].candidate == 0
    np.testing.assert_allclose(rank(engine, [ids(0)], tries)[0], 1 / len(answers))
    assert engine.questions == []


@settings(max_examples=500, deadline=None)
@given(
    st.lists(ANSWERS, min_size=1, max_size=4),
    st.lists(st.floats() | st.floats(-30, 0) | st.just(-math.inf), min_size=1, max_size=9),
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_any_engine_answer_leads_to_a_candidate_or_an_input_error(
    titles: list[list[list[int]]], numbers: list[float]
) -> None:
    tries, prompts = [build(answers, END) for answers in titles], [ids(7)] * len(titles)
    try:
        choices = choose(CyclingEngine(numbers), prompts, tries)
        distributions = rank(CyclingEngine(numbers), prompts, tries)
    except InputError:
        assert not np.isfinite(numbers).all()
        return
    for answers, choice, distribution in zip(titles, choices, distributions, strict=True):
        assert choice.candidate in range(len(answers))
        assert int(np.argmax(distribution)) in range(len(answers))
        assert len(distribution) == len(answers)
        assert 0 < choice.probability <= 1 + 1e-9
        assert distribution.sum() == pytest.approx(1)
        assert ((distribution >= 0) & (distribution <= 1 + 1e-9)).all()


@pytest.mark.parametrize("answers", [[math.nan, -1.0], [-math.inf, -math.inf], [math.inf, -1.0]])
def test_answers_that_are_no_numbers_choose_nothing(answers: list[float]) -> None:
    for decode in (choose, rank):
        with pytest.raises(InputError, match="the model answers with NaN"):
            decode(CyclingEngine(answers), [ids(7)], [build([[1], [2]], END)])


def test_no_candidate_is_an_error() -> None:
    with pytest.raises(ValueError, match="no candidate"):
        build([], END)
