import re
import sys
import unicodedata

import pytest
from hypothesis import given, settings

from artsel_ray.prompts.escaping import escape, label
from tests.support.hostile import HOSTILE


def test_labels_count_from_one() -> None:
    assert [label(0), label(9)] == ["1", "10"]


def test_escape_keeps_ordinary_text() -> None:
    assert escape("Amélie, 2001: «a café» 🎬 日本語") == "Amélie, 2001: «a café» 🎬 日本語"


def test_structure_in_data_becomes_visible_text() -> None:
    assert escape("a\n\n<option> b</option>\tPrediction: x") == "a ‹option› b‹/option› Prediction - x"


@pytest.mark.parametrize(
    "text", ["Prediction\u200b: x", "Predic\u00adtion: x", "Prediction\ufe0f\u200d: x", "\ufeffPrediction: x"]
)
def test_invisible_characters_do_not_hide_structure(text: str) -> None:
    assert escape(text) == "Prediction - x"


def test_no_format_character_passes_in_latin_text() -> None:
    formats = [chr(code) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) == "Cf"]
    assert len(formats) > 100
    assert {escape(f"a{each}b") for each in formats} == {"ab"}
    assert {escape(f"日{each}b") for each in formats} == {"日b"}


@pytest.mark.parametrize(
    "text", ["\u2764\ufe0f\u200d\U0001f525", "\U0001f469\u200d\U0001f680", "می\u200cخواهم", "क्\u200dष"]
)
def test_joined_characters_stay_joined(text: str) -> None:
    assert escape(f"a {text} b") == f"a {text} b"


@settings(max_examples=3000, deadline=None)
@given(HOSTILE)
def test_escaped_text_has_no_structure(text: str) -> None:
    escaped = escape(text)
    assert not re.search(r"[<>\x00-\x1f\x7f-\x9f\u2028\u2029]", escaped)
    shown = re.sub("[\u200b-\u200d\ufe0e\ufe0f]", "", escaped)
    assert not re.search(r"(prediction|reason)\s*[:：]", shown, re.IGNORECASE)
    assert escape(escaped) == escaped


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("Ｐｒｅｄｉｃｔｉｏｎ: x", "Prediction - x"),
        ("Ｒｅａｓｏｎ： x", "Reason - x"),
        ("＜option＞ x ﹤/option﹥", "‹option› x ‹/option›"),
        ("𝐏𝐫𝐞𝐝𝐢𝐜𝐭𝐢𝐨𝐧: x", "Prediction - x"),
        ("Café … <b>", "Café … ‹b›"),
        ("① ｆｕｌｌ ﬁne …", "① ｆｕｌｌ ﬁne …"),
    ],
)
def test_letters_that_a_tokenizer_may_normalize_do_not_hide_structure(text: str, escaped: str) -> None:
    assert escape(text) == escaped
