"""Training without Ray, with the real TRL and PEFT on a tiny Llama."""

import math
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from artsel_ray.train.data import Rejections, read_train
from datasets import Dataset
from peft import PeftModel
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, TrainerCallback
from transformers.trainer_utils import get_last_checkpoint
from trl import SFTConfig, SFTTrainer

from artsel_ray.errors import InputError
from artsel_ray.models import adapter
from artsel_ray.models.load import load
from artsel_ray.prompts.spec import PromptSpec
from artsel_ray.prompts.tokenizer import PromptTokenizer
from artsel_ray.train.dpo import DpoCollator
from artsel_ray.train.loop import Fitted, fit, prompt_spec
from artsel_ray.train.settings import TrainConfig
from artsel_ray.train.sft import SftCollator
from artsel_ray.train.trainers import Order

Tiny = Callable[[bool], str]


def config_for(examples: str, model: str, output: Path, **changes: Any) -> TrainConfig:
    config = TrainConfig(
        method="sft", examples=examples, model=model, output=str(output), workers=0, learning_rate=1e-2, max_steps=4,
        batch_size=4, micro_batch=2, checkpoint_steps=2, validation_size=4, lora_rank=4,
    )  # fmt: skip
    return replace(config, **changes)


def run(config: TrainConfig, scratch: Path, callbacks: list[TrainerCallback] | None = None) -> Fitted:
    scratch.mkdir(exist_ok=True)
    return fit(config, str(scratch), get_last_checkpoint(str(scratch)), callbacks or [], lambda line: None)


def values(fitted: Fitted, name: str) -> list[float]:
    return [entry[name] for entry in fitted.history if name in entry]


def weights(model: Any, name: str) -> torch.Tensor:
    return dict(model.named_parameters())[name].detach()


def read(path: str | Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_adapter_and_merged_model_are_the_trained_one(
    tied: bool, examples: str, tiny_llama: Tiny, tmp_path: Path
) -> None:
    config = config_for(examples, tiny_llama(tied), tmp_path / "T")
    fitted = run(config, tmp_path / "scratch")
    losses = values(fitted, "loss")
    assert len(losses) == 4
    assert losses[-1] < losses[0] - 0.5
    assert len(values(fitted, "validation_ips")) == 2

    trained = load(config.output)
    assert trained.spec == PromptSpec()
    base, merged = read(load(config.model).path), read(trained.path)
    added = sorted(PreTrainedTokenizerFast.from_pretrained(trained.path).get_added_vocab().values())[-2:]
    ids = torch.arange(300).view(3, 100) * 163 % added[0]
    ids[:, ::7], ids[:, 3::7] = added
    with torch.no_grad():
        expected = merged(ids).logits
        got = PeftModel.from_pretrained(read(load(config.model).path), str(tmp_path / "T/adapter"))(ids).logits
        assert (base(ids).logits - expected).abs().max() > 0.1
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)
    # Both option tokens' rows have moved, and no other.
    for side in ["model.embed_tokens.weight"] + ([] if tied else ["lm_head.weight"]):
        moved = (weights(base, side) != weights(merged, side)).any(dim=1).nonzero().flatten().tolist()
        assert moved == added


