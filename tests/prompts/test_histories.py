from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from transformers import PreTrainedTokenizerBase

from artsel_ray.prompts.spec import PromptSpec
from artsel_ray.prompts.tokenizer import PromptTokenizer
from tests.support.histories import history, item

PLENTY = np.array([4096])


def test_history_keeps_the_newest(tokenizer: PreTrainedTokenizerBase) -> None:
    prompts = PromptTokenizer(tokenizer, PromptSpec(history_length=2))
    got = prompts.histories(history([item(1), item(2), item(3)], [], None), np.full(3, 4096))
    texts = [str(tokenizer.decode(ids)) for ids in got.ids.to_pylist()]
    assert texts[0].splitlines()[3:] == [
        "- 2024-05-02: Heat (Crime), watched 1 min",
        "- 2024-05-03: Heat (Crime), watched 1 min",
    ]
    assert texts[1] == texts[2] == "\n\nWatch history, oldest first:\n- nothing watched yet"
    assert got.items_cut.tolist() == [0, 0, 0]


def test_history_keeps_the_newest_that_fit(tokenizer: PreTrainedTokenizerBase) -> None:
    prompts = PromptTokenizer(tokenizer, PromptSpec())
    items = [item(day) for day in range(1, 9)]
    complete = len(prompts.histories(history(items), PLENTY).ids[0])
    for budget in range(complete + 2):
        got = prompts.histories(history(items), np.array([budget]))
        ids, cut = got.ids[0].as_py(), int(got.items_cut[0])
        expected = prompts.histories(history(items[cut:]), PLENTY).ids[0].as_py() if cut < 8 else None
        if expected:
            assert ids == expected
            assert len(ids) <= budget
        one_more = prompts.histories(history(items[max(cut - 1, 0) :]), PLENTY).ids[0]
        assert cut == 0 or len(one_more) > budget


def lines(prompts: PromptTokenizer, rows: pa.Array) -> list[str]:
    ids = [token for row in prompts.histories(rows, np.full(len(rows), 4096)).ids.to_pylist() for token in row]
    return [line for line in str(prompts.tokenizer.decode(ids)).splitlines() if line.startswith("-")]


def test_a_day_outside_the_calendar_is_not_shown(tokenizer: PreTrainedTokenizerBase) -> None:
    prompts = PromptTokenizer(tokenizer, PromptSpec())
    first, last = -62_135_596_800_000_000, 253_402_300_799_999_999
    times = [-(2**63), first - 1, first, last, last + 1, 2**63 - 1, None]
    items: list[dict[str, Any]] = [
        {"timestamp": time, "title_name": "Up", "genres": [], "watch_seconds": None} for time in times
    ]
    nothing = "- Up"
    shown = ["- 0001-01-01: Up", "- 9999-12-31: Up"]
    assert lines(prompts, history(items)) == [nothing, nothing, *shown, nothing, nothing, nothing]


def test_a_null_genre_drops_only_itself(tokenizer: PreTrainedTokenizerBase) -> None:
    prompts = PromptTokenizer(tokenizer, PromptSpec())
    genres = [["Crime", None, "Drama"], [None], None, [], ["War"]]
    rows = history(*[[{**item(1, watch=None), "genres": each}] for each in genres])
    expected = [f"- 2024-05-01: Heat{shown}" for shown in (" (Crime, Drama)", "", "", "", " (War)")]
    assert lines(prompts, rows) == expected
    assert lines(prompts, rows[2:]) == expected[2:]


def test_chunks_and_slices_are_tokenized_as_their_rows(tokenizer: PreTrainedTokenizerBase) -> None:
    prompts = PromptTokenizer(tokenizer, PromptSpec())
    rows = [[item(1), item(2, "Up")], None, [], [item(3)]]
    expected = prompts.histories(history(*rows), np.full(4, 4096)).ids.to_pylist()
    chunked = pa.chunked_array([history(*rows[:1]), history(*rows[1:])])
    assert prompts.histories(chunked, np.full(4, 4096)).ids.to_pylist() == expected
    assert prompts.histories(history(*rows)[3:], PLENTY).ids.to_pylist() == expected[3:]
    assert prompts.histories(history(), np.empty(0, np.int64)).ids.to_pylist() == []


def test_ids_do_not_depend_on_what_was_tokenized_before(tokenizer: PreTrainedTokenizerBase) -> None:
    used = PromptTokenizer(tokenizer, PromptSpec())
    for day in range(1, 5):
        used.histories(history([item(day, f"Title {day}")]), PLENTY)
    row = history([item(2, "Title 3"), item(9, "Heat"), item(9, "Heat")])
    fresh = PromptTokenizer(tokenizer, PromptSpec())
    assert used.histories(row, PLENTY).ids == fresh.histories(row, PLENTY).ids


@pytest.mark.parametrize(("seconds", "shown"), [(29.0, 0), (31.0, 1), (5_760.0, 96), (9e8, 15_000_000)])
def test_watch_times_are_rounded_to_minutes(tokenizer: PreTrainedTokenizerBase, seconds: float, shown: int) -> None:
    prompts = PromptTokenizer(tokenizer, PromptSpec())
    assert lines(prompts, history([item(1, watch=seconds)])) == [f"- 2024-05-01: Heat (Crime), watched {shown} min"]


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf"), 1e9, None])
def test_an_impossible_watch_time_is_not_shown(tokenizer: PreTrainedTokenizerBase, seconds: float | None) -> None:
    prompts = PromptTokenizer(tokenizer, PromptSpec())
    assert lines(prompts, history([item(1, watch=seconds)])) == ["- 2024-05-01: Heat (Crime)"]
