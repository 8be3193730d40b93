"""Examples: what is left out or refused when they are read, and what a batch renders of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from artsel_ray import storage
from artsel_ray.errors import InputError
from artsel_ray.models.load import Model
from artsel_ray.models.weights import prompt_tokenizer
from artsel_ray.prompts.spec import PromptSpec
from artsel_ray.simulate.artworks import draw
from artsel_ray.train.examples import tokenize_options
from artsel_ray.train.reading import read_train
from artsel_ray.train.validation import read_validation
from tests.support.tiny_vision import write_tiny_vision
from tests.support.training import CAPTIONS, example_row, prompts_of, supervised_text, write_examples


def test_example_is_the_scoring_prompt_and_its_answer(smollm2: Model, tmp_path: Path) -> None:
    examples = read_train(
        write_examples(tmp_path, [example_row(2), example_row(3, label=2)]), prompts_of(smollm2), 2048, 0, False
    )
    assert len(examples.titles) == 1  # the two share their options
    for index, caption in ((0, CAPTIONS[1]), (1, CAPTIONS[2])):
        encoded = examples.example(index)
        assert encoded.ids[: len(examples.prompt(index))] == examples.prompt(index).tolist()
        assert supervised_text(examples, index) == f" {caption}</option><|im_end|>"
        assert len(encoded.ids) == pytest.approx(examples.length_n[index], abs=2)


def test_label_follows_shuffled_candidates(smollm2: Model, tmp_path: Path) -> None:
    uri = write_examples(tmp_path, [example_row(1)])
    examples = read_train(uri, prompts_of(smollm2, output="number"), 2048, 0, True)
    text = {}
    for epoch in range(20):
        text[epoch] = examples.tokenizer.tokenizer.decode(examples.example(0, epoch).ids)
        number = supervised_text(examples, 0, epoch).split("<")[0].strip()
        assert f"{number}. <option> {CAPTIONS[1]}</option>" in text[epoch]
    assert len(set(text.values())) == 6  # 3! orders
    again = read_train(uri, prompts_of(smollm2, output="number"), 2048, 0, True)
    assert [examples.tokenizer.tokenizer.decode(again.example(0, epoch).ids) for epoch in text] == list(text.values())


def test_preference_differs_only_in_its_answers(smollm2: Model, tmp_path: Path) -> None:
    examples = read_train(write_examples(tmp_path, [example_row(1)]), prompts_of(smollm2), 2048, 0, False)
    pair = examples.preference(0, 0, 2, None)
    assert pair.prompt == examples.prompt(0).tolist()
    assert examples.tokenizer.tokenizer.decode(pair.chosen) == f" {CAPTIONS[1]}</option><|im_end|>"
    assert examples.tokenizer.tokenizer.decode(pair.rejected) == f" {CAPTIONS[2]}</option><|im_end|>"


@pytest.fixture
def vision(smollm2: Model, tmp_path: Path) -> Any:
    """The tokenizer of a tiny vision-language model's prompts."""
    model = Path(write_tiny_vision("idefics3", smollm2.path, tmp_path / "tiny"))
    return prompt_tokenizer(model, PromptSpec(assets="image", output="number"))


@pytest.fixture
def store(bucket: str) -> str:
    """A folder on the S3 server with three images."""
    store = storage.join(bucket, "pictured")
    for index in range(3):
        storage.write_object(storage.join(store, f"{index}.png"), draw(np.eye(3)[index]))
    return store


def with_images(store: str, **changes: Any) -> dict[str, Any]:
    uris = [storage.join(store, f"{index}.png").partition("?")[0] for index in range(3)]
    return example_row(1, captions=[None] * 3, **{"image_uris": uris, **changes})  # type: ignore[list-item]


def test_images_follow_shuffled_candidates(vision: Any, store: str) -> None:
    uri = write_examples(storage.join(store, "examples"), [with_images(store)])
    stored, shuffled = (read_train(uri, vision, 2048, 0, shuffle, [store]) for shuffle in (False, True))
    engaged = stored.images(0)[1]
    orders = set()
    for epoch in range(20):
        encoded = shuffled.example(0, epoch)
        number = int(supervised_text(shuffled, 0, epoch).split("<")[0])
        assert encoded.images[number - 1].digest == engaged.digest
        orders.add(tuple(image.digest for image in encoded.images))
        pair = shuffled.preference(0, epoch, 2, None)
        assert [image.digest for image in pair.images] == [image.digest for image in encoded.images]
    assert len(orders) == 6
    assert len(stored.example(0).ids) == pytest.approx(stored.length_n[0], abs=2)


def test_images_that_cannot_be_used_are_named(vision: Any, store: str, tmp_path: Path) -> None:
    def read(name: str, uri: str) -> None:
        examples = write_examples(storage.join(store, name), [with_images(store, image_uris=[uri] * 3)])
        read_train(examples, vision, 2048, 0, False, [store])

    # An image is read with the settings of the examples' own storage, and never with those of data.
    with pytest.raises(InputError, match="image_uris: a URI with credentials or settings"):
        read("signed", "s3://night/a.png?endpoint_override=elsewhere")
    with pytest.raises(InputError, match=r"^s3://night/data/pictured/gone\.png: no file there; restore the image"):
        read("gone", "gone.png".join(with_images(store)["image_uris"][0].split("0.png")))
    with pytest.raises(InputError, match=r"image_uris: not below .*; give the folder of the images as --image-root"):
        read("elsewhere", "/etc/hostname")
    with pytest.raises(InputError, match=r"a candidate without an? (picture|image); prepare with --assets image"):
        read_train(write_examples(tmp_path, [example_row(1)]), vision, 2048, 0, False)


def test_options_of_captions_have_no_images(smollm2: Model) -> None:
    options = tokenize_options(prompts_of(smollm2), "Up", ["Comedy"], CAPTIONS)
    assert len(options.answers) == 3
    assert options.images == ()


def test_long_history_loses_its_oldest_items(smollm2: Model, tmp_path: Path) -> None:
    examples = read_train(write_examples(tmp_path, [example_row(40)]), prompts_of(smollm2), 256, 0, False)
    assert 200 < len(examples.example(0).ids) <= 256


def test_validation_tells_what_its_propensities_allow(smollm2: Model, tmp_path: Path) -> None:
    rows = [example_row(number, label=0, propensity=0.9) for number in range(1, 6)]
    rows += [example_row(number, label=1, propensity=0.05) for number in range(6, 9)] + [example_row(9)]
    found = read_validation(write_examples(tmp_path, rows), prompts_of(smollm2), 2048, 100).notices
    assert [text.partition(":")[0] for text in found] == ["warning"] * 3
    assert "the log is far from uniform" in found[0]
    assert "1 of 9 examples have no usable propensity" in found[1]
    plain = write_examples(tmp_path / "plain", [example_row(1)])
    assert read_validation(plain, prompts_of(smollm2), 2048, 100).notices == []
