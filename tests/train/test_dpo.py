from pathlib import Path

import pytest

from artsel_ray.errors import InputError
from artsel_ray.models.load import load
from artsel_ray.train.dpo import DpoCollator
from artsel_ray.train.reading import read_train
from artsel_ray.train.rejections import Rejections
from artsel_ray.train.trainers import Order
from tests.support.training import TinyLlama, example_row, fit_in, prompts_of, train_config, write_examples


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
