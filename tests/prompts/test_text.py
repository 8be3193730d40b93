import datetime

import pytest

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
