from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from transformers import PreTrainedTokenizerFast

from artsel_ray import storage
from artsel_ray.errors import InputError
from artsel_ray.models.load import Model
from artsel_ray.models.weights import prompt_tokenizer
from artsel_ray.prompts.spec import PromptSpec
from artsel_ray.prompts.tokenizer import PromptTokenizer
from artsel_ray.schema import EXAMPLES
from artsel_ray.simulate.drawing import draw
from artsel_ray.train.data import Rejections, TrainingExamples, read_train, read_validation
from tests.support.tiny_vision import write_tiny_vision

CAPTIONS = ["A red tower.", "Two friends laugh by the sea.", "A lonely house."]
Row = Callable[..., dict[str, Any]]
Write = Callable[[Path, list[dict[str, Any]]], str]


@pytest.fixture(scope="module")
def tokenizer(smollm2: Model) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast.from_pretrained(smollm2.path)


def prompts(tokenizer: PreTrainedTokenizerFast, **spec: Any) -> PromptTokenizer:
    return PromptTokenizer(tokenizer, PromptSpec(**spec))


def supervised(examples: TrainingExamples, index: int, epoch: int = 0) -> str:
    encoded = examples.example(index, epoch)
    ids = [token for token, learn in zip(encoded.ids, encoded.supervised, strict=True) if learn]
    return str(examples.tokenizer.tokenizer.decode(ids))


def test_an_example_is_the_prompt_that_scores_and_its_answer(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, row: Row, write: Write
) -> None:
    examples = read_train(write(tmp_path, [row(2), row(3, label=2)]), prompts(tokenizer), 2048, 0, False)
    assert len(examples.titles) == 1  # the two share their options
    for index, caption in ((0, CAPTIONS[1]), (1, CAPTIONS[2])):
        encoded = examples.example(index)
        assert encoded.ids[: len(examples.prompt(index))] == examples.prompt(index).tolist()
        assert supervised(examples, index) == f" {caption}</option><|im_end|>"
        assert len(encoded.ids) == pytest.approx(examples.length_n[index], abs=2)


def test_a_shuffled_label_moves_along(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, row: Row, write: Write
) -> None:
    uri = write(tmp_path, [row(1)])
    examples = read_train(uri, prompts(tokenizer, output="number"), 2048, 0, True)
    text = {}
    for epoch in range(20):
        text[epoch] = tokenizer.decode(examples.example(0, epoch).ids)
        number = supervised(examples, 0, epoch).split("<")[0].strip()
        assert f"{number}. <option> {CAPTIONS[1]}</option>" in text[epoch]
    assert len(set(text.values())) == 6  # 3! orders
    again = read_train(uri, prompts(tokenizer, output="number"), 2048, 0, True)
    assert [tokenizer.decode(again.example(0, epoch).ids) for epoch in text] == list(text.values())


def test_a_preference_differs_in_its_answer_alone(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, row: Row, write: Write
) -> None:
    examples = read_train(write(tmp_path, [row(1)]), prompts(tokenizer), 2048, 0, False)
    pair = examples.preference(0, 0, 2, None)
    assert pair.prompt == examples.prompt(0).tolist()
    assert tokenizer.decode(pair.chosen) == f" {CAPTIONS[1]}</option><|im_end|>"
    assert tokenizer.decode(pair.rejected) == f" {CAPTIONS[2]}</option><|im_end|>"


def test_every_other_candidate_is_rejected_now_and_then(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, row: Row, write: Write
) -> None:
    examples = read_train(
        write(tmp_path, [row(1), row(1, captions=CAPTIONS[:1], label=0)]), prompts(tokenizer), 2048, 0, False
    )
    rejections = Rejections(examples, "uniform")
    assert rejections.usable() == [0]
    drawn = Counter(rejections.draw(0, epoch)[0] for epoch in range(2000))
    assert set(drawn) == {0, 2}
    assert drawn[0] / 2000 == pytest.approx(0.5, abs=4 * np.sqrt(0.25 / 2000))


def test_logged_rejections_follow_the_logged_propensities(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, row: Row, write: Write
) -> None:
    rows = [row(1, label=1, propensity=0.5), row(2, label=0, propensity=0.1), row(3, label=2, propensity=0.3)]
    examples = read_train(write(tmp_path, rows), prompts(tokenizer), 2048, 0, False)
    drawn = Counter(Rejections(examples, "logged").draw(0, epoch)[0] for epoch in range(2000))
    assert drawn[0] / 2000 == pytest.approx(0.1 / 0.4, abs=4 * np.sqrt(0.19 / 2000))
    # Without any propensity but the label's own, any other candidate may be rejected.
    alone = read_train(write(tmp_path / "alone", rows[:1]), prompts(tokenizer), 2048, 0, False)
    assert {Rejections(alone, "logged").draw(0, epoch)[0] for epoch in range(50)} == {0, 2}


