import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from transformers import PreTrainedTokenizerBase

from artsel_ray.errors import InputError
from artsel_ray.prompts.spec import Layout, Output, PromptSpec
from artsel_ray.prompts.tokenizer import PromptTokenizer
from artsel_ray.schema import HISTORY

UTC = datetime.UTC
CAPTIONS = ["A red tower.", "Two friends laugh by the sea."]
PLENTY = np.array([4096])


def item(day: int, name: str = "Heat", genres: list[str] | None = None, watch: float | None = 60.0) -> dict[str, Any]:
    moment = datetime.datetime(2024, 5, day, tzinfo=UTC)
    return {"timestamp": moment, "title_name": name, "genres": genres or ["Crime"], "watch_seconds": watch}


def history(*rows: list[dict[str, Any]] | None) -> pa.Array:
    return pa.array(rows, HISTORY)


def prompt_ids(prompts: PromptTokenizer, items: list[dict[str, Any]], captions: list[str] = CAPTIONS) -> list[int]:
    options = prompts.options("Up", ["Comedy"], captions)
    return prompts.prompt(options.prefix, prompts.histories(history(items), PLENTY).ids[0].as_py()).tolist()


INSTRUCTION = (
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    "<|im_start|>user\nYou are an expert in movies and shows. Given a user's watch history, predict which of the "
    "available artworks of a new title this user would like the most."
)
WATCHED = "\n\nWatch history, oldest first:\n- 2024-05-01: Heat (Crime), watched 1 min\n- 2024-05-02: Up (Comedy)"
TEXT_OPTIONS = (
    "\n\nNew title: Up (Comedy)\nAvailable artworks:\n<option> A red tower.</option>"
    "\n<option> Two friends laugh by the sea.</option>"
)
NUMBER_OPTIONS = (
    "\n\nNew title: Up (Comedy)\nAvailable artworks:\n1. <option> A red tower.</option>"
    "\n2. <option> Two friends laugh by the sea.</option>"
)
TURN = "<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize(
    ("layout", "output", "reason", "expected"),
    [
        ("title_first", "text", False,
         TEXT_OPTIONS + WATCHED + "\n\nOutput the best artwork in text." + TURN + "Prediction: <option>"),
        ("user_first", "text", False,
         WATCHED + TEXT_OPTIONS + "\n\nOutput the best artwork in text." + TURN + "Prediction: <option>"),
        ("user_first", "number", False,
         WATCHED + NUMBER_OPTIONS + "\n\nOutput the number of the best artwork." + TURN + "Prediction: <option>"),
        ("title_first", "text", True,
         TEXT_OPTIONS + WATCHED + "\n\nFirst give the reason, then output the best artwork in text." + TURN
         + "Reason:"),
    ],
)  # fmt: skip
def test_golden_text(
    tokenizer: PreTrainedTokenizerBase, layout: Layout, output: Output, reason: bool, expected: str
) -> None:
    prompts = PromptTokenizer(tokenizer, PromptSpec(layout=layout, output=output, reason=reason))
    ids = prompt_ids(prompts, [item(1), item(2, "Up", ["Comedy"], None)])
    assert tokenizer.decode(ids) == INSTRUCTION + expected


def test_golden_ids(tokenizer: PreTrainedTokenizerBase) -> None:
    prompts = PromptTokenizer(tokenizer, PromptSpec())
    assert (prompts.option, prompts.option_end) == (49152, 49153)
    options = prompts.options("Up", ["Comedy"], ["A red tower."])
    assert options.answers == [[330, 2382, 11637, 30]]
    assert options.prefix[-7:] == [198, 49152, 330, 2382, 11637, 30, 49153]
    assert prompts.tail[-3:] == [*prompts.encode(["Prediction: "])[0][-2:], 49152]
    # A chat's markers are single tokens; each piece keeps its own ids wherever it stands.
    assert prompts.head[0] == tokenizer.convert_tokens_to_ids("<|im_start|>")
    assert prompts.prompt([7], [8]).tolist() == [*prompts.head, 7, 8, *prompts.tail]


def test_only_the_answer_and_its_end_are_supervised(tokenizer: PreTrainedTokenizerBase) -> None:
    prompts = PromptTokenizer(tokenizer, PromptSpec())
    options = prompts.options("Up", [], CAPTIONS)
    encoded = prompts.example(options, [], options.answers[1])
    target = [token for token, supervised in zip(encoded.ids, encoded.supervised, strict=True) if supervised]
    assert tokenizer.decode(target) == " Two friends laugh by the sea.</option><|im_end|>"
    assert encoded.ids == prompts.prompt(options.prefix, []).tolist() + target
    assert encoded.supervised == sorted(encoded.supervised)


def test_a_reason_is_supervised_with_what_follows_it(tokenizer: PreTrainedTokenizerBase) -> None:
    prompts = PromptTokenizer(tokenizer, PromptSpec(reason=True, output="number"))
    options = prompts.options("Up", [], CAPTIONS)
    encoded = prompts.example(options, [], options.answers[1], reason="They like\nthe sea.")
    target = [token for token, supervised in zip(encoded.ids, encoded.supervised, strict=True) if supervised]
    assert tokenizer.decode(target) == " They like the sea.\nPrediction: <option> 2</option><|im_end|>"
    with pytest.raises(ValueError, match="lacks a reason"):
        prompts.example(options, [], options.answers[1])


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
    whole = len(prompts.histories(history(items), PLENTY).ids[0])
    for budget in range(whole + 2):
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


def test_captions_are_cut_to_their_budget(tokenizer: PreTrainedTokenizerBase) -> None:
    prompts = PromptTokenizer(tokenizer, PromptSpec(caption_tokens=3))
    options = prompts.options("Up", [], ["one two three four five", "one"])
    assert [len(answer) for answer in options.answers] == [3, 1]
    assert options.captions_cut == 1


def test_a_100_kb_caption_is_cut(tokenizer: PreTrainedTokenizerBase) -> None:
    options = PromptTokenizer(tokenizer, PromptSpec()).options("Up", [], ["word " * 20_000])
    assert len(options.answers[0]) == 256


def test_a_tokenizer_without_option_tokens_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    class Bare:
        def get_added_vocab(self) -> dict[str, int]:
            return {"<|im_end|>": 2}

    with pytest.raises(InputError, match="<option>"):
        PromptTokenizer(Bare(), PromptSpec())  # type: ignore[arg-type]
