"""What a chat template may write, and what it may cost: it is a program that comes with a model."""

import copy
import time
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from artsel_ray.errors import InputError
from artsel_ray.models.load import Model
from artsel_ray.models.weights import read_processor
from artsel_ray.prompts import chat_template as module
from artsel_ray.prompts.chat_template import chat_turn
from tests.support.tiny_vision import write_tiny_vision


def test_a_turn_is_the_users_message_and_the_start_of_the_answer(llama_3: PreTrainedTokenizerBase) -> None:
    text = chat_turn(llama_3, "Hello")
    assert text.endswith(
        "<|start_header_id|>user<|end_header_id|>\n\nHello<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    )


def test_a_template_with_a_date_gets_the_same_one_every_day(llama_3: PreTrainedTokenizerBase) -> None:
    assert "Today Date: 26 Jul 2024" in chat_turn(llama_3, "Hello")


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
    assert chat_turn(other, "Hello").partition("|")[0] in ("26 Jul 2024", "26 Jul 2024, 00:00:00.000000")


@pytest.mark.parametrize(
    "template", ["{{ raise_exception('no') }}", "{{ messages[3].content }}", "{% if %}", "{{ 1 + '' }}"]
)
def test_template_that_fails_is_one_line(llama_3: PreTrainedTokenizerBase, template: str) -> None:
    other = copy.deepcopy(llama_3)
    other.chat_template = template
    with pytest.raises(InputError, match="the model's chat template fails: ") as raised:
        chat_turn(other, "Hello")
    assert "\n" not in str(raised.value)


def test_a_template_without_a_date_gets_none(tokenizer: PreTrainedTokenizerBase) -> None:
    assert chat_turn(tokenizer, "Hello").endswith("<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n")


EITHER = "(1 seconds|1,024 MiB)"
ENDLESS = {
    "loops": ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "1 seconds"),
    "power": ("{% set n = 10 %}{{ n ** (n ** (n - 1)) }}", "1 seconds"),
    "text": ("{{ 'a' * 10**10 }}", EITHER),
    "doubling": (
        "{% set n = namespace(s='x') %}{% for a in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
        "(1 seconds|1,024 MiB)",
    ),
    "padding": ("{{ '%9999999999d' | format(1) }}", EITHER),
}


@pytest.mark.parametrize(("template", "limit"), ENDLESS.values(), ids=ENDLESS)
def test_template_without_end_is_stopped_and_named(
    llama_3: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch, template: str, limit: str
) -> None:
    monkeypatch.setattr(module, "_SECONDS", 1)
    other, started = copy.deepcopy(llama_3), time.process_time()
    other.chat_template, other.name_or_path = template, "/models/evil"
    with pytest.raises(InputError, match=f"^/models/evil: the model's chat template takes more than {limit}; take"):
        chat_turn(other, "Hello")
    assert time.process_time() - started < 2  # of this process


NO_TEMPLATES = [
    "{{ 'x' * 1000001 }}", "{{ '\\ud800' }}", "{% if 1 %}" * 3000, "{{ " + "(" * 99999,
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", 5, {"rag": "x"},
]  # fmt: skip


@pytest.mark.parametrize("template", NO_TEMPLATES)
def test_template_that_is_no_template_is_one_line(llama_3: PreTrainedTokenizerBase, template: Any) -> None:
    other = copy.deepcopy(llama_3)
    other.chat_template = template
    with pytest.raises(InputError, match="the model's chat template ") as raised:
        chat_turn(other, "Hello")
    assert "\n" not in str(raised.value)


def test_turn_is_what_transformers_renders(llama_3: PreTrainedTokenizerBase, smollm2: Model, tmp_path: Path) -> None:
    message, parts = [{"role": "user", "content": "Hé"}], [{"type": "image"}, {"type": "text", "text": "Hé"}]
    plain = llama_3.apply_chat_template(message, tokenize=False, add_generation_prompt=True, date_string="26 Jul 2024")
    assert chat_turn(llama_3, "Hé") == plain
    processor = read_processor(Path(write_tiny_vision("idefics3", smollm2.path, tmp_path / "tiny")))
    shown = [{"role": "user", "content": parts}]
    assert chat_turn(processor, parts) == processor.apply_chat_template(shown, add_generation_prompt=True)


def test_template_is_rendered_once_on_a_machine(
    llama_3: PreTrainedTokenizerBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARTSEL_RAY_CACHE", str(tmp_path))
    module._rendered.cache_clear()
    first = chat_turn(llama_3, "Hello")
    (kept,) = tmp_path.glob("chat_templates/*.json")
    module._rendered.cache_clear()
    monkeypatch.setattr(module, "_RENDER", "artsel_ray.no_module:render")
    assert chat_turn(llama_3, "Hello") == first
    module._rendered.cache_clear()
    kept.write_text("[]")  # damaged: rendered again
    monkeypatch.undo()
    monkeypatch.setenv("ARTSEL_RAY_CACHE", str(tmp_path))
    assert chat_turn(llama_3, "Hello") == first
    module._rendered.cache_clear()
