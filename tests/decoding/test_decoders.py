"""The table of decoders: what every decoder owes to the rest of the package, and what a new one needs."""

import dataclasses
import importlib.util
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from artsel_ray.config import Output, parse
from artsel_ray.decoding.base import Choices, QuestionCost, Questions
from artsel_ray.decoding.decoders import DECODERS
from artsel_ray.engines.base import Engine
from artsel_ray.score import settings as score_settings
from tests.support.engines import END, HashEngine, WritingEngine, brute_force, greedy, ids, word_tokenizer

ANSWERS = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=4), min_size=1, max_size=6)
TITLES = st.lists(ANSWERS, min_size=1, max_size=3)
FLAGS = ["--requests", "r", "--titles", "t", "--artworks", "a", "--output", "o", "--model", "smollm2"]


def questions(titles: list[list[list[int]]]) -> Questions:
    """Returns two questions for each title, whose users share one list of answers."""
    prompts = [ids(index, user) for index in range(len(titles)) for user in range(2)]
    return Questions(word_tokenizer(), prompts, [answers for answers in titles for _ in range(2)])


def test_properties_of_the_decoders() -> None:
    assert {name: (each.gives_distribution, each.output) for name, each in DECODERS.items()} == {
        "choose": (False, None),
        "rank": (True, None),
        "labels": (True, "number"),
        "freetext": (False, None),
    }


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
        assert (candidate, probability) == (int(np.argmax(distribution)), distribution[candidate])


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
    assert DECODERS[name].cost([[1], [2]], END) == QuestionCost(1, 0, 0)


@dataclasses.dataclass(frozen=True)
class Last:
    """Takes the last candidate; what a new decoder's module would hold."""

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
    assert "{choose,rank,labels,freetext,last}" in capsys.readouterr().out
