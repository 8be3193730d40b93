from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from artsel_ray.decoding.base import Questions
from artsel_ray.decoding.trie_decoders import Choose, Rank, most_likely
from tests.support.engines import END, HashEngine, SteeredEngine, ids, word_tokenizer

ANSWERS = st.lists(st.lists(st.integers(0, 2), max_size=4), min_size=1, max_size=8)
PROMPT = [7, 8]


def counted(engine: HashEngine) -> tuple[int, int, int]:
    """Returns the questions that an engine got, their tokens after the prompt, and of these the distinct ones."""
    paths = [question[len(PROMPT) :] for question, _ in engine.questions]
    distinct = {tuple(path[:end]) for path in paths for end in range(1, len(path) + 1)}
    return len(paths), sum(map(len, paths)), len(distinct)


def questions(answers: list[list[int]], images: Any = ()) -> Questions:
    return Questions(word_tokenizer(), [ids(*PROMPT)], [answers], images)


@given(ANSWERS)
def test_cost_of_rank_is_what_the_engine_is_asked(answers: list[list[int]]) -> None:
    engine = HashEngine()
    Rank().decode(engine, questions(answers))
    assert Rank().cost(answers, END) == counted(engine)


@given(ANSWERS)
def test_cost_of_choose_is_the_mean_over_what_may_be_chosen(answers: list[list[int]]) -> None:
    costs = []
    for answer in answers:
        engine = SteeredEngine(PROMPT, [*answer, END])
        (chosen,) = Choose().decode(engine, questions(answers)).candidates
        assert answers[chosen] == answer
        costs.append(counted(engine))
    assert Choose().cost(answers, END) == pytest.approx(tuple(np.mean(costs, axis=0)))


def test_cost_by_hand() -> None:
    # Branches: () between 1 and 2, (1) between 3 and 4. Candidates 0 and 1 ask both, candidate 2 only the first.
    answers = [[1, 3], [1, 4], [2]]
    assert Choose().cost(answers, END) == pytest.approx((5 / 3, 2 / 3, 2 / 3))
    assert Rank().cost(answers, END) == (2, 1, 1)
    # Branches: (1), (1 3 5) and (1 4 6): seven tokens, of which the first is shared by all.
    assert Rank().cost([[1, 3, 5, 7], [1, 3, 5, 8], [1, 4, 6, 7], [1, 4, 6, 8]], END) == (3, 7, 5)


def test_most_likely_takes_the_first_of_equals() -> None:
    distributions = [np.array([0.2, 0.4, 0.4]), np.array([0.9, 0.1])]
    choices = most_likely(distributions)
    assert (choices.candidates, choices.probabilities) == ([1, 0], [0.4, 0.9])
    assert choices.distributions is distributions


@pytest.mark.parametrize("decoder", [Choose(), Rank()])
def test_each_question_gets_its_prompts_images(decoder: Choose | Rank) -> None:
    engine = HashEngine()
    asked = Questions(word_tokenizer(), [ids(1), ids(2)], [[[1], [2]], [[1, 3], [1, 4]]], [["a"], ["b"]])  # type: ignore[list-item]
    decoder.decode(engine, asked)
    assert (engine.questions, engine.images) == ([([1], [1, 2]), ([2, 1], [3, 4])], [["a"], ["b"]])
