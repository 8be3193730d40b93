import copy
import datetime

import pytest
from transformers import PreTrainedTokenizerBase

from artsel_ray.errors import InputError
from artsel_ray.prompts import text as render
from artsel_ray.prompts.spec import Output, PromptSpec


@pytest.mark.parametrize(
    ("output", "reason", "expected"),
    [
        ("text", False, "\n\nOutput the best artwork in text."),
        ("number", False, "\n\nOutput the number of the best artwork."),
        ("text", True, "\n\nFirst give the reason, then output the best artwork in text."),
        ("number", True, "\n\nFirst give the reason, then output the number of the best artwork."),
    ],
)
def test_question_asks_for_the_output(output: Output, reason: bool, expected: str) -> None:
    assert render.question(PromptSpec(output=output, reason=reason)) == expected


def test_every_asset_kind_has_its_wording() -> None:
    assert "available synopses of a new title" in render.instruction("synopsis")
    assert render.new_title("Heat", [], "trailer") == "\n\nNew title: Heat\nAvailable trailers:"
    assert render.question(PromptSpec(asset_kind="synopsis")) == "\n\nOutput the best synopsis in text."


def test_history_line() -> None:
    segments = [
        render.history_date(datetime.date(2024, 5, 1)),
        render.described_title("Heat", ["Action", "Crime"]),
        render.history_watch(96),
    ]
    assert "".join(segments) == "\n- 2024-05-01: Heat (Action, Crime), watched 96 min"


def test_history_line_without_date_and_watch_time() -> None:
    segments = [render.history_date(None), render.described_title("Heat", []), render.history_watch(None)]
    assert "".join(segments) == "\n- Heat"


def test_answer_in_text_is_the_options_text() -> None:
    assert render.answer_text(4, "A <b>tower</b>", "text") == render.option_text("A <b>tower</b>") == " A ‹b›tower‹/b›"
    assert render.answer_text(4, "A tower", "number") == " 5"
    assert render.option_head(4, "number") == "\n5. "


def test_a_turn_is_the_users_message_and_the_start_of_the_answer(llama_3: PreTrainedTokenizerBase) -> None:
    text = render.chat_turn(llama_3, "Hello")
    assert text.endswith(
        "<|start_header_id|>user<|end_header_id|>\n\nHello<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    )


def test_a_template_with_a_date_gets_the_same_one_every_day(llama_3: PreTrainedTokenizerBase) -> None:
    assert "Today Date: 26 Jul 2024" in render.chat_turn(llama_3, "Hello")


@pytest.mark.parametrize("template", [
    "{{ strftime_now('%d %b %Y, %H:%M:%S.%f') }}|{{ messages[0].content }}",
    "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}{{ date_string }}|"
    "{{ messages[0].content }}",
])  # fmt: skip
def test_template_that_asks_for_the_date_gets_the_same_one_every_day(
    llama_3: PreTrainedTokenizerBase, template: str
) -> None:
    other = copy.deepcopy(llama_3)
    other.chat_template = template
    assert render.chat_turn(other, "Hello").partition("|")[0] in ("26 Jul 2024", "26 Jul 2024, 00:00:00.000000")


@pytest.mark.parametrize(
    "template", ["{{ raise_exception('no') }}", "{{ messages[3].content }}", "{% if %}", "{{ 1 + '' }}"]
)
def test_template_that_fails_is_one_line(llama_3: PreTrainedTokenizerBase, template: str) -> None:
    other = copy.deepcopy(llama_3)
    other.chat_template = template
    with pytest.raises(InputError, match="the model's chat template fails: ") as raised:
        render.chat_turn(other, "Hello")
    assert "\n" not in str(raised.value)


def test_a_template_without_a_date_gets_none(tokenizer: PreTrainedTokenizerBase) -> None:
    assert render.chat_turn(tokenizer, "Hello").endswith("<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n")
