from pathlib import Path

import pytest

from tests.support.teacher import CAPTIONS, MOMENT, example, prepare, prompts


@pytest.mark.usefixtures("smollm2")
def test_unusable_rows_are_rejected_without_their_text(tmp_path: Path) -> None:
    no_caption = [{"artwork_id": "a", "caption": "A house."}, {"artwork_id": "b", "caption": None}]
    rows = [
        example(0),
        example(2, title_name=None),
        example(4, label=3),
        example(6, label=-1),
        example(8, label=None),
        example(10, candidates=[]),
        example(12, candidates=no_caption),
        example(14, history=None),
        example(16, candidates=[{"artwork_id": "a", "caption": "word " * 300}] * 20),
    ]
    shard = prepare(tmp_path, rows)
    assert shard.examples["example_id"].to_pylist() == ["e0"]
    assert {row["user_id"]: (row["column"], row["reason"]) for row in shard.invalid.to_pylist()} == {
        "u2": ("title_name", "missing"),
        "u4": ("label", "not one of the candidates"),
        "u6": ("label", "not one of the candidates"),
        "u8": ("label", "missing"),
        "u10": ("label", "not one of the candidates"),
        "u12": ("candidates", "a candidate without a caption"),
        "u14": ("history", "missing"),
        "u16": ("candidates", "without any history the question and its answer exceed 4096 tokens"),
    }
    assert shard.invalid.num_rows == 8
    text = str(shard.invalid.to_pylist())
    assert not any(word in text for word in ("Heat", "house", "word", "sea"))


@pytest.mark.usefixtures("smollm2")
def test_examples_of_a_title_follow_one_another_with_their_own_questions(tmp_path: Path) -> None:
    shard = prepare(tmp_path, [example(0, 0), example(1, 1, history=[]), example(2, 2)])
    assert shard.examples["example_id"].to_pylist() == ["e0", "e2", "e1"]
    assert [question.label for question in shard.questions] == [0, 2, 1]
    assert [question.caption for question in shard.questions] == [CAPTIONS[0], CAPTIONS[2], CAPTIONS[1]]
    empty = prompts().tokenizer.min_history_tokens
    assert [len(question.history) == empty for question in shard.questions] == [False, False, True]
    assert len({question.seed for question in shard.questions}) == 3
    assert shard.histories_cut == 0


@pytest.mark.usefixtures("smollm2")
def test_histories_beyond_the_token_budget_are_cut_and_counted(tmp_path: Path) -> None:
    item = {"timestamp": MOMENT, "title_name": "word " * 80, "genres": ["Crime"], "watch_seconds": 60.0}
    shard = prepare(tmp_path, [example(0, history=[item] * 50), example(2)])
    assert shard.histories_cut == 1
    question = shard.questions[0]
    own = prompts()
    assert len(question.history) <= own.budget(question.options, 64, 4096)


@pytest.mark.usefixtures("smollm2")
def test_duplicates_of_the_chosen_candidate_count_as_chosen(tmp_path: Path) -> None:
    duplicates = [{"artwork_id": artwork, "caption": caption} for artwork, caption in zip("abc", "xyx", strict=True)]
    (question,) = prepare(tmp_path, [example(0, 2, candidates=duplicates)]).questions
    assert [question.is_chosen(candidate) for candidate in range(3)] == [True, False, True]
