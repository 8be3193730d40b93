"""Validation agrees with the decoder that scores."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from accelerate import Accelerator
from transformers import AutoModelForCausalLM

from artsel_ray.decoding import trie
from artsel_ray.engines.torch import TorchEngine
from artsel_ray.models.load import load
from artsel_ray.train.reading import read_validation
from artsel_ray.train.validation import validate
from tests.support.training import TinyLlama, example_row, prompts_of, write_examples


def test_validation_is_the_decoders_accuracy_and_ips(tiny_llama: TinyLlama, tmp_path: Path) -> None:
    base = load(tiny_llama(True))
    prompts = prompts_of(base)
    rows = [example_row(number, label=number % 3) for number in range(1, 7)]
    rows += [example_row(number, label=0, captions=["A red tower.", "A blue one."]) for number in range(3)]
    examples = read_validation(write_examples(tmp_path, rows), prompts, 2048, 100)
    model: Any = AutoModelForCausalLM.from_pretrained(base.path)
    trainer: Any = SimpleNamespace(accelerator=Accelerator(cpu=True), model=model, is_fsdp_enabled=False)
    tries = [trie.build(examples.answers(index), prompts.option_end) for index in range(9)]
    choices = trie.choose(TorchEngine(model), [examples.prompt(index) for index in range(9)], tries)
    hits = [choice.candidate == row["label"] for choice, row in zip(choices, rows, strict=True)]
    sizes = [len(row["candidates"]) for row in rows]
    assert validate(trainer, examples) == {
        "validation_accuracy": pytest.approx(sum(hits) / 9),
        "validation_ips": pytest.approx(sum(hit * size for hit, size in zip(hits, sizes, strict=True)) / 9),
    }
