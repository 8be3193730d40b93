"""One worker's training without Ray, with the real TRL and PEFT on a tiny Llama."""

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from peft import PeftModel
from transformers import (
    AutoModelForCausalLM,
    PreTrainedTokenizerFast,
    Trainer,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
)
from trl import SFTConfig, SFTTrainer

from artsel_ray.config import Dtype
from artsel_ray.engines.torch import TorchEngine, load_torch_engine
from artsel_ray.errors import InputError
from artsel_ray.models import adapter
from artsel_ray.models.files import ADAPTER_WEIGHTS
from artsel_ray.models.load import load
from artsel_ray.models.weights import prompt_tokenizer, read_model
from artsel_ray.prompts.spec import PromptSpec
from artsel_ray.prompts.tokenizer import PromptTokenizer
from artsel_ray.train import loop
from artsel_ray.train.job import training_of
from artsel_ray.train.loop import check_state, export
from artsel_ray.train.orders import Order
from artsel_ray.train.reading import read_train
from artsel_ray.train.trainers import SCHEDULE
from artsel_ray.train.validation import read_validation, validate
from tests.support.training import (
    TinyLlama,
    changed,
    example_row,
    fit_in,
    logged,
    train_config,
    write_examples,
    write_half_base,
)


def weights(model: Any, name: str) -> torch.Tensor:
    return dict(model.named_parameters())[name].detach()


def read(path: str | Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)


def all_logprobs(engine: Any, prompts: list[np.ndarray], size: int) -> np.ndarray:
    """Log-probabilities over the whole vocabulary after each prompt: [N, V]."""
    return np.stack(engine.logprobs(prompts, [list(range(size))] * len(prompts)))


@pytest.mark.parametrize("rate", [1e-4, 1e-5, 1e-6])
def test_served_model_is_the_trained_one_on_a_bfloat16_base(
    rate: float, examples: str, tiny_llama: TinyLlama, tmp_path: Path
) -> None:
    base = write_half_base(tmp_path / "base", tiny_llama(True))
    config = train_config(examples, base, tmp_path / "T", learning_rate=rate, max_steps=12, checkpoint_steps=12)
    fit_in(tmp_path / "scratch", config)
    prepared, served = load(base), load(config.output)
    size = len(PreTrainedTokenizerFast.from_pretrained(prepared.base))
    prompts = [np.arange(start, start + 90, dtype=np.int32) * 7 % size for start in range(8)]
    formats: list[tuple[Dtype, torch.dtype]] = [("float32", torch.float32), ("bfloat16", torch.bfloat16)]
    for dtype, number_format in formats:
        plain: Any = read_model(prepared.base, number_format)
        untrained = all_logprobs(TorchEngine(plain), prompts, size)
        trained: Any = PeftModel.from_pretrained(plain, tmp_path / "T/adapter")
        expected = all_logprobs(TorchEngine(trained), prompts, size)
        got = all_logprobs(load_torch_engine(served, dtype), prompts, size)
        assert dtype == "bfloat16" or np.linalg.norm(expected - untrained) > 0
        np.testing.assert_array_equal(got, expected)


