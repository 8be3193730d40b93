"""The table of decoders: what every decoder owes to the rest of the package, and what a new one needs."""

import dataclasses
import importlib.util
import re
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from artsel_ray.command_line import parse
from artsel_ray.config import Output
from artsel_ray.decoding.base import Choices, QuestionCost, Questions
from artsel_ray.decoding.decoders import DECODERS, Choose, Rank, most_likely
from artsel_ray.engines.base import Engine
from artsel_ray.score import settings as score_settings
from tests.support.engines import (
    END,
    CyclingEngine,
    HashEngine,
    SteeredEngine,
    WritingEngine,
    brute_force,
    greedy,
    ids,
    word_tokenizer,
)  # fmt: skip

ANSWERS = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=4), min_size=1, max_size=6)
TITLES = st.lists(ANSWERS, min_size=1, max_size=3)
FLAGS = ["--requests", "r", "--titles", "t", "--artworks", "a", "--output", "o", "--model", "smollm2"]


def questions(titles: list[list[list[int]]]) -> Questions:
    """Returns two questions for each title, whose users share one list of answers."""
    prompts = [ids(index, user) for index in range(len(titles)) for user in range(2)]
    return Questions(word_tokenizer(), prompts, [answers for answers in titles for _ in range(2)])


@pytest.mark.parametrize(
    ("name", "properties"),
    {"choose": (False, None), "rank": (True, None), "labels": (True, "number"), "freetext": (False, None)}.items(),
)
def test_properties_and_cost_of_a_decoder(name: str, properties: tuple[bool, Output | None]) -> None:
    decoder = DECODERS[name]
    assert (decoder.gives_distribution, decoder.output) == properties
    assert decoder.cost([[1], [2]], END) == QuestionCost(1, 0, 0)


@given(TITLES)
def test_choose_is_greedy_decoding_constrained_to_the_candidates(titles: list[list[list[int]]]) -> None:
    asked = questions(titles)
    got = DECODERS["choose"].decode(HashEngine(), asked)
    for prompt, answers, candidate, probability in zip(
        asked.prompts, asked.answers, got.candidates, got.probabilities, strict=True
    ):
        assert candidate == greedy(HashEngine(), prompt.tolist(), answers)
        assert probability == pytest.approx(brute_force(HashEngine(), prompt.tolist(), answers)[candidate])
    assert (got.distributions, got.unmatched) == (None, 0)


@pytest.mark.parametrize("name", ["rank", "labels"])
@given(titles=TITLES)
def test_rank_and_labels_give_the_brute_force_distribution(name: str, titles: list[list[list[int]]]) -> None:
    asked = questions(titles)
    got = DECODERS[name].decode(HashEngine(), asked)
    assert got.distributions is not None
    for prompt, answers, candidate, probability, distribution in zip(
        asked.prompts, asked.answers, got.candidates, got.probabilities, got.distributions, strict=True
    ):
        np.testing.assert_allclose(distribution, brute_force(HashEngine(), prompt.tolist(), answers), atol=1e-12)
        # Identical answers share a leaf: the most likely leaf is chosen, and of it the first candidate.
        masses = [sum(p for p, other in zip(distribution, answers, strict=True) if other == each) for each in answers]
        assert masses[candidate] == pytest.approx(max(masses))
        assert (candidate, probability) == (answers.index(answers[candidate]), distribution[candidate])


@given(TITLES)
def test_choose_and_rank_agree_where_one_branch_decides(titles: list[list[list[int]]]) -> None:
    single = [[[answer[0]] for answer in answers] for answers in titles]
    asked = questions(single)
    chosen, ranked = (DECODERS[name].decode(HashEngine(), asked) for name in ("choose", "rank"))
    assert chosen.candidates == ranked.candidates
    assert chosen.probabilities == pytest.approx(ranked.probabilities)


def test_greedy_seldom_misses_the_best() -> None:
    rng, missed = np.random.default_rng(0), 0
    for number in range(1_000):
        answers = [rng.integers(0, 4, size=rng.integers(1, 5)).tolist() for _ in range(rng.integers(2, 7))]
        asked = Questions(word_tokenizer(), [ids(number)], [answers])
        (chosen,), (best,) = (DECODERS[name].decode(HashEngine(), asked).candidates for name in ("choose", "rank"))
        missed += answers[chosen] != answers[best]
    assert 0 < missed < 60


