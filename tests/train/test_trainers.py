"""What the methods share: which positions cost anything, the order of examples, and what TRL leaves to us."""

import pickle
import pkgutil
from pathlib import Path
from typing import Any

import pytest
import torch
import trl.trainer.utils
from peft import get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, PhiConfig, PhiForCausalLM, Trainer, TrainingArguments
from trl import DPOTrainer, SFTTrainer

from artsel_ray.errors import InputError
from artsel_ray.models import adapter
from artsel_ray.models.load import load
from artsel_ray.models.weights import read_model
from artsel_ray.train.job import training_of
from artsel_ray.train.loop import fit
from artsel_ray.train.reading import read_train
from artsel_ray.train.settings import METHODS, Method, OptimizationSettings
from artsel_ray.train.trainers import TrainingTask, arguments, check_fused_head, compute_targets_only, examples_per_pass
from tests.support.training import (
    TinyLlama,
    changed,
    example_row,
    fit_in,
    logged,
    prompts_of,
    train_config,
    write_examples,
)

CONFIG = train_config("unused", "unused", "folder/run", max_steps=None, batch_size=8, workers=2)
TRAINING = training_of(CONFIG)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_head_computes_only_targets_and_learns_the_same(
    tied: bool, tiny_llama: TinyLlama, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel, rows = trl.trainer.utils._ChunkedLogProbFunction, []

    class Counted:
        @staticmethod
        def apply(hidden: torch.Tensor, *arguments: object) -> object:
            rows.append(len(hidden))
            return kernel.apply(hidden, *arguments)

    monkeypatch.setattr(trl.trainer.utils, "_ChunkedLogProbFunction", Counted)
    monkeypatch.setattr(trl.trainer.utils, "_use_triton", lambda device: False)
    path = load(tiny_llama(tied)).path
    size = AutoConfig.from_pretrained(path).vocab_size
    tokens = [size - 2, size - 1]  # the option tokens
    ids = torch.arange(120).view(2, 60) * 163 % size
    ids[:, ::5], labels = tokens[0], ids.clone()
    labels[:, :-4] = -100
    losses, gradients = [], []
    for patched in (False, True):
        if patched:
            compute_targets_only()
        model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
        trl.trainer.utils.add_fused_lm_head(model)
        torch.manual_seed(0)
        trained = get_peft_model(model, adapter.lora_config(model, 4, 8, tokens))
        adapter.let_fused_head_read_rows(model)
        output = trained(input_ids=ids, labels=labels, fused_lm_head=True)
        output.loss.backward()
        losses.append(float(output.loss.detach()))
        gradients.append({name: p.grad for name, p in trained.named_parameters() if p.requires_grad})
    assert rows == [2 * 59, 2 * 4]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert any("trainable_tokens_delta" in name for name in gradients[0])
    for name, expected in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], expected, atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_model_whose_loss_would_not_be_its_own_is_refused(tiny_llama: TinyLlama, dtype: torch.dtype) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(load(tiny_llama(False)).path, dtype=dtype)
    trl.trainer.utils.add_fused_lm_head(model)
    check_fused_head(model, "m")
    tokens = [model.config.vocab_size - 2]
    check_fused_head(get_peft_model(model, adapter.lora_config(model, 4, 8, tokens)), "m")
    model = AutoModelForCausalLM.from_pretrained(load(tiny_llama(False)).path, dtype=dtype)
    own = model.forward

    def scaled(**inputs: Any) -> Any:
        output = own(**inputs)
        output.logits = output.logits / 8
        return output

    model.forward = scaled
    trl.trainer.utils.add_fused_lm_head(model)
    with pytest.raises(InputError, match="m changes its logits in a way that training's loss leaves out"):
        check_fused_head(model, "m")


def test_bias_of_the_output_layer_is_part_of_the_loss() -> None:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    model: Any = PhiForCausalLM(PhiConfig(vocab_size=64, **sizes))
    with torch.no_grad():
        model.lm_head.bias.normal_(0, 3.0)
    trl.trainer.utils.add_fused_lm_head(model)
    trained = get_peft_model(model, adapter.lora_config(model, 4, 8, [62, 63]))
    check_fused_head(trained, "phi")
    assert any("embed_tokens" in name for name, value in trained.named_parameters() if value.requires_grad)