def test_a_rejected_reason_speaks_for_the_rejected_candidate(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, row: Row, write: Write
) -> None:
    rows = [row(1, label=0, reason="Likes towers."), row(2, label=1, reason="Likes the sea.")]
    examples = read_train(write(tmp_path, rows), prompts(tokenizer, reason=True), 2048, 0, False)
    rejections = Rejections(examples, "uniform")
    drawn = dict(rejections.draw(0, epoch) for epoch in range(20))
    assert drawn == {1: "Likes the sea.", 2: "Likes towers."}
    pair = examples.preference(0, 0, 1, drawn[1])
    assert str(tokenizer.decode(pair.chosen)).startswith(" Likes towers.\nPrediction: <option> A red tower.</option>")
    assert str(tokenizer.decode(pair.rejected)).startswith(" Likes the sea.\nPrediction: <option> Two friends")


def test_what_does_not_fit_is_left_out_and_counted(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, row: Row, write: Write
) -> None:
    long = row(1, captions=["word " * 250, "other " * 250])
    examples = read_train(write(tmp_path, [row(1), long]), prompts(tokenizer), 256, 0, False)
    assert (len(examples), examples.too_long) == (1, 1)
    with pytest.raises(InputError, match="no example to use; 1 are longer than 256 tokens"):
        read_train(write(tmp_path / "long", [long]), prompts(tokenizer), 256, 0, False)


def test_a_long_history_loses_its_oldest(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, row: Row, write: Write
) -> None:
    examples = read_train(write(tmp_path, [row(40)]), prompts(tokenizer), 256, 0, False)
    assert 200 < len(examples.example(0).ids) <= 256


def test_reasons_are_asked_of_training_alone(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, row: Row, write: Write
) -> None:
    uri = write(tmp_path, [row(1), row(2)])
    assert len(read_validation(uri, prompts(tokenizer, reason=True), 2048, 1)) == 1
    with pytest.raises(InputError, match="example e1 has no reason"):
        read_train(uri, prompts(tokenizer, reason=True), 2048, 0, False)


def test_an_unfinished_or_empty_input_is_refused(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, row: Row, write: Write
) -> None:
    uri = write(tmp_path, [row(1)])
    storage.write_json(storage.join(uri, "config.json"), {})
    with pytest.raises(InputError, match="has not finished"):
        read_train(uri, prompts(tokenizer), 2048, 0, False)
    with pytest.raises(InputError, match="no example"):
        read_validation(write(tmp_path / "empty", []), prompts(tokenizer), 2048, 10)


def test_a_label_out_of_place_is_refused(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, row: Row, write: Write
) -> None:
    with pytest.raises(
        InputError, match=r"a\.parquet: row 0 \(from 0\), example e1, column 'label': not one of the candidates"
    ):
        read_train(write(tmp_path, [row(1, label=3)]), prompts(tokenizer), 2048, 0, False)


def test_pictures_move_with_their_numbers_and_are_read_with_the_settings_of_the_examples(
    smollm2: Model, bucket: str, tmp_path: Path, row: Row, write: Write
) -> None:
    model = Path(write_tiny_vision("idefics3", smollm2.path, tmp_path / "tiny"))
    seeing = prompt_tokenizer(model, PromptSpec(assets="image", output="number"))
    store = storage.join(bucket, "pictured")
    uris = [storage.join(store, f"{place}.png") for place in range(3)]
    for place, uri in enumerate(uris):
        storage.write_object(uri, draw(np.eye(3)[place]))
    pictured = row(1, captions=[None] * 3, image_uris=[uri.partition("?")[0] for uri in uris])
    read = [read_train(_put(store, name, rows), seeing, 2048, 0, shuffle) for name, rows, shuffle in (
        ("one order", [pictured], False), ("shuffled", [pictured], True),
    )]  # fmt: skip
    engaged = read[0].images(0)[1]
    orders = set()
    for epoch in range(20):
        encoded = read[1].example(0, epoch)
        number = int(supervised(read[1], 0, epoch).split("<")[0])
        assert encoded.images[number - 1].digest == engaged.digest
        orders.add(tuple(image.digest for image in encoded.images))
        pair = read[1].preference(0, epoch, 2, None)
        assert [image.digest for image in pair.images] == [image.digest for image in encoded.images]
    assert len(orders) == 6
    assert len(read[0].example(0).ids) == pytest.approx(read[0].length_n[0], abs=2)
    signed = {**pictured, "image_uris": ["s3://night/a.png?endpoint_override=elsewhere"] * 3}
    with pytest.raises(InputError, match="image_uris: a URI with credentials or settings"):
        read_train(_put(store, "signed", [signed]), seeing, 2048, 0, False)
    with pytest.raises(InputError, match=r"^s3://night/gone\.png: no file there; bring the picture back"):
        read_train(
            _put(store, "gone", [{**pictured, "image_uris": ["s3://night/gone.png"] * 3}]), seeing, 2048, 0, False
        )
    with pytest.raises(InputError, match="a candidate without a picture; prepare with --assets image"):
        read_train(write(tmp_path, [row(1)]), seeing, 2048, 0, False)


def _put(store: str, name: str, rows: list[dict[str, Any]]) -> str:
    uri = storage.join(store, name)
    storage.write_table(storage.join(uri, "a.parquet"), pa.Table.from_pylist(rows, EXAMPLES), "examples")
    return uri
