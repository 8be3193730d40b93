from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from transformers import AutoTokenizer

from artsel_ray.caption.prompts import CaptionPrompts
from artsel_ray.errors import InputError
from artsel_ray.models.load import Model
from tests.support.hostile import HOSTILE
from tests.support.tiny_vision import CHAT_TEMPLATE


def prompts_of(smollm2: Model, template: str | None = CHAT_TEMPLATE) -> CaptionPrompts:
    tokenizer: Any = AutoTokenizer.from_pretrained(smollm2.path)
    template = template and template.replace("PLACEHOLDER", "<option>")
    return CaptionPrompts(SimpleNamespace(tokenizer=tokenizer, chat_template=template))


@pytest.fixture(scope="module")
def prompts(smollm2: Model) -> CaptionPrompts:
    """Prompts in SmolLM2's tokenizer, with `<option>` as the image placeholder."""
    return prompts_of(smollm2)


def test_question_has_an_image_placeholder_and_the_title_name(prompts: CaptionPrompts) -> None:
    text = str(prompts._tokenizer.decode(prompts.question("Up")))
    assert text.startswith("<|im_start|>user\n<option>This picture is one of several artworks")
    assert 'to viewers, called "Up". Describe it so' in text
    assert text.endswith("<|im_end|>\n<|im_start|>assistant\n")
    assert "to viewers. Describe it so" in str(prompts._tokenizer.decode(prompts.question(None)))


@settings(deadline=None)
@given(HOSTILE)
def test_title_names_never_become_structure(prompts: CaptionPrompts, name: str) -> None:
    special = set(prompts._tokenizer.all_special_ids)
    plain = [token for token in prompts.question("Up").tolist() if token in special]
    assert [token for token in prompts.question(name).tolist() if token in special] == plain


@pytest.mark.parametrize(
    ("text", "finished", "expected"),
    [
        (" A dark sky.\n\n  A  boat. ", True, "A dark sky. A boat."),
        ("A sky\x00\u200b above\u2028it", True, "A sky above it"),
        ("<|im_end|>A sky</option>, Prediction: 1", True, "A sky, Prediction - 1"),
        ("A sky. A boat at", True, "A sky. A boat at"),
        ("A sky. A boat at", False, "A sky."),
        ("She says “Come!” And 3.5 boats", False, "She says “Come!”"),
        ("No end in sight", False, "No end in sight"),
        ("  \n ", True, ""),
    ],
)
def test_generated_text_becomes_one_clean_line(
    prompts: CaptionPrompts, text: str, finished: bool, expected: str
) -> None:
    ids = prompts._tokenizer(text, add_special_tokens=False)["input_ids"]
    assert prompts.caption(ids, finished) == expected


@pytest.mark.parametrize("template", [None, "{{ 'Describe it.' }}"])
def test_model_without_a_usable_chat_template_is_refused(smollm2: Model, template: str | None) -> None:
    with pytest.raises(InputError, match="chat template"):
        prompts_of(smollm2, template)