@pytest.mark.parametrize(("group_size", "passes"), [(1, 2), (8, 1)])
def test_gradients_are_accumulated_to_the_batch_of_all_workers(
    group_size: int, passes: int, examples: str, tiny_llama: TinyLlama
) -> None:
    read = read_train(f"{examples}/train", prompts_of(load(tiny_llama(True))), 2048, 0, False)
    training, model = (
        training_of(changed(CONFIG, group_size=group_size)),
        read_model(load(tiny_llama(True)).base, "auto"),
    )
    shared = arguments(TrainingTask(training, read, model, None, "unused"))
    assert (shared["gradient_accumulation_steps"], shared["max_steps"], shared["run_name"]) == (passes, -1, "run")


def test_a_pass_has_a_complete_group_where_the_batch_allows() -> None:
    def passes(group_size: int = 8, **flags: Any) -> int:
        return examples_per_pass(OptimizationSettings(**flags), group_size)

    assert passes(batch_size=32, workers=1) == 8
    assert passes(batch_size=32, workers=1, group_size=1) == 4
    assert passes(batch_size=32, workers=1, micro_batch=16) == 16
    assert passes(batch_size=32, workers=8) == 4
    assert passes(batch_size=24, workers=2, group_size=5) == 4


def test_settings_travel_to_workers() -> None:
    assert pickle.loads(pickle.dumps(TRAINING)) == TRAINING  # noqa: S301


