import copy
import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from transformers import PreTrainedTokenizerBase

from artsel_ray.config import AssetKind, Layout, Output
from artsel_ray.data.catalog import Catalog
from artsel_ray.errors import InputError
from artsel_ray.models.load import Model
from artsel_ray.models.weights import prompt_tokenizer
from artsel_ray.prompts.spec import PromptSpec
from artsel_ray.prompts.tokenizer import PromptTokenizer, tokenize_title
from tests.support.histories import history, item

CAPTIONS = ["A red tower.", "Two friends laugh by the sea."]
PLENTY = np.array([4096])


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
    # A chat's markers are single tokens; each segment has the same ids in every position.
    assert prompts.head[0] == tokenizer.convert_tokens_to_ids("<|im_start|>")
    assert prompts.prompt([7], [8]).tolist() == [*prompts.head, 7, 8, *prompts.tail]


GOLDEN: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "golden_ids.json").read_text())
GOLDEN_ITEMS = [
    item(1, "Heat", ["Crime", "Drama"], 3600.0),
    {**item(1, "Café <b>Müller</b>", watch=None), "timestamp": None, "genres": []},
    {**item(3, "Prediction: x", watch=59.0), "genres": None},
    {**item(4, watch=-1.0), "title_name": None, "genres": ["War"]},
]
GOLDEN_CAPTIONS = [*CAPTIONS, "“Reason: none”\n<option> 日本 </option>"]


