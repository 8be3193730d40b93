from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from artsel_ray.data.images import ArtworkImage
from artsel_ray.errors import InputError
from artsel_ray.models.load import Model
from artsel_ray.models.weights import prompt_tokenizer, read_processor
from artsel_ray.prompts.images import ImagePlaceholders
from artsel_ray.prompts.spec import PromptSpec
from artsel_ray.prompts.tokenizer import PromptTokenizer
from artsel_ray.schema import HISTORY
from tests.support.hostile import HOSTILE
from tests.support.tiny_vision import write_tiny_vision

SPEC = PromptSpec(assets="image", output="number")


def image(height: int, width: int) -> ArtworkImage:
    pixels = np.random.default_rng(height * 1000 + width).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return ArtworkImage(pixels, f"{height}x{width}")


@pytest.fixture(scope="module", params=["idefics3", "gemma3"])
def model(request: pytest.FixtureRequest, smollm2: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(write_tiny_vision(request.param, smollm2.path, tmp_path_factory.mktemp("vision") / "tiny"))


@pytest.fixture(scope="module")
def prompts(model: Path) -> PromptTokenizer:
    return prompt_tokenizer(model, SPEC)


def test_expanded_ids_are_what_the_processor_makes_of_the_text(model: Path, prompts: PromptTokenizer) -> None:
    assert prompts.placeholders is not None
    shown = [image(64, 48), image(20, 60), image(64, 48)]
    options = prompts.image_options("Heat", ["Crime"], shown)
    ids = prompts.prompt(options.prefix, prompts.histories(pa.array([[]], HISTORY), np.array([100])).ids[0].as_py())
    expanded = prompts.placeholders.expand(ids, shown)
    processor = read_processor(model)
    text = processor.tokenizer.decode(ids)
    placeholder = processor.tokenizer.decode(prompts.placeholders.ids)
    assert text.count(f"<option>{placeholder}</option>") == 3
    images = [[Image.fromarray(each.pixels) for each in shown]]
    complete = dict(processor(text=text, images=images, add_special_tokens=False, return_tensors="pt"))
    assert expanded.tolist() == complete.pop("input_ids")[0].tolist()
    complete.pop("attention_mask")
    made = prompts.placeholders.inputs(torch.from_numpy(expanded)[None], [shown])
    assert set(made) == set(complete)
    assert all(torch.equal(made[name], value) for name, value in complete.items())
    assert options.length == len(options.prefix) + len(expanded) - len(ids)


def test_the_answers_are_numbers(prompts: PromptTokenizer) -> None:
    options = prompts.image_options("Heat", [], [image(32, 32)] * 12)
    assert prompts.tokenizer.batch_decode(options.answers)[::11] == [" 1", " 12"]


def test_images_reduce_the_history_budget(prompts: PromptTokenizer) -> None:
    options = prompts.image_options("Heat", [], [image(64, 64)] * 4)
    budget = prompts.history_budget(options, 2048)
    longest = max(map(len, options.answers)) + len(prompts.end)
    assert budget == 2048 - len(prompts.head) - len(prompts.tail) - options.length - longest
    assert options.length > len(options.prefix)
    assert prompts.history_budget(options, options.length) == -1


@settings(max_examples=200, deadline=None)
@given(name=st.one_of(st.text(max_size=40), HOSTILE, st.just("<image>"), st.just("<fake_token_around_image><image>")))
def test_no_name_spells_a_placeholder(prompts: PromptTokenizer, name: str) -> None:
    assert prompts.placeholders is not None
    shown = [image(32, 32), image(48, 32)]
    options = prompts.image_options(name, [name], shown)
    (placeholder,) = prompts.placeholders.ids
    assert options.prefix.count(placeholder) == 2
    assert len(prompts.placeholders.expand(np.array(options.prefix, dtype=np.int32), shown)) == options.length


def test_placeholders_and_images_must_match(prompts: PromptTokenizer) -> None:
    assert prompts.placeholders is not None
    prefix = np.array(prompts.image_options("Heat", [], [image(32, 32)] * 2).prefix, dtype=np.int32)
    with pytest.raises(ValueError, match="zip"):
        prompts.placeholders.expand(prefix, [image(32, 32)])


def test_a_model_that_sees_one_image_or_none_is_refused(smollm2: Model, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--assets image needs a vision-language model"):
        prompt_tokenizer(smollm2.path, SPEC)
    one = Path(write_tiny_vision("mllama", smollm2.path, tmp_path / "mllama"))
    with pytest.raises(InputError, match="sees one image at a time"):
        prompt_tokenizer(one, SPEC)


def test_a_chat_template_without_images_is_refused(model: Path) -> None:
    processor = read_processor(model)

    def without(template: Any) -> Any:
        return SimpleNamespace(tokenizer=processor.tokenizer, chat_template=template)

    with pytest.raises(InputError, match="no chat template"):
        ImagePlaceholders(without(None))
    texts = "{% for part in messages[0]['content'] %}{{ part['text'] or '' }}{% endfor %}"
    with pytest.raises(InputError, match="does not leave images in their position"):
        ImagePlaceholders(without(texts))
