"""The door to models: what comes out of it is ready."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from artsel_ray.errors import InputError
from artsel_ray.models.load import Model, has_options, load
from artsel_ray.models.spec import write_spec
from artsel_ray.prompts.escaping import OPTION, OPTION_END
from artsel_ray.prompts.spec import PromptSpec


def test_smollm2_is_named_by_its_digest(smollm2: Model) -> None:
    assert smollm2.model_id.startswith("smollm2@")
    assert smollm2.spec is None
    assert load("smollm2") == smollm2


def test_training_output_brings_its_prompt(smollm2: Model, tmp_path: Path) -> None:
    spec = PromptSpec(layout="user_first", output="number")
    write_spec(str(tmp_path), spec)
    (tmp_path / "merged").symlink_to(smollm2.path)
    trained = load(str(tmp_path))
    assert trained.spec == spec
    assert trained.model_id.split("@")[1] == smollm2.model_id.split("@")[1]


def test_model_without_option_tokens_is_left_as_it_is_on_request(bare_model: Path) -> None:
    assert load(str(bare_model), options=False).path == bare_model


def test_model_with_option_tokens_is_left_as_it_is(ready_model: Path) -> None:
    assert load(str(ready_model)).path == ready_model


def test_absent_model_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match="nor available from the hub"):
        load("nobody/nothing")
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    with pytest.raises(InputError, match="no config"):
        load(str(tmp_path))


def test_smollm2_is_a_float32_llama_with_option_tokens(smollm2: Model) -> None:
    config = json.loads((smollm2.path / "config.json").read_text())
    assert (config["model_type"], config["vocab_size"]) == ("llama", 49154)
    assert "quantization_config" not in config
    model = AutoModelForCausalLM.from_pretrained(smollm2.path)
    assert model.dtype == torch.float32
    assert model.get_input_embeddings().num_embeddings == 49154


def test_new_rows_are_the_mean_of_the_subword_tokens_that_spelled_them(
    bare_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARTSEL_RAY_CACHE", str(tmp_path / "cache"))
    ready = load(str(bare_model))
    tokenizer = AutoTokenizer.from_pretrained(ready.path)
    before = AutoModelForCausalLM.from_pretrained(bare_model)
    after = AutoModelForCausalLM.from_pretrained(ready.path)
    for token in (OPTION, OPTION_END):
        row = tokenizer.convert_tokens_to_ids(token)
        spelled = tokenizer(token, split_special_tokens=True, add_special_tokens=False)["input_ids"]
        assert tokenizer(token, add_special_tokens=False)["input_ids"] == [row]
        for old, new in (
            (before.get_input_embeddings(), after.get_input_embeddings()),
            (before.get_output_embeddings(), after.get_output_embeddings()),
        ):
            was, now = torch.as_tensor(old.weight), torch.as_tensor(new.weight)
            torch.testing.assert_close(now[row], was[spelled].mean(dim=0))
            torch.testing.assert_close(now[:49152], was)
    assert load(str(ready.path)).path == ready.path


def test_option_tokens_are_recognized(bare_model: Path, smollm2: Model) -> None:
    assert has_options(smollm2.path)
    assert not has_options(bare_model)
    (bare_model / "tokenizer.json").unlink()
    assert not has_options(bare_model)
