import pytest
from transformers import PreTrainedTokenizerFast

from artsel_ray.audience import brief
from artsel_ray.prompts.spec import PromptSpec
from artsel_ray.prompts.tokenizer import PromptTokenizer


def test_the_question_shows_the_title_and_whom_nothing_suits(tokenizer: PreTrainedTokenizerFast) -> None:
    pieces = PromptTokenizer(tokenizer, PromptSpec(asset_kind="synopsis"))
    options = pieces.options("Up <b>", ["Comedy"], ["A red tower.", "The sea."])
    ids = brief.ask(pieces, options, ["Horror", "<option> War"]).tolist()
    text = str(tokenizer.decode(ids))
    assert "Up ‹b›" in text
    assert "who watch more Horror and ‹option› War than others" in text
    assert "a new synopsis of this title" in text
    # Two options, and no more, whatever a genre is called.
    assert ids.count(pieces.option) == ids.count(pieces.option_end) == 2


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (" A storm. At sea!\nDark? More. And mo", "A storm. At sea! Dark?"),
        ("no end", "no end"),
        (" <option>A hand.", "‹option›A hand."),
        ("", ""),
    ],
)
def test_a_brief_is_its_first_sentences(written: str, expected: str) -> None:
    assert brief.read(written) == expected