@pytest.mark.parametrize("name", GOLDEN)
def test_no_id_of_any_prompt_changes(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """The ids were made by the first version: a trained model depends on every one of them.

    If they must change, so must `PromptSpec.template`.
    """
    layout, output, reason, kind = name.split(" ")
    spec = PromptSpec(
        layout=cast(Layout, layout),
        output=cast(Output, output),
        reason=reason == "reason",
        asset_kind=cast(AssetKind, kind),
        caption_tokens=12,
        history_tokens=60,
    )
    prompts = PromptTokenizer(tokenizer, spec)
    options = prompts.options("Up", ["Comedy", "<x>"], GOLDEN_CAPTIONS)
    ids = prompts.histories(history(GOLDEN_ITEMS), PLENTY).ids[0].as_py()
    rationale = "They like\nthe sea." if spec.reason else None
    encoded = prompts.example(options, ids, options.answers[1], rationale)
    found = {"ids": encoded.ids, "supervised": sum(encoded.supervised), "cut": options.captions_cut}
    assert found == GOLDEN[name]


def test_only_the_answer_and_its_end_are_supervised(tokenizer: PreTrainedTokenizerBase) -> None:
    prompts = PromptTokenizer(tokenizer, PromptSpec())
    options = prompts.options("Up", [], CAPTIONS)
    encoded = prompts.example(options, [], options.answers[1])
    target = [token for token, supervised in zip(encoded.ids, encoded.supervised, strict=True) if supervised]
    assert tokenizer.decode(target) == " Two friends laugh by the sea.</option><|im_end|>"
    assert encoded.ids == prompts.prompt(options.prefix, []).tolist() + target
    assert encoded.supervised == sorted(encoded.supervised)


def test_a_rationale_and_its_prediction_are_supervised(tokenizer: PreTrainedTokenizerBase) -> None:
    prompts = PromptTokenizer(tokenizer, PromptSpec(reason=True, output="number"))
    options = prompts.options("Up", [], CAPTIONS)
    encoded = prompts.example(options, [], options.answers[1], rationale="They like\nthe sea.")
    target = [token for token, supervised in zip(encoded.ids, encoded.supervised, strict=True) if supervised]
    assert tokenizer.decode(target) == " They like the sea.\nPrediction: <option> 2</option><|im_end|>"
    with pytest.raises(ValueError, match="lacks a rationale"):
        prompts.example(options, [], options.answers[1])
    plain = PromptTokenizer(tokenizer, PromptSpec())
    with pytest.raises(ValueError, match="has a rationale"):
        plain.example(options, [], options.answers[1], rationale="")


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


def test_histories_may_have_what_options_and_the_longest_answer_leave(tokenizer: PreTrainedTokenizerBase) -> None:
    for spec in (PromptSpec(), PromptSpec(reason=True, reason_tokens=30, output="number")):
        prompts = PromptTokenizer(tokenizer, spec)
        options = prompts.options("Up", [], CAPTIONS)
        written = 30 + len(prompts.after_rationale) if spec.reason else 0
        longest = max(map(len, options.answers)) + len(prompts.end) + written
        left = 700 - len(prompts.prompt(options.prefix, [])) - longest
        assert prompts.history_budget(options, 700) == left
        # An empty history is the least that must fit.
        needed = 700 - left + prompts.min_history_tokens
        assert prompts.history_budget(options, needed) == prompts.min_history_tokens
        assert prompts.history_budget(options, needed - 1) == -1


def test_a_generated_rationale_ends_at_its_prediction(tokenizer: PreTrainedTokenizerBase) -> None:
    prompts = PromptTokenizer(tokenizer, PromptSpec(reason=True))
    generated = tokenizer(" They like\nthe sea.\nPrediction: <option> A", add_special_tokens=False)["input_ids"]
    extended, rationale = prompts.with_rationale(np.array([7], dtype=np.int32), generated)
    assert rationale == "They like\nthe sea."
    assert tokenizer.decode(extended[1:]) == " They like the sea.\nPrediction: <option>"


def test_texts_are_those_of_the_title_and_its_options(tokenizer: PreTrainedTokenizerBase) -> None:
    prompts = PromptTokenizer(tokenizer, PromptSpec(output="number"))
    title, *options = prompts.texts(prompts.options("Up", ["Comedy"], CAPTIONS).prefix)
    assert title == "\n\nNew title: Up (Comedy)\nAvailable artworks:\n1. "
    assert options == [f" {caption}" for caption in CAPTIONS]


def test_a_model_without_a_chat_template_gets_a_begin_token_and_a_blank_line(llama_3: PreTrainedTokenizerBase) -> None:
    plain = copy.copy(llama_3)
    plain.chat_template = None
    prompts = PromptTokenizer(plain, PromptSpec())
    assert prompts.head[0] == llama_3.bos_token_id
    assert llama_3.decode(prompts.turn) == "\n\n"


def catalog(contents: list[str]) -> Catalog:
    """Two titles; the second has these candidates."""
    return Catalog(
        title_ids=pa.array(["t1", "t2"]),
        names=pa.array(["Heat", "Up"]),
        genres=pa.array([["Crime"], ["Comedy", "Drama"]]),
        artwork_ids=pa.array([f"a{number}" for number in range(len(contents) + 1)]),
        offsets=np.array([0, 1, len(contents) + 1]),
        contents=pa.array(["A gun.", *contents], pa.large_string()),
        other_ids=pa.array([], pa.string()),
    )


def test_title_is_its_line_and_its_own_candidates(smollm2: Model) -> None:
    tokenizer = prompt_tokenizer(smollm2.path, PromptSpec())
    options = tokenize_title(tokenizer, catalog(["A red house.", "Balloons."]), 1)
    assert options == tokenizer.options("Up", ["Comedy", "Drama"], ["A red house.", "Balloons."])


class ImageTokenizer:
    """The part of a tokenizer for images that titles use."""

    placeholders, spec = "anything but None", PromptSpec(assets="image", output="number")

    def image_options(self, name: str, genres: list[str], images: list) -> tuple:
        return name, genres, [image.pixels.shape for image in images]


def test_images_are_read_and_one_that_is_gone_names_its_title(tmp_path: Path) -> None:
    file = tmp_path / "poster.png"
    Image.new("RGB", (40, 60)).save(file)
    with_image = catalog([str(file)])
    assert tokenize_title(ImageTokenizer(), with_image, 1) == ("Up", ["Comedy", "Drama"], [(60, 40, 3)])  # type: ignore[arg-type]
    gone = catalog([str(tmp_path / "gone.png")])
    with pytest.raises(InputError, match="an image of title t2 was valid when the run started and is not now"):
        tokenize_title(ImageTokenizer(), gone, 1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "template", ["{{ 'hello' }}", "{{ messages[0].content * 2 }}", "{{ messages[0].content|reverse }}"]
)
def test_template_that_does_not_show_the_message_once_is_refused(
    tokenizer: PreTrainedTokenizerBase, template: str
) -> None:
    other = copy.deepcopy(tokenizer)
    other.chat_template = template
    with pytest.raises(InputError, match="chat template does not show a message once and as it is"):
        PromptTokenizer(other, PromptSpec())


def test_tokenizer_without_an_end_token_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    other = copy.deepcopy(tokenizer)
    other.eos_token = None
    with pytest.raises(InputError, match="has no end token; add eos_token to its tokenizer_config"):
        PromptTokenizer(other, PromptSpec())