def test_last_validation_is_of_what_was_exported(
    examples: str, tiny_llama: TinyLlama, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    validated: list[Any] = []

    def noting(name: str) -> Any:
        validated.append(name)
        return load(name)

    monkeypatch.setattr(loop, "load", noting)
    config = train_config(examples, tiny_llama(True), tmp_path / "T")
    fitted = fit_in(tmp_path / "scratch", config)
    assert validated == [config.model, config.output]
    entry = fitted.history[-1]
    held_out = read_validation(
        f"{examples}/validation", prompt_tokenizer(load(config.output).base, PromptSpec()), 2048, 4
    )
    assert entry == {"step": 4, "epoch": 2.0, **validate(load_torch_engine(load(config.output), "auto"), held_out)}


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_adapter_and_merged_model_are_the_trained_model(
    tied: bool, examples: str, tiny_llama: TinyLlama, tmp_path: Path
) -> None:
    config = train_config(examples, tiny_llama(tied), tmp_path / "T")
    fitted = fit_in(tmp_path / "scratch", config)
    losses = logged(fitted, "loss")
    assert len(losses) == 4
    assert losses[-1] < losses[0] - 0.5
    assert len(logged(fitted, "validation_ips")) == 2

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


def test_plain_trl_has_the_same_losses(examples: str, tiny_llama: TinyLlama, tmp_path: Path) -> None:
    config = train_config(examples, tiny_llama(True), tmp_path / "T", group_size=1, max_steps=3)
    ours = logged(fit_in(tmp_path / "scratch", config), "loss")

    path = load(config.model).path
    tokenizer = PreTrainedTokenizerFast.from_pretrained(path)
    prompts = PromptTokenizer(tokenizer, PromptSpec())
    source = read_train(f"{examples}/train", prompts, 2048, 0, False)
    order, encoded = Order(source.length_n, 4, 0), []
    for epoch in range(2):
        order.epoch = epoch
        encoded += [source.example(index) for index in order]
    rows = {
        "input_ids": [each.ids for each in encoded],
        "completion_mask": [list(map(int, each.supervised)) for each in encoded],
    }
    model = read_model(path, torch.float32)
    arguments = SFTConfig(
        output_dir=str(tmp_path / "plain"), per_device_train_batch_size=2, gradient_accumulation_steps=2, max_steps=3,
        learning_rate=1e-2, logging_steps=1, save_strategy="no", **SCHEDULE,
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


def test_dpo_starts_at_its_reference(examples: str, tiny_llama: TinyLlama, tmp_path: Path) -> None:
    first = train_config(examples, tiny_llama(True), tmp_path / "T", output_format="number", max_steps=2)
    fit_in(tmp_path / "scratch", first)
    config = train_config(examples, first.output, tmp_path / "T2", method="dpo", max_steps=4)
    fitted = fit_in(tmp_path / "scratch2", config)
    losses = logged(fitted, "loss")
    # Policy and reference are the same at first: -log sigmoid(0).
    assert losses[0] == pytest.approx(math.log(2), abs=1e-4)
    assert losses[-1] < math.log(2)
    preferred = load(config.output)
    assert preferred.spec == PromptSpec(output="number")
    # One adapter on the first base, and no reference beside it.
    assert adapter.base_of(tmp_path / "T2/adapter") == tiny_llama(True)
    assert {file.name for file in (tmp_path / "T2/adapter").iterdir()} == {
        ADAPTER_WEIGHTS, "adapter_config.json", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    plain = PeftModel.from_pretrained(read(load(first.model).path), str(tmp_path / "T2/adapter"))
    ids = torch.arange(300).view(3, 100) * 163 % plain.config.vocab_size
    with torch.no_grad():
        torch.testing.assert_close(read(preferred.path)(ids).logits, plain(ids).logits, atol=5e-4, rtol=1e-4)
        assert (read(load(first.output).path)(ids).logits - plain(ids).logits).abs().max() > 0.01


def test_reference_of_dpo_is_what_the_earlier_training_made(
    examples: str, tiny_llama: TinyLlama, tmp_path: Path
) -> None:
    first = train_config(examples, tiny_llama(True), tmp_path / "T", output_format="number", max_steps=2)
    fit_in(tmp_path / "scratch", first)
    start = load(first.output)
    reference = loop._read_trained("T", start)
    assert not any(parameter.requires_grad for parameter in reference.parameters())
    prompts, allowed = [np.arange(3, 60, dtype=np.int32)], [list(range(100))]
    np.testing.assert_array_equal(
        TorchEngine(reference).logprobs(prompts, allowed),
        load_torch_engine(start, "float32").logprobs(prompts, allowed),
    )


def test_all_weights_can_be_trained(examples: str, tiny_llama: TinyLlama, tmp_path: Path) -> None:
    config = train_config(examples, tiny_llama(False), tmp_path / "T", lora_rank=0, learning_rate=1e-3)
    losses = logged(fit_in(tmp_path / "scratch", config), "loss")
    assert losses[-1] < losses[0]
    assert not (tmp_path / "T/adapter").exists()
    base, merged = read(tiny_llama(False)), read(tmp_path / "T/merged")
    name = "model.layers.0.mlp.up_proj.weight"
    assert not torch.equal(weights(base, name), weights(merged, name))


class Dies(TrainerCallback):
    """Ends the training after a step, as a lost machine would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.step:
            raise RuntimeError("lost")


def test_resumed_training_ends_as_an_uninterrupted_one(examples: str, tiny_llama: TinyLlama, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"max_steps": 5, "shuffle_candidates": True}  # an epoch has 2 steps
    uninterrupted = fit_in(tmp_path / "one", train_config(examples, tiny_llama(True), tmp_path / "T", **changes))
    config = train_config(examples, tiny_llama(True), tmp_path / "T2", **changes)
    with pytest.raises(RuntimeError, match="lost"):
        fit_in(tmp_path / "scratch", config, [Dies(4)])
    resumed = fit_in(tmp_path / "scratch", config)
    np.testing.assert_allclose(logged(resumed, "loss"), logged(uninterrupted, "loss"), atol=1e-3)


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_pickle_in_a_checkpoint_is_never_executed(
    name: str, examples: str, tiny_llama: TinyLlama, tmp_path: Path
) -> None:
    class Payload:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "ran"),)

    config = train_config(examples, tiny_llama(True), tmp_path / "T")
    fit_in(tmp_path / "scratch", changed(config, max_steps=2))
    checkpoint = tmp_path / "scratch/checkpoint-2"
    torch.save(Payload(), checkpoint / name)
    torch.save(Payload(), checkpoint / "training_args.bin")
    with pytest.raises(InputError, match="holds more than tensors"):
        fit_in(tmp_path / "scratch", config)
    assert not (tmp_path / "ran").exists()


BROKEN_STATES: dict[str, Any] = {
    "cut": '{"global_step": 2, "log_', "list": "[]", "deep": "[" * 200_000, "unknown field": '{"x": 1}',
    "text": json.dumps({"global_step": "2", "max_steps": 4}), "beyond": json.dumps({"global_step": 9, "max_steps": 4}),
    "history": json.dumps({"global_step": 2, "max_steps": 4, "log_history": [1]}),
    "callbacks": json.dumps({"global_step": 2, "max_steps": 4, "stateful_callbacks": [1]}),
}  # fmt: skip


@pytest.mark.parametrize("content", BROKEN_STATES.values(), ids=BROKEN_STATES)
def test_damaged_state_of_a_trainer_is_one_line(content: str, tmp_path: Path) -> None:
    state = tmp_path / "trainer_state.json"
    TrainerState(global_step=2, max_steps=4, log_history=[{"loss": 1.0, "step": 1}]).save_to_json(str(state))
    check_state(str(tmp_path), "O")
    state.write_text(content)
    with pytest.raises(InputError, match=r"^trainer_state\.json of the last checkpoint in O is damaged; delete"):
        check_state(str(tmp_path), "O")


def test_rationales_are_learned_and_validated(examples: str, tiny_llama: TinyLlama, tmp_path: Path) -> None:
    rows = [example_row(number, label=number % 3, rationale=f"Likes {number}.") for number in range(1, 5)]
    write_examples(Path(examples, "train"), rows)
    config = train_config(examples, tiny_llama(True), tmp_path / "T", reason=True, max_steps=2, checkpoint_steps=2)
    fitted = fit_in(tmp_path / "scratch", config)
    assert 0 <= logged(fitted, "validation_accuracy")[-1] <= 1
    assert load(config.output).spec == PromptSpec(reason=True)


def test_flags_change_the_prompt_of_an_earlier_training(examples: str, tiny_llama: TinyLlama, tmp_path: Path) -> None:
    first = train_config(examples, tiny_llama(True), tmp_path / "T", layout="user_first", max_steps=1)
    fit_in(tmp_path / "scratch", first)
    again = train_config(examples, first.output, tmp_path / "T2", output_format="number", max_steps=1)
    fit_in(tmp_path / "scratch2", again)
    assert load(again.output).spec == PromptSpec(layout="user_first", output="number")


def test_trained_weights_load_with_their_prompt(tiny_llama: TinyLlama, tmp_path: Path) -> None:
    base = load(tiny_llama(True))
    trainer = Trainer(read_model(base.path, "auto"), TrainingArguments(str(tmp_path / "scratch"), use_cpu=True))
    spec = PromptSpec(layout="user_first")
    export(trainer, training_of(train_config("", "tiny", tmp_path / "T", lora_rank=0)), base, spec)
    trained = load(str(tmp_path / "T"))
    assert trained.path == tmp_path / "T/merged"
    assert trained.spec == spec
    assert (trained.path / "model.safetensors").read_bytes() == (base.path / "model.safetensors").read_bytes()
    # The arguments are a pickle, and are left out.
    assert not list((tmp_path / "T").rglob("*.bin"))


def test_other_workers_write_nothing(tiny_llama: TinyLlama, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = load(tiny_llama(True))
    trainer = Trainer(read_model(base.path, "auto"), TrainingArguments(str(tmp_path / "scratch"), use_cpu=True))
    monkeypatch.setattr(trainer, "is_world_process_zero", lambda: False)
    export(trainer, training_of(train_config("", "tiny", tmp_path / "T", lora_rank=0)), base, PromptSpec())
    assert not (tmp_path / "T").exists()
