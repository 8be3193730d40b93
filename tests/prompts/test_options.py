import re

from hypothesis import given
from hypothesis import strategies as st

from artsel_ray.prompts.options import escape, label

STRUCTURE = st.sampled_from(
    [
        "<option>",
        "</option>",
        "<|im_start|>",
        "<|im_end|>",
        "<|eot_id|>",
        "Prediction:",
        "reason :",
        "\n\n",
        "\x00",
        "<",
        ">",
    ]
)
HOSTILE = st.lists(STRUCTURE | st.text(max_size=8), max_size=12).map("".join)


def test_labels_count_from_one() -> None:
    assert [label(0), label(9)] == ["1", "10"]


def test_escape_keeps_ordinary_text() -> None:
    assert escape("Amélie, 2001: «a café» 🎬 日本語") == "Amélie, 2001: «a café» 🎬 日本語"


def test_escape_shows_what_was_meant_as_structure() -> None:
    assert escape("a\n\n<option> b</option>\tPrediction: x") == "a ‹option› b‹/option› Prediction - x"


@given(HOSTILE)
def test_escaped_text_has_no_structure(text: str) -> None:
    escaped = escape(text)
    assert not re.search(r"[<>\x00-\x1f\x7f-\x9f\u2028\u2029]", escaped)
    assert not re.search(r"(prediction|reason)\s*:", escaped, re.IGNORECASE)
    assert escape(escaped) == escaped
