"""The method `choice` and softmax DPO: what is asked, the loss of a trainer, and what cannot be learned."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from artsel_ray.decoding.trie import build, rank
from artsel_ray.engines.torch import TorchEngine
from artsel_ray.errors import InputError
from artsel_ray.models import adapter
from artsel_ray.models.load import load
from artsel_ray.models.weights import read_model
from artsel_ray.train.choice import choice_trainer, softmax_dpo_trainer
from artsel_ray.train.job import training_of
from artsel_ray.train.reading import read_train
from artsel_ray.train.trainers import TrainingTask
from tests.support.training import CAPTIONS, TinyLlama, example_row, prompts_of, train_config, write_examples


@pytest.fixture
def twins(tmp_path: Path) -> str:
    """Examples of two titles, one with a caption twice; their captions begin alike, so that there are branches."""
    like = [*CAPTIONS, "A red house.", CAPTIONS[0]]
    other: dict[str, Any] = {"title_id": "v", "title_name": "Heat"}
    rows = [example_row(n, label=n % 3, captions=like) for n in range(1, 5)]
    return write_examples(tmp_path / "train", [*rows, *(example_row(n, label=0, **other) for n in range(5, 7))])


def task_of(uri: str, tiny_llama: TinyLlama, tmp_path: Path, **spec: Any) -> TrainingTask:
    base = load(tiny_llama(True))
    prompts = prompts_of(base, **spec)
    prompts.tokenizer.pad_token = prompts.tokenizer.eos_token
    config = train_config("unused", "model", tmp_path / "T", method="choice", batch_size=6, micro_batch=6, beta=0.3)
    model = read_model(base.base, torch.float32)
    lora = adapter.lora_config(model, 4, 8, [prompts.option, prompts.option_end])
    return TrainingTask(training_of(config), read_train(uri, prompts, 2048, 0, False), model, lora, str(tmp_path))


@pytest.mark.parametrize("packs", [True, False], ids=["packed", "padded"])
@pytest.mark.parametrize("output", ["text", "number"])
def test_loss_is_the_mean_of_what_rank_scores(
    output: str, packs: bool, twins: str, tiny_llama: TinyLlama, tmp_path: Path
) -> None:
    task = task_of(twins, tiny_llama, tmp_path, output=output)
    trainer: Any = choice_trainer(task)
    assert trainer.data_collator.packs
    trainer.data_collator.packs = packs
    (batch,) = list(trainer.get_train_dataloader())
    assert ("packed" in batch) == packs
    examples = task.examples
    tries = [build(examples.answers(index), examples.tokenizer.option_end) for index in range(6)]
    probabilities = rank(TorchEngine(trainer.model), [examples.prompt(index) for index in range(6)], tries)
    expected = -np.mean([np.log(row[label]) for row, label in zip(probabilities, examples.label_n, strict=True)])
    trainer.model.eval()
    assert trainer.compute_loss(trainer.model, batch).item() == pytest.approx(expected, abs=1e-4)


def test_only_branches_on_the_way_to_the_engaged_artwork_are_computed(
    twins: str, tiny_llama: TinyLlama, tmp_path: Path
) -> None:
    asked = []
    for make in (choice_trainer, softmax_dpo_trainer):
        collator: Any = make(task_of(twins, tiny_llama, tmp_path)).data_collator
        asked.append(len(collator([{"index": 0}])["questions"].paths))  # "Two friends laugh by the sea."
    assert asked[0] == 1
    assert asked[1] > 1


def test_softmax_dpo_starts_at_its_reference_and_prefers_the_engaged_artwork(
    twins: str, tiny_llama: TinyLlama, tmp_path: Path
) -> None:
    """Policy and reference are the same, so that all candidates are equally likely, as S-DPO's formula has it."""
    trainer: Any = softmax_dpo_trainer(task_of(twins, tiny_llama, tmp_path, output="number"))
    (batch,) = list(trainer.get_train_dataloader())
    trainer.model.eval()
    inputs = [dict(batch), dict(batch)]
    loss = trainer.compute_loss(trainer.model, inputs[0])
    assert loss.item() == pytest.approx((4 * np.log(5) + 2 * np.log(3)) / 6, abs=1e-4)
    loss.backward()
    parameters = [each for each in trainer.model.parameters() if each.grad is not None]
    with torch.no_grad():
        for parameter in parameters:
            parameter -= 0.1 * parameter.grad
    assert trainer.compute_loss(trainer.model, inputs[1]).item() < loss.item()


def test_rationales_and_titles_without_alternatives_are_refused(tiny_llama: TinyLlama, tmp_path: Path) -> None:
    reasons = write_examples(tmp_path / "reasons", [example_row(1, rationale="Likes the sea.")])
    with pytest.raises(InputError, match="model writes a rationale first, which sft and dpo teach"):
        choice_trainer(task_of(reasons, tiny_llama, tmp_path, reason=True))
    alone = write_examples(tmp_path / "alone", [example_row(1, label=0, captions=["Alone."])])
    with pytest.raises(InputError, match="no title has two candidates"):
        choice_trainer(task_of(alone, tiny_llama, tmp_path))