@pytest.mark.parametrize("method", ["sft", "dpo", "choice"])
def test_trainers_take_our_order_leave_the_indices_to_the_collator_and_use_one_gpu(
    method: Method, examples: str, tiny_llama: TinyLlama, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A machine with four GPUs, on which the Trainer would become nn.DataParallel.
    monkeypatch.setattr(TrainingArguments, "n_gpu", property(lambda args: args._n_gpu or 4))
    base = load(tiny_llama(True))
    prompts = prompts_of(base)
    prompts.tokenizer.pad_token = prompts.tokenizer.eos_token
    read = read_train(f"{examples}/train", prompts, 2048, 0, False)
    training = training_of(changed(CONFIG, workers=1, group_size=1))
    model = read_model(base.path, torch.float32)
    lora = adapter.lora_config(model, 2, 4, [prompts.option, prompts.option_end])
    trainer: Any = pkgutil.resolve_name(METHODS[method])(TrainingTask(training, read, model, lora, str(tmp_path)))
    assert trainer.args.n_gpu == 1
    assert trainer.train_dataset.column_names == ["index"]
    (batch,) = list(trainer.get_train_dataloader())[:1]
    assert len(batch["label" if method == "choice" else "input_ids"]) == 2 * (2 if method == "dpo" else 1)
    assert trainer.get_train_dataloader().sampler is trainer.order or trainer._get_train_sampler() is trainer.order


def weighing_trainer(method: Method, uri: str, tiny_llama: TinyLlama, output: Path, **flags: Any) -> Any:
    base = load(tiny_llama(True))
    prompts = prompts_of(base)
    prompts.tokenizer.pad_token = prompts.tokenizer.eos_token
    read = read_train(uri, prompts, 2048, 0, False)
    training = training_of(changed(CONFIG, workers=1, weight_by_propensity=True, **flags))
    lora = adapter.lora_config(model := read_model(base.path, torch.float32), 2, 4, [prompts.option])
    compute_targets_only()
    trainer = pkgutil.resolve_name(METHODS[method])(TrainingTask(training, read, model, lora, str(output)))
    adapter.let_fused_head_read_rows(trainer.model.get_base_model())
    return trainer


@pytest.mark.parametrize("method", ["sft", "dpo", "choice"])
def test_gradient_is_that_of_the_weighted_loss(method: Method, tiny_llama: TinyLlama, tmp_path: Path) -> None:
    """Both losses are means over rows, so that rows weighted 2 and 0.5 have twice and half of their own gradients."""
    rows = [example_row(1, label=0, propensity=0.1), example_row(2, label=1, propensity=0.6)]
    trainer = weighing_trainer(method, write_examples(tmp_path / "train", rows), tiny_llama, tmp_path, batch_size=2)
    (batch,) = list(trainer.get_train_dataloader())
    # 1 / (m π) is 3.333 and 0.5556, with a mean of 1.9444, in the order of the epoch.
    copies = 2 if method == "dpo" else 1
    assert sorted(batch["weight"].tolist()) == pytest.approx(
        sorted([0.5556 / 1.9444, 3.3333 / 1.9444] * copies), abs=1e-4
    )
    names = [name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad]
    torch.manual_seed(1)
    for name, parameter in trainer.model.named_parameters():
        if "lora_B" in name:  # starts at zero, where only its own gradient is not
            torch.nn.init.normal_(parameter, std=0.02)
    trainer.model.eval()  # without dropout

    def gradients(*weights: float) -> dict[str, torch.Tensor]:
        inputs = {name: value for name, value in batch.items() if name != "weight"}
        if weights:
            inputs["weight"] = torch.tensor(weights * copies)
        trainer.model.zero_grad()
        trainer.compute_loss(trainer.model, inputs, num_items_in_batch=torch.tensor(7)).backward()
        return {name: trainer.model.get_parameter(name).grad.clone() for name in names}

    plain, equal, first, second, both = (
        gradients(*weights) for weights in ((), (1.0, 1.0), (1.0, 0.0), (0.0, 1.0), (2.0, 0.5))
    )
    assert any(gradient.abs().max() > 1e-4 for gradient in first.values())
    for name in names:
        torch.testing.assert_close(equal[name], plain[name])
        torch.testing.assert_close(first[name] + second[name], plain[name], atol=1e-6, rtol=1e-3)
        torch.testing.assert_close(2 * first[name] + 0.5 * second[name], both[name], atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_weights_change_what_is_learned_and_validation_has_logged_snips(
    method: Method, examples: str, tiny_llama: TinyLlama, tmp_path: Path
) -> None:
    rows = [example_row(1 + n // 4, label=n // 4, propensity=0.1 + 0.2 * (n % 4), example_id=f"e{n}") for n in range(8)]
    for split in ("train", "validation"):
        write_examples(f"{examples}/{split}", rows)
    plain = train_config(examples, tiny_llama(True), tmp_path / "T", method=method)
    weighed = changed(plain, weight_by_propensity=True, output=str(tmp_path / "W"))
    found = [fit_in(tmp_path / folder, config) for folder, config in (("plain", plain), ("weighed", weighed))]
    losses = [logged(fitted, "loss") for fitted in found]
    assert losses[0][0] == pytest.approx(losses[1][0])  # the loss that is logged has no weights
    assert losses[0][1:] != pytest.approx(losses[1][1:], abs=1e-6)
    assert len(logged(found[1], "validation_snips_logged")) == 2


@pytest.mark.parametrize("method", METHODS)
def test_no_step_has_a_learning_rate_of_zero(
    method: Method, examples: str, tiny_llama: TinyLlama, tmp_path: Path
) -> None:
    config = train_config(examples, tiny_llama(True), tmp_path / "T", method=method)
    rates = logged(fit_in(tmp_path / "scratch", config), "learning_rate")  # the rate that each step had
    assert rates == pytest.approx([1e-2 * (0.01 + 0.99 * share) for share in (1, 0.75, 0.25, 0)])


def test_warmup_starts_above_zero(tiny_llama: TinyLlama, tmp_path: Path) -> None:
    rows = [example_row(1, propensity=0.5), example_row(2, propensity=0.5)]
    trainer = weighing_trainer("sft", write_examples(tmp_path / "train", rows), tiny_llama, tmp_path, batch_size=2)
    trainer.create_optimizer_and_scheduler(100)
    rates = []
    for _ in range(100):
        rates += trainer.lr_scheduler.get_last_lr()[:1]
        trainer.optimizer.step()
        trainer.lr_scheduler.step()
    peak = trainer.args.learning_rate
    assert rates[:3] == pytest.approx([peak / 3, peak * 2 / 3, peak])
    assert min(rates) == rates[-1] == pytest.approx(peak / 100)
    assert rates[2:] == sorted(rates[2:], reverse=True)


def test_weighting_names_the_file_with_examples_without_a_propensity(tiny_llama: TinyLlama, tmp_path: Path) -> None:
    rows = [example_row(1, propensity=0.5), example_row(2), example_row(3)]
    uri = write_examples(tmp_path / "train", rows)
    with pytest.raises(
        InputError, match=r"train/a\.parquet: 2 examples have no propensity in \(0, 1\], and --weight-by"
    ):
        weighing_trainer("sft", uri, tiny_llama, tmp_path)


@pytest.mark.parametrize(
    "flags",
    [
        {"method": "sft"}, {"method": "sft", "reason": True}, {"method": "dpo"}, {"method": "dpo", "negatives": "all"},
        {"method": "choice"},
    ],
)  # fmt: skip
def test_groups_change_no_loss_and_no_validation(
    flags: dict[str, Any], examples: str, tiny_llama: TinyLlama, tmp_path: Path
) -> None:
    """Each step has all examples, so that their order does not matter either."""
    rows = [example_row(1 + n // 4, label=n // 4, example_id=f"e{n}", rationale=f"Likes {n}.") for n in range(8)]
    write_examples(f"{examples}/train", rows)
    config = train_config(
        examples, tiny_llama(True), tmp_path / "T", batch_size=8, max_steps=3, checkpoint_steps=3, **flags
    )
    alone, grouped = (fit_in(tmp_path / f"{size}", changed(config, group_size=size)) for size in (1, 8))
    assert logged(grouped, "loss") == pytest.approx(logged(alone, "loss"), rel=1e-4)
    assert logged(grouped, "loss")[2] < logged(grouped, "loss")[0]
    assert logged(grouped, "validation_accuracy") == logged(alone, "validation_accuracy")


@pytest.mark.parametrize(
    ("flags", "why"),
    [({"layout": "user_first"}, "with the layout user_first, a title's prompts do not begin alike"),
     ({"batch_size": 1, "micro_batch": 1}, "a step of one example has no group")],
)  # fmt: skip
def test_groups_without_effect_are_one_line(
    flags: dict[str, Any], why: str, examples: str, tiny_llama: TinyLlama, tmp_path: Path
) -> None:
    lines: list[str] = []
    config = train_config(examples, tiny_llama(True), tmp_path / "T", **{"max_steps": 1, **flags})
    fit(training_of(config), str(tmp_path / "scratch"), None, [], lines.append)
    assert lines[0] == f"--group-size has no effect: {why}; each prompt is computed alone"
    assert "group-size" not in " ".join(lines[1:])


def test_a_model_that_cannot_pack_trains_each_prompt_alone(
    examples: str, tiny_llama: TinyLlama, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = load(tiny_llama(True))
    read = read_train(f"{examples}/train", prompts_of(base), 2048, 0, False)
    model: Any = read_model(base.base, torch.float32)
    model.config.sliding_window = 8
    lora = adapter.lora_config(model, 2, 4, [])
    trainer: Any = pkgutil.resolve_name(METHODS["choice"])(TrainingTask(TRAINING, read, model, lora, str(tmp_path)))
    batch = next(iter(trainer.get_train_dataloader()))
    assert "packed" not in batch
    assert batch["input_ids"].shape[1] > 50
    assert read.notices == ["--group-size has no effect: unused cannot compute prompts that share their beginning; "
                            "each prompt is computed alone"]  # fmt: skip


def test_trl_and_transformers_have_the_private_methods_that_we_replace() -> None:
    for trainer in (SFTTrainer, DPOTrainer):
        assert "_prepare_dataset" in vars(trainer)
    assert "_get_train_sampler" in vars(Trainer)
