"""DPO: its batches, how rejected candidates are drawn, and what speaks for them."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from artsel_ray.errors import InputError
from artsel_ray.models.load import Model, load
from artsel_ray.train.dpo import DpoCollator, Rejections
from artsel_ray.train.job import training_of
from artsel_ray.train.loop import fit
from artsel_ray.train.orders import Order
from artsel_ray.train.reading import read_train
from tests.support.training import CAPTIONS, TinyLlama, example_row, fit_in, prompts_of, train_config, write_examples


def test_batch_holds_chosen_and_then_rejected_answers(examples: str, tiny_llama: TinyLlama) -> None:
    prompts = prompts_of(load(tiny_llama(True)))
    read_examples = read_train(f"{examples}/train", prompts, 2048, 0, False)
    order = Order(read_examples.length_n, 4, 0)
    rejections = Rejections(read_examples, "uniform")
    pair = DpoCollator(read_examples, rejections, order, 0)([{"index": 3}])
    answers = read_examples.answers(3)
    for line, candidate in enumerate((read_examples.label_n[3], rejections.draw(3, 0)[0])):
        kept = pair["input_ids"][line][pair["completion_mask"][line].bool()].tolist()
        assert kept == [*answers[candidate], prompts.option_end, prompts.tokenizer.eos_token_id]


def test_examples_with_one_candidate_are_refused(examples: str, tiny_llama: TinyLlama, tmp_path: Path) -> None:
    write_examples(f"{examples}/train", [example_row(1, label=0, captions=["Alone."])])
    config = train_config(examples, tiny_llama(True), tmp_path / "T", method="dpo")
    with pytest.raises(InputError, match="/train: no title has two candidates, so there is none to reject"):
        fit_in(tmp_path / "scratch", config)


def test_every_other_candidate_is_rejected_equally_often(smollm2: Model, tmp_path: Path) -> None:
    examples = read_train(
        write_examples(tmp_path, [example_row(1), example_row(1, captions=CAPTIONS[:1], label=0)]),
        prompts_of(smollm2),
        2048,
        0,
        False,
    )
    rejections = Rejections(examples, "uniform")
    assert examples.comparable() == [0]
    drawn = Counter(rejections.draw(0, epoch)[0] for epoch in range(2000))
    assert set(drawn) == {0, 2}
    assert drawn[0] / 2000 == pytest.approx(0.5, abs=4 * np.sqrt(0.25 / 2000))


def test_logged_rejections_follow_the_logged_propensities(smollm2: Model, tmp_path: Path) -> None:
    rows = [
        example_row(1, label=1, propensity=0.5),
        example_row(2, label=0, propensity=0.1),
        example_row(3, label=2, propensity=0.3),
    ]
    examples = read_train(write_examples(tmp_path, rows), prompts_of(smollm2), 2048, 0, False)
    drawn = Counter(Rejections(examples, "logged").draw(0, epoch)[0] for epoch in range(2000))
    assert drawn[0] / 2000 == pytest.approx(0.1 / 0.4, abs=4 * np.sqrt(0.19 / 2000))
    # Without any propensity but the label's own, any other candidate may be rejected.
    alone = read_train(write_examples(tmp_path / "alone", rows[:1]), prompts_of(smollm2), 2048, 0, False)
    assert {Rejections(alone, "logged").draw(0, epoch)[0] for epoch in range(50)} == {0, 2}


def test_rejected_rationale_speaks_for_the_rejected_candidate(smollm2: Model, tmp_path: Path) -> None:
    rows = [example_row(1, label=0, rationale="Likes towers."), example_row(2, label=1, rationale="Likes the sea.")]
    examples = read_train(write_examples(tmp_path, rows), prompts_of(smollm2, reason=True), 2048, 0, False)
    rejections = Rejections(examples, "uniform")
    drawn = dict(rejections.draw(0, epoch) for epoch in range(20))
    assert drawn == {1: "Likes the sea.", 2: "Likes towers."}
    pair, decode = examples.preference(0, 0, 1, drawn[1]), examples.tokenizer.tokenizer.decode
    assert str(decode(pair.chosen)).startswith(" Likes towers.\nPrediction: <option> A red tower.</option>")
    assert str(decode(pair.rejected)).startswith(" Likes the sea.\nPrediction: <option> Two friends")


def test_draws_depend_on_seed_epoch_and_example_alone(smollm2: Model, tmp_path: Path) -> None:
    uri = write_examples(tmp_path, [example_row(number) for number in range(1, 9)])

    def drawn(seed: int) -> list[int]:
        rejections = Rejections(read_train(uri, prompts_of(smollm2), 2048, seed, False), "uniform")
        return [rejections.draw(index, epoch)[0] for epoch in range(4) for index in range(8)]

    assert drawn(0) == drawn(0)
    assert drawn(0) != drawn(1)


def test_rejected_candidate_never_reads_like_the_chosen_one(smollm2: Model, tmp_path: Path) -> None:
    rows = [
        example_row(1, label=1, captions=["A tower.", "A tower.", "The sea.", "A tower."]),
        # Equal in what the model reads, which has no line breaks.
        example_row(2, label=0, captions=["A tower.", "A\ntower."]),
        example_row(3, label=0, captions=["The sea.", "The sea."]),
    ]
    examples = read_train(write_examples(tmp_path, rows), prompts_of(smollm2), 2048, 0, False)
    rejections = Rejections(examples, "uniform")
    assert examples.comparable() == [0]
    assert {rejections.draw(0, epoch)[0] for epoch in range(20)} == {2}
    # With the option's number as the answer too: what is preferred is an artwork, not a position.
    numbers = read_train(str(tmp_path), prompts_of(smollm2, output="number"), 2048, 0, False)
    assert numbers.comparable() == [0]


def test_examples_without_another_caption_are_left_out_and_counted(
    examples: str, tiny_llama: TinyLlama, tmp_path: Path
) -> None:
    same = [example_row(9, label=0, captions=["Same.", "Same."], example_id=f"s{number}") for number in range(3)]
    write_examples(f"{examples}/train", [*same, *(example_row(number) for number in range(5))])
    lines: list[str] = []
    config = train_config(examples, tiny_llama(True), tmp_path / "T", method="dpo", max_steps=1)
    fit(training_of(config), str(tmp_path / "scratch"), None, [], lines.append)
    assert "warning: 3 of 8 train examples are left out: every candidate of their title reads the same" in lines[0]
    write_examples(f"{examples}/train", same)
    with pytest.raises(InputError, match="all candidates of each title read the same, so nothing can be learned"):
        fit_in(tmp_path / "again", config)
