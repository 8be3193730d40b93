"""Reading examples: what is left out, refused, or shared by the examples of a title."""

from pathlib import Path

import pytest

from artsel_ray import storage
from artsel_ray.errors import InputError
from artsel_ray.models.load import Model
from artsel_ray.train.reading import read_train
from artsel_ray.train.validation import read_validation
from tests.support.training import example_row, prompts_of, write_examples


def test_examples_that_do_not_fit_are_left_out_and_counted(smollm2: Model, tmp_path: Path) -> None:
    long = example_row(1, captions=["word " * 250, "other " * 250])
    examples = read_train(write_examples(tmp_path, [example_row(1), long]), prompts_of(smollm2), 256, 0, False)
    assert (len(examples), examples.too_long) == (1, 1)
    with pytest.raises(InputError, match="no example to use; 1 are longer than 256 tokens"):
        read_train(write_examples(tmp_path / "long", [long]), prompts_of(smollm2), 256, 0, False)


def test_only_training_needs_rationales(smollm2: Model, tmp_path: Path) -> None:
    uri = write_examples(tmp_path, [example_row(1), example_row(2)])
    assert len(read_validation(uri, prompts_of(smollm2, reason=True), 2048, 1)) == 1
    with pytest.raises(InputError, match=r"example e1 has no rationale; run jobs/distill\.py"):
        read_train(uri, prompts_of(smollm2, reason=True), 2048, 0, False)


def test_unfinished_or_empty_input_is_refused(smollm2: Model, tmp_path: Path) -> None:
    uri = write_examples(tmp_path, [example_row(1)])
    storage.write_json(storage.join(uri, "config.json"), {})
    with pytest.raises(InputError, match="has not finished"):
        read_train(uri, prompts_of(smollm2), 2048, 0, False)
    with pytest.raises(InputError, match="no example"):
        read_validation(write_examples(tmp_path / "empty", []), prompts_of(smollm2), 2048, 10)


def test_label_that_is_no_candidate_is_refused(smollm2: Model, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.parquet: row 0 \(from 0\), column 'label': not one of the candidates"):
        read_train(write_examples(tmp_path, [example_row(1, label=3)]), prompts_of(smollm2), 2048, 0, False)


def test_validation_takes_the_first_examples_but_checks_all(smollm2: Model, tmp_path: Path) -> None:
    rows = [example_row(number, label=number % 3) for number in range(1, 6)]
    prompts = prompts_of(smollm2)
    assert read_validation(write_examples(tmp_path, rows), prompts, 2048, 2).label_n == [1, 2]
    rows[4]["label"] = 3
    with pytest.raises(InputError, match=r"row 4 \(from 0\), column 'label'"):
        read_validation(write_examples(tmp_path, rows), prompts, 2048, 2)


def test_examples_of_one_title_share_its_options(smollm2: Model, tmp_path: Path) -> None:
    rows = [example_row(1), example_row(2), example_row(3, captions=["Another."], label=0)]
    examples = read_train(write_examples(tmp_path, rows), prompts_of(smollm2), 2048, 0, False)
    assert examples.title_n == [0, 0, 1]
    assert examples.answers(0) is examples.answers(1)
