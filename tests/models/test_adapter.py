"""The option tokens' rows next to LoRA: how they are stored, switched off and merged."""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from trl.trainer.utils import add_fused_lm_head

from artsel_ray import storage
from artsel_ray.errors import InputError
from artsel_ray.models import adapter
from artsel_ray.models.files import ADAPTER_WEIGHTS
from artsel_ray.models.load import load
from artsel_ray.models.spec import write_spec
from artsel_ray.models.weights import read_model
from artsel_ray.prompts.spec import PromptSpec
from tests.support.training import write_half_base, write_random_adapter

Tiny = Callable[[bool], str]
both = pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])


def prepared(path: Path, dtype: torch.dtype) -> tuple[Any, list[int]]:
    """A model with TRL's head and an adapter whose every weight differs from its start."""
    model = read_model(path, dtype)
    tokens = [model.config.vocab_size - 2, model.config.vocab_size - 1]
    add_fused_lm_head(model)
    trained = get_peft_model(model, adapter.lora_config(model, 4, 8, tokens))
    adapter.let_fused_head_read_rows(model)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in trained.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return trained, tokens


def inputs(tokens: list[int]) -> dict[str, torch.Tensor]:
    ids = torch.arange(80).view(2, 40) * 37 % tokens[0]
    ids[:, ::6], ids[:, 3::6] = tokens[0], tokens[1]
    return {"input_ids": ids, "labels": ids}


@both
def test_fused_head_reads_trained_rows_and_the_base_rows_while_adapters_are_off(tied: bool, tiny_llama: Tiny) -> None:
    path = load(tiny_llama(tied)).path
    trained, tokens = prepared(path, torch.float32)
    batch = inputs(tokens)
    base = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    with torch.no_grad():
        got = trained(**batch, fused_lm_head=True).log_probs
        logits = trained(input_ids=batch["input_ids"]).logits[:, :-1]
        expected = logits.log_softmax(-1).gather(-1, batch["labels"][:, 1:, None])[..., 0]
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)
        with trained.disable_adapter():
            reference = trained(**batch, fused_lm_head=True).log_probs
        logits = base(batch["input_ids"]).logits[:, :-1]
        expected = logits.log_softmax(-1).gather(-1, batch["labels"][:, 1:, None])[..., 0]
    torch.testing.assert_close(reference, expected, atol=1e-4, rtol=1e-4)
    assert (got - reference).abs().max() > 0.1


