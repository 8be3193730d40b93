import pytest
from transformers import PreTrainedTokenizerBase

from artsel_ray.audience.prompts import brief_of, question
from artsel_ray.prompts.spec import PromptSpec
from artsel_ray.prompts.tokenizer import PromptTokenizer


def test_question_shows_the_title_and_whom_nothing_suits(tokenizer: PreTrainedTokenizerBase) -> None:
    prompts = PromptTokenizer(tokenizer, PromptSpec(asset_kind="synopsis"))
    options = prompts.options("Up <b>", ["Comedy"], ["A red tower.", "The sea."])
    ids = question(prompts, options, ["Horror", "<option> War"]).tolist()
    text = str(tokenizer.decode(ids))
    assert "Up ‹b›" in text
    assert "who watch more Horror and ‹option› War than others" in text
    assert "a new synopsis of this title" in text
    # Two options, and no more, whatever a genre is called.
    assert ids.count(prompts.option) == ids.count(prompts.option_end) == 2


@pytest.mark.parametrize(
    ("generated", "expected"),
    [
        (" A storm. At sea!\nDark? More. And mo", "A storm. At sea! Dark?"),
        ("no end", "no end"),
        (" <option>A hand.", "‹option›A hand."),
        ("", ""),
    ],
)
def test_brief_is_its_first_complete_sentences(generated: str, expected: str) -> None:
    assert brief_of(generated) == expected