def test_the_batch_supervises_the_answers_ids_and_no_other(examples: str, tiny_llama: Tiny) -> None:
    model = load(tiny_llama(True))
    prompts = PromptTokenizer(PreTrainedTokenizerFast.from_pretrained(model.path), PromptSpec())
    read_examples = read_train(f"{examples}/train", prompts, 2048, 0, False)
    order = Order(read_examples.length_n, 4, 0)
    batch = SftCollator(read_examples, order, 0)([{"index": 3}, {"index": 6}])
    for line, index in enumerate((3, 6)):
        prompt, answer = read_examples.prompt(index).tolist(), read_examples.titles[0].options.answers[index // 4]
        target = [*answer, prompts.option_end, prompts.tokenizer.eos_token_id]
        length = len(prompt) + len(target)
        padding = batch["input_ids"].shape[1] - length
        assert batch["input_ids"][line].tolist() == prompt + target + [0] * padding
        assert batch["labels"][line].tolist() == [-100] * len(prompt) + target + [-100] * padding
        assert batch["attention_mask"][line].tolist() == [1] * length + [0] * padding
    rejections = Rejections(read_examples, "uniform")
    pair = DpoCollator(read_examples, rejections, order, 0)([{"index": 3}])
    answers = read_examples.titles[0].options.answers
    for line, place in enumerate((read_examples.label_n[3], rejections.draw(3, 0)[0])):
        kept = pair["input_ids"][line][pair["completion_mask"][line].bool()].tolist()
        assert kept == [*answers[place], prompts.option_end, prompts.tokenizer.eos_token_id]


def test_plain_trl_goes_the_same_way(examples: str, tiny_llama: Tiny, tmp_path: Path) -> None:
    config = config_for(examples, tiny_llama(True), tmp_path / "T", max_steps=3)
    ours = values(run(config, tmp_path / "scratch"), "loss")

    path = load(config.model).path
    tokenizer = PreTrainedTokenizerFast.from_pretrained(path)
    prompts = PromptTokenizer(tokenizer, PromptSpec())
    source = read_train(f"{examples}/train", prompts, 2048, 0, False)
    order, encoded = Order(source.length_n, 4, config.seed), []
    for epoch in range(2):
        order.set_epoch(epoch)
        encoded += [source.example(index) for index in order]
    rows = {
        "input_ids": [each.ids for each in encoded],
        "completion_mask": [list(map(int, each.supervised)) for each in encoded],
    }
    model = adapter.read_model(path, torch.float32)
    arguments = SFTConfig(
        output_dir=str(tmp_path / "plain"), per_device_train_batch_size=2, gradient_accumulation_steps=2, max_steps=3,
        learning_rate=1e-2, warmup_steps=0.03, lr_scheduler_type="cosine", logging_steps=1, save_strategy="no",
        report_to=[], use_cpu=True, seed=0, max_length=None, shuffle_dataset=False,
        train_sampling_strategy="sequential", gradient_checkpointing=False, bf16=False,
        completion_only_loss=True,
    )  # fmt: skip
    lora = adapter.lora_config(model, 4, 8, [prompts.option, prompts.option_end])
    plain: Any = SFTTrainer(
        model, args=arguments, train_dataset=Dataset.from_dict(rows), processing_class=tokenizer, peft_config=lora
    )
    adapter.let_fused_head_read_rows(plain.model.get_base_model())
    plain.train()
    expected = [entry["loss"] for entry in plain.state.log_history if "loss" in entry]
    np.testing.assert_allclose(ours, expected, atol=1e-4)


def test_dpo_begins_at_its_reference(examples: str, tiny_llama: Tiny, tmp_path: Path) -> None:
    first = config_for(examples, tiny_llama(True), tmp_path / "T", output_format="number", max_steps=2)
    run(first, tmp_path / "scratch")
    config = replace(
        first, method="dpo", model=first.output, output=str(tmp_path / "T2"), output_format=None, max_steps=4
    )
    fitted = run(config, tmp_path / "scratch2")
    losses = values(fitted, "loss")
    # Policy and reference, adapters off, are the same at first: -log sigmoid(0).
    assert losses[0] == pytest.approx(math.log(2), abs=1e-4)
    assert losses[-1] < math.log(2)
    assert load(config.output).spec == PromptSpec(output="number")


def test_all_weights_can_be_trained(examples: str, tiny_llama: Tiny, tmp_path: Path) -> None:
    config = config_for(examples, tiny_llama(False), tmp_path / "T", lora_rank=0, learning_rate=1e-3)
    losses = values(run(config, tmp_path / "scratch"), "loss")
    assert losses[-1] < losses[0]
    assert not (tmp_path / "T/adapter").exists()
    base, merged = read(tiny_llama(False)), read(tmp_path / "T/merged")
    name = "model.layers.0.mlp.up_proj.weight"
    assert not torch.equal(weights(base, name), weights(merged, name))


class Dies(TrainerCallback):
    """Ends the training as a lost machine would, after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.step:
            raise RuntimeError("lost")


def test_a_resumed_run_ends_as_an_uninterrupted_one(examples: str, tiny_llama: Tiny, tmp_path: Path) -> None:
    changes = {"max_steps": 5, "shuffle_candidates": True}  # of 2 steps an epoch
    whole = run(config_for(examples, tiny_llama(True), tmp_path / "T", **changes), tmp_path / "whole")
    config = config_for(examples, tiny_llama(True), tmp_path / "T2", **changes)
    with pytest.raises(RuntimeError, match="lost"):
        run(config, tmp_path / "scratch", [Dies(4)])
    resumed = run(config, tmp_path / "scratch")
    np.testing.assert_allclose(values(resumed, "loss"), values(whole, "loss"), atol=1e-3)


def test_a_loss_that_is_no_number_ends_it_and_keeps_the_last_checkpoint(
    examples: str, tiny_llama: Tiny, tmp_path: Path
) -> None:
    class Breaks(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
            if state.global_step == 2:
                next(p for p in model.parameters() if p.requires_grad).data.fill_(math.nan)

    config = config_for(examples, tiny_llama(True), tmp_path / "T")
    fitted = run(config, tmp_path / "scratch", [Breaks()])
    assert fitted.error.startswith("the loss is nan at step 3; lower --learning-rate")
    assert [folder.name for folder in (tmp_path / "scratch").glob("checkpoint-*")] == ["checkpoint-2"]
    assert not (tmp_path / "T").exists()


def test_a_gradient_that_is_no_number_ends_it_and_its_step_leaves_no_checkpoint(
    examples: str, tiny_llama: Tiny, tmp_path: Path
) -> None:
    class Breaks(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
            if state.global_step == 3:
                weights = next(p for p in model.parameters() if p.requires_grad)
                weights.register_hook(lambda gradient: gradient * math.inf)

    config = config_for(examples, tiny_llama(True), tmp_path / "T")
    fitted = run(config, tmp_path / "scratch", [Breaks()])
    assert math.isfinite(values(fitted, "loss")[-1])
    assert re.match("the gradient is (nan|inf) at step 4; lower --learning-rate", fitted.error)
    assert [folder.name for folder in (tmp_path / "scratch").glob("checkpoint-*")] == ["checkpoint-2"]
    assert not (tmp_path / "T").exists()


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_a_pickle_in_a_checkpoint_is_never_executed(name: str, examples: str, tiny_llama: Tiny, tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "ran"),)

    config = config_for(examples, tiny_llama(True), tmp_path / "T")
    run(replace(config, max_steps=2), tmp_path / "scratch")
    checkpoint = tmp_path / "scratch/checkpoint-2"
    torch.save(Payload(), checkpoint / name)
    torch.save(Payload(), checkpoint / "training_args.bin")
    with pytest.raises(InputError, match="holds more than tensors"):
        run(config, tmp_path / "scratch")
    assert not (tmp_path / "ran").exists()


def test_reasons_can_be_written_and_validated(
    examples: str, tiny_llama: Tiny, tmp_path: Path, row: Any, write: Any
) -> None:
    rows = [row(number, label=number % 3, reason=f"Likes {number}.") for number in range(1, 5)]
    write(Path(examples, "train"), rows)
    config = config_for(examples, tiny_llama(True), tmp_path / "T", reason=True, max_steps=2, checkpoint_steps=2)
    fitted = run(config, tmp_path / "scratch")
    assert 0 <= values(fitted, "validation_accuracy")[-1] <= 1
    assert load(config.output).spec == PromptSpec(reason=True)


def test_flags_change_the_earlier_trainings_prompt(examples: str, tiny_llama: Tiny, tmp_path: Path) -> None:
    model = replace(load(tiny_llama(True)), spec=PromptSpec(layout="user_first", reason=True))
    config = config_for(examples, "m", tmp_path, output_format="number")
    assert prompt_spec(config, model) == PromptSpec(layout="user_first", output="number", reason=True)
    assert prompt_spec(config_for(examples, "m", tmp_path, reason=True), replace(model, spec=None)).reason
    assert prompt_spec(config_for(examples, "m", tmp_path), replace(model, spec=None)) == PromptSpec()