@both
def test_rows_of_a_bfloat16_model_train_in_float32_and_merge_to_the_nearest(
    tied: bool, tiny_llama: Tiny, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    read_model(load(tiny_llama(tied)).path, torch.bfloat16).save_pretrained(base)
    trained, tokens = prepared(base, torch.bfloat16)
    # A step of 1e-5 would be lost in bfloat16's 8 bits.
    assert {parameter.dtype for parameter in trained.parameters() if parameter.requires_grad} == {torch.float32}
    trained.save_pretrained(tmp_path / "adapter")
    adapter.merge(base, tmp_path / "adapter", tmp_path / "merged")
    merged: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert merged.dtype == torch.bfloat16
    for got, rows in (
        (merged.get_input_embeddings(), trained.get_input_embeddings()),
        (merged.get_output_embeddings(), trained.get_output_embeddings()),
    ):
        torch.testing.assert_close(got.weight[tokens], rows.token_adapter.trainable_tokens_delta["default"].bfloat16())
    assert merged.config.tie_word_embeddings == tied


@both
def test_plain_peft_and_the_merged_model_agree(tied: bool, tiny_llama: Tiny, tmp_path: Path) -> None:
    path = load(tiny_llama(tied)).path
    trained, tokens = prepared(path, torch.float32)
    trained.save_pretrained(tmp_path / "adapter")
    adapter.merge(path, tmp_path / "adapter", tmp_path / "merged")
    ids = inputs(tokens)["input_ids"]
    with torch.no_grad():
        plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(path), str(tmp_path / "adapter"))
        merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
        torch.testing.assert_close(merged(ids).logits, plain(ids).logits, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(merged(ids).logits, trained(ids).logits, atol=1e-4, rtol=1e-4)


def test_adapter_names_its_base_as_the_user_did(tmp_path: Path) -> None:
    settings = tmp_path / "adapter_config.json"
    settings.write_text(json.dumps({"r": 4, "base_model_name_or_path": "/a/cache/of/this/machine"}))
    adapter.name_base(tmp_path, "smollm2")
    assert json.loads(settings.read_text()) == {"r": 4, "base_model_name_or_path": "smollm2"}


def test_output_without_its_merged_model_is_merged_on_first_use(tiny_llama: Tiny, tmp_path: Path) -> None:
    base = tiny_llama(True)
    trained, tokens = prepared(load(base).path, torch.float32)
    trained.save_pretrained(tmp_path / "adapter")
    adapter.name_base(tmp_path / "adapter", base)
    write_spec(str(tmp_path), PromptSpec(output="number"))
    for uri in (str(tmp_path), f"file://{tmp_path}"):
        model = load(uri)
        assert model.spec == PromptSpec(output="number")
        merged: Any = AutoModelForCausalLM.from_pretrained(model.path)
        ids = inputs(tokens)["input_ids"]
        with torch.no_grad():
            torch.testing.assert_close(merged(ids).logits, trained(ids).logits, atol=1e-4, rtol=1e-4)
        assert load(uri) == model


@both
def test_base_gets_the_trained_rows_and_keeps_its_other_files(tied: bool, tiny_llama: Tiny, tmp_path: Path) -> None:
    source = write_half_base(tmp_path / "base", tiny_llama(tied), max_shard_size="100KB")
    name = write_random_adapter(tmp_path / "T", source)
    model, plain = load(name), load(source).base
    assert model.lora is not None
    assert len(list(model.base.glob("*.safetensors"))) == len(list(plain.glob("*.safetensors"))) > 1
    changed = {file.name for file in plain.iterdir() if not (model.base / file.name).samefile(file)}
    assert 1 <= len(changed) <= 2 - tied
    base, rows = read_model(model.base, "auto"), load_file(tmp_path / "T/adapter" / ADAPTER_WEIGHTS)
    assert base.dtype == torch.bfloat16
    for key, trained in rows.items():
        if "trainable_tokens" in key:
            side = base.get_parameter(key.removeprefix("base_model.model.").split(".token_adapter")[0] + ".weight")
            torch.testing.assert_close(side[-2:], trained.bfloat16(), atol=0, rtol=0)
    assert not any("trainable_tokens" in key for key in load_file(model.lora / ADAPTER_WEIGHTS))


def test_adapter_of_another_model_is_named(tiny_llama: Tiny, tmp_path: Path) -> None:
    name = write_random_adapter(tmp_path / "T", tiny_llama(True))
    file = tmp_path / "T/adapter" / ADAPTER_WEIGHTS
    renamed = {key.replace("embed_tokens", "wte"): value for key, value in load_file(file).items()}
    save_file(renamed, file)
    settings = tmp_path / "T/adapter/adapter_config.json"
    settings.write_text(settings.read_text().replace("embed_tokens", "wte"))
    with pytest.raises(InputError, match="its base has no wte; it is another model's adapter"):
        load(name)


def test_merging_into_bfloat16_measures_what_it_loses(tiny_llama: Tiny, tmp_path: Path) -> None:
    model = load(write_random_adapter(tmp_path / "T", tiny_llama(True)))
    assert model.lora is not None
    weights = load_file(model.lora / ADAPTER_WEIGHTS)
    small = {key: value * 1e-3 if "lora_B" in key else value for key, value in weights.items()}
    (tmp_path / "small").mkdir()
    save_file(small, tmp_path / "small" / ADAPTER_WEIGHTS)
    (tmp_path / "small/adapter_config.json").write_text((model.lora / "adapter_config.json").read_text())
    assert adapter.merge(model.base, model.lora, tmp_path / "a", torch.float32) < 1e-5
    assert adapter.merge(model.base, tmp_path / "small", tmp_path / "b", torch.float32) < 1e-3
    lost = adapter.merge(model.base, tmp_path / "small", tmp_path / "c", torch.bfloat16)
    before, after = (read_model(path, torch.float32).state_dict() for path in (model.base, tmp_path / "c"))
    key = "model.layers.0.mlp.up_proj"
    a, b = (small[f"base_model.model.{key}.lora_{side}.weight"] for side in "AB")
    delta = 2 * b @ a
    layer = (after[f"{key}.weight"] - before[f"{key}.weight"].bfloat16().float() - delta).norm() / delta.norm()
    assert lost > 0.3
    assert lost == pytest.approx(float(layer), abs=0.2)


def test_output_of_the_first_version_loads_without_its_base(
    tiny_llama: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = write_random_adapter(tmp_path / "T", tiny_llama(True))
    shutil.copytree(load(name).path, tmp_path / "T/merged")
    assert load(name).lora is not None  # the adapter is exact
    adapter.name_base(tmp_path / "T/adapter", str(tmp_path / "gone"))
    assert load(name).path == tmp_path / "T/merged"
    assert f"using {name}/merged, which may have lost a part of the training" in capsys.readouterr().out


def test_adapter_that_the_first_version_trained_on_a_merged_model_loads(tiny_llama: Tiny, tmp_path: Path) -> None:
    first = write_random_adapter(tmp_path / "T", tiny_llama(True))
    merged = load(first).path
    second = write_random_adapter(tmp_path / "T2", str(merged))
    adapter.name_base(tmp_path / "T2/adapter", first)
    expected = read_model(load(str(merged)).path, torch.float32)
    plain = PeftModel.from_pretrained(expected, str(tmp_path / "T2/adapter"))
    ids = torch.arange(80).view(2, 40) * 37 % 300
    with torch.no_grad():
        got = read_model(load(second).path, torch.float32)(ids).logits
        torch.testing.assert_close(got, plain(ids).logits, atol=1e-3, rtol=1e-3)


def test_pickle_in_adapter_folder_is_never_executed(tiny_llama: Tiny, tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "ran"),)

    base = tiny_llama(True)
    trained, _ = prepared(load(base).path, torch.float32)
    trained.save_pretrained(tmp_path / "adapter")
    adapter.name_base(tmp_path / "adapter", base)
    write_spec(str(tmp_path), PromptSpec())
    for name in ("adapter_model.bin", "training_args.bin"):
        (tmp_path / "adapter" / name).write_bytes(pickle.dumps(Payload()))
    assert load(str(tmp_path)).path.is_dir()
    (tmp_path / "adapter/adapter_model.safetensors").unlink()
    with pytest.raises(InputError, match=r"no adapter_model\.safetensors"):
        load(str(tmp_path))
    assert not (tmp_path / "ran").exists()


def test_adapter_that_cannot_be_merged_is_named(tmp_path: Path) -> None:
    write_spec(str(tmp_path), PromptSpec())
    settings = str(tmp_path / "adapter/adapter_config.json")
    storage.write_json(settings, {"peft_type": "LORA", "base_model_name_or_path": None})
    with pytest.raises(InputError, match=r"no adapter_model\.safetensors there, and no merged model next to it"):
        load(str(tmp_path))
    weights = tmp_path / "adapter/adapter_model.safetensors"
    weights.write_bytes(b"")
    with pytest.raises(InputError, match=r"adapter_model\.safetensors is damaged or incomplete"):
        load(str(tmp_path))
    save_file({"a": torch.zeros(1)}, weights)
    with pytest.raises(InputError, match="names no base_model_name_or_path"):
        load(str(tmp_path))
    storage.write_json(settings, {"peft_type": "LORA", "base_model_name_or_path": str(tmp_path / "gone")})
    with pytest.raises(InputError, match="gone' is neither 'smollm2', nor a folder, nor available from the hub"):
        load(str(tmp_path))
