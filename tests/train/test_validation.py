"""Choices for held-out examples: by the decoder that scores, with its metrics, and duplicates as one action."""

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from artsel_ray.decoding import trie
from artsel_ray.decoding.base import Questions
from artsel_ray.decoding.decoders import DECODERS
from artsel_ray.engines.torch import TorchEngine
from artsel_ray.models.load import load
from artsel_ray.train.validation import read_validation, validate
from tests.support.training import TinyLlama, example_row, prompts_of, write_examples


def test_validation_is_the_decoders_accuracy_and_ips(tiny_llama: TinyLlama, tmp_path: Path) -> None:
    base = load(tiny_llama(True))
    prompts = prompts_of(base)
    rows = [example_row(number, label=number % 3) for number in range(1, 7)]
    rows += [example_row(number, label=0, captions=["A red tower.", "A blue one."]) for number in range(3)]
    examples = read_validation(write_examples(tmp_path, rows), prompts, 2048, 100)
    model: Any = AutoModelForCausalLM.from_pretrained(base.path)
    tries = [trie.build(examples.answers(index), prompts.option_end) for index in range(9)]
    choices = trie.choose(TorchEngine(model), [examples.prompt(index) for index in range(9)], tries)
    hits = [choice.candidate == row["label"] for choice, row in zip(choices, rows, strict=True)]
    sizes = [len(row["candidates"]) for row in rows]
    assert validate(TorchEngine(model), examples) == {
        "validation_accuracy": pytest.approx(sum(hits) / 9),
        "validation_ips": pytest.approx(sum(hit * size for hit, size in zip(hits, sizes, strict=True)) / 9),
    }
    # The same choices, where all propensities but one are logged.
    examples.propensity_n[:] = [0.7 if label == 0 else 0.1 for label in examples.label_n]
    examples.propensity_n[3] = float("nan")
    weights = [0.0 if index == 3 else 1 / propensity for index, propensity in enumerate(examples.propensity_n)]
    logged = validate(TorchEngine(model), examples)
    hit_weight = sum(weight for weight, hit in zip(weights, hits, strict=True) if hit)
    assert logged["validation_snips_logged"] == pytest.approx(hit_weight / sum(weights))
    assert logged["validation_ips_logged"] == pytest.approx(hit_weight / 8)
    assert logged["validation_snips_logged_random"] == pytest.approx(
        sum(weight / size for weight, size in zip(weights, sizes, strict=True)) / sum(weights)
    )


def test_choice_that_reads_as_the_engaged_artwork_is_right_in_validation(tiny_llama: TinyLlama, tmp_path: Path) -> None:
    """Of "A", "A" and "B", `choose` takes the first "A" for its text; with numbers it may take any."""
    base = load(tiny_llama(True))
    twins = ["Two friends.", "Two friends.", "A red tower."]
    rows = [example_row(number, label=1, captions=twins, propensity=0.2) for number in range(3)]
    rows += [example_row(3, label=2, captions=twins, propensity=0.5)]
    rows += [example_row(4, label=0, captions=["Two friends."] * 2, propensity=0.4)]
    rows += [example_row(5, label=1, captions=["Two friends."] * 2, propensity=0.4)]
    uri = write_examples(tmp_path, rows)
    model: Any = AutoModelForCausalLM.from_pretrained(base.path)
    for output in ("text", "number"):
        examples = read_validation(uri, prompts_of(base, output=output), 2048, 100)
        prompts, answers = (
            [examples.prompt(index) for index in range(6)],
            [examples.answers(index) for index in range(6)],
        )
        asked = Questions(examples.tokenizer, prompts, answers)
        chosen = DECODERS["choose"].decode(TorchEngine(model), asked).candidates
        # Where all read the same, only the engaged one is right: it cannot have been chosen by its text.
        hits = [choice in right for choice, right in zip(chosen, [{0, 1}] * 3 + [{2}, {0}, {1}], strict=True)]
        assert output == "number" or (hits[0] and chosen[0] == 0)  # which is not the label itself
        uniform, logged = [2 / 3] * 3 + [1 / 3, 1 / 2, 1 / 2], [0.4] * 3 + [0.5, 0.4, 0.4]
        found = validate(TorchEngine(model), examples)
        assert found["validation_accuracy"] == pytest.approx(sum(hits) / 6)
        for name, shares in (("ips", uniform), ("ips_logged", logged)):
            expected = sum(hit / share for hit, share in zip(hits, shares, strict=True)) / 6
            assert found[f"validation_{name}"] == pytest.approx(expected), (output, name)