def test_duplicates_keep_their_common_probability_in_the_choice() -> None:
    # A, A and B with .3, .3 and .4: B is the most likely artwork, and what A says the most likely choice.
    asked = Questions(word_tokenizer(), [ids(0)], [[[1], [1], [2]]])
    for name in ("choose", "rank"):
        got = DECODERS[name].decode(CyclingEngine([np.log(0.6), np.log(0.4)]), asked)
        assert (got.candidates, got.probabilities) == ([0], pytest.approx([0.3]))


def test_freetext_takes_the_candidate_that_was_written() -> None:
    titles = [[[1, 2], [3, 4]], [[5], [6, 7]]]
    got = DECODERS["freetext"].decode(WritingEngine([[3, 4], [1], [8], [6, 7]]), questions(titles))
    assert (got.candidates, got.unmatched) == ([1, 0, 0, 1], 1)
    assert (got.probabilities, got.distributions) == ([None] * 4, None)


@pytest.mark.parametrize("name", DECODERS)
def test_a_distribution_comes_with_every_decoder_that_promises_one(name: str) -> None:
    got = DECODERS[name].decode(WritingEngine([[1], [1]]), questions([[[1], [2]]]))
    assert (got.distributions is not None) == DECODERS[name].gives_distribution
    assert len(got.candidates) == len(got.probabilities) == 2


@dataclasses.dataclass(frozen=True)
class Last:
    """Takes the last candidate; what a new decoder's module would hold."""

    description: str = "whatever stands at the end"
    gives_distribution: bool = False
    output: Output | None = None

    def decode(self, engine: Engine, questions: Questions) -> Choices:
        return Choices([len(answers) - 1 for answers in questions.answers], [1.0] * len(questions.answers))

    def cost(self, answers: Sequence[list[int]], option_end: int) -> QuestionCost:
        return QuestionCost(0, 0, 0)


def test_a_new_decoder_needs_its_class_and_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(DECODERS, "last", Last())
    # The flag takes its choices from the table when the settings are imported: here a second time.
    spec = importlib.util.spec_from_file_location("settings_again", score_settings.__file__)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "settings_again", module)
    spec.loader.exec_module(module)
    config_type = module.ScoreConfig
    config = parse(config_type, [*FLAGS, "--decoding", "last"])
    assert DECODERS[config.decoding].decode(HashEngine(), questions([[[1], [2]], [[1]]])).candidates == [1, 1, 0, 0]
    with pytest.raises(SystemExit, match="0"):
        parse(config_type, ["--help"])
    printed = capsys.readouterr().out
    assert "{choose,rank,labels,freetext,last}" in printed
    assert "last: whatever stands at the end." in re.sub(r"[\s│]+", " ", printed)


SHORT_ANSWERS = st.lists(st.lists(st.integers(0, 2), max_size=4), min_size=1, max_size=8)
PROMPT = [7, 8]


def counted(engine: HashEngine) -> tuple[int, int, int]:
    """Returns the questions that an engine got, their tokens after the prompt, and of these the distinct ones."""
    paths = [question[len(PROMPT) :] for question, _ in engine.questions]
    distinct = {tuple(path[:end]) for path in paths for end in range(1, len(path) + 1)}
    return len(paths), sum(map(len, paths)), len(distinct)


def question(answers: list[list[int]]) -> Questions:
    return Questions(word_tokenizer(), [ids(*PROMPT)], [answers])


@given(SHORT_ANSWERS)
def test_cost_of_rank_is_what_the_engine_is_asked(answers: list[list[int]]) -> None:
    engine = HashEngine()
    Rank().decode(engine, question(answers))
    assert Rank().cost(answers, END) == counted(engine)


@given(SHORT_ANSWERS)
def test_cost_of_choose_is_the_mean_over_what_may_be_chosen(answers: list[list[int]]) -> None:
    costs = []
    for answer in answers:
        engine = SteeredEngine(PROMPT, [*answer, END])
        (chosen,) = Choose().decode(engine, question(answers)).candidates
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
    choices = most_likely(distributions, [[[index] for index in range(len(each))] for each in distributions])
    assert (choices.candidates, choices.probabilities) == ([1, 0], [0.4, 0.9])
    assert choices.distributions is distributions


@pytest.mark.parametrize("decoder", [Choose(), Rank()])
def test_each_question_gets_its_prompts_images(decoder: Choose | Rank) -> None:
    engine = HashEngine()
    asked = Questions(word_tokenizer(), [ids(1), ids(2)], [[[1], [2]], [[1, 3], [1, 4]]], [["a"], ["b"]])  # type: ignore[list-item]
    decoder.decode(engine, asked)
    assert (engine.questions, engine.images) == ([([1], [1, 2]), ([2, 1], [3, 4])], [["a"], ["b"]])
