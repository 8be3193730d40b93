import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from jinja2.exceptions import SecurityError
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from artsel_ray.errors import InputError
from artsel_ray.models.load import Model, _file_digest, load
from artsel_ray.models.spec import write_spec
from artsel_ray.prompts.escaping import OPTION, OPTION_END
from artsel_ray.prompts.spec import PromptSpec


@pytest.fixture
def bare_model(tmp_path: Path, smollm2: Model) -> Path:
    """A tiny Llama whose tokenizer has no option tokens."""
    folder = tmp_path / "bare"
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49152, hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=1,
        tie_word_embeddings=False,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer = json.loads((smollm2.path / "tokenizer.json").read_text())
    tokenizer["added_tokens"] = [token for token in tokenizer["added_tokens"] if "option>" not in token["content"]]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    settings = json.loads((smollm2.path / "tokenizer_config.json").read_text())
    settings.pop("additional_special_tokens", None)
    settings.pop("extra_special_tokens", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def test_smollm2_is_a_llama_with_option_tokens(smollm2: Model) -> None:
    config = json.loads((smollm2.path / "config.json").read_text())
    assert (config["model_type"], config["vocab_size"]) == ("llama", 49154)
    assert smollm2.model_id.startswith("smollm2@")
    assert smollm2.spec is None
    assert load("smollm2") == smollm2


def test_a_model_gets_option_tokens_as_the_mean_of_their_pieces(
    bare_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARTSEL_RAY_CACHE", str(tmp_path / "cache"))
    ready = load(str(bare_model))
    tokenizer = AutoTokenizer.from_pretrained(ready.path)
    before = AutoModelForCausalLM.from_pretrained(bare_model)
    after = AutoModelForCausalLM.from_pretrained(ready.path)
    for token in (OPTION, OPTION_END):
        row = tokenizer.convert_tokens_to_ids(token)
        pieces = tokenizer(token, split_special_tokens=True, add_special_tokens=False)["input_ids"]
        assert tokenizer(token, add_special_tokens=False)["input_ids"] == [row]
        for old, new in (
            (before.get_input_embeddings(), after.get_input_embeddings()),
            (before.get_output_embeddings(), after.get_output_embeddings()),
        ):
            was, now = torch.as_tensor(old.weight), torch.as_tensor(new.weight)
            torch.testing.assert_close(now[row], was[pieces].mean(dim=0))
            torch.testing.assert_close(now[:49152], was)
    assert load(str(ready.path)).path == ready.path


def test_a_training_output_brings_its_prompt(smollm2: Model, tmp_path: Path) -> None:
    spec = PromptSpec(layout="user_first", output="number")
    write_spec(str(tmp_path), spec)
    (tmp_path / "merged").symlink_to(smollm2.path)
    trained = load(str(tmp_path))
    assert trained.spec == spec
    assert trained.model_id.split("@")[1] == smollm2.model_id.split("@")[1]


@pytest.fixture
def ready_model(bare_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny model of the test's own, with option tokens."""
    monkeypatch.setenv("ARTSEL_RAY_CACHE", str(tmp_path / "cache"))
    return Path(shutil.copytree(load(str(bare_model)).path, tmp_path / "ready"))


def test_a_retrained_model_at_the_same_uri_is_another_one(ready_model: Path) -> None:
    uri = f"file://{ready_model}"
    first = load(uri)
    assert load(uri) == first
    assert first.model_id == load(str(ready_model)).model_id
    model = AutoModelForCausalLM.from_pretrained(ready_model)
    with torch.no_grad():
        next(model.parameters()).add_(1.0)
    model.save_pretrained(ready_model)
    second = load(uri)
    assert second.model_id != first.model_id
    assert second.model_id == load(str(ready_model)).model_id
    weights = (second.path / "model.safetensors").read_bytes()
    assert weights == (ready_model / "model.safetensors").read_bytes()


def test_the_files_of_checkpoints_are_not_the_models(ready_model: Path) -> None:
    alone = load(f"file://{ready_model}")
    checkpoint = ready_model / "checkpoint-1"
    checkpoint.mkdir()
    (checkpoint / "model.safetensors").write_bytes(b"another")
    (checkpoint / "config.json").write_text("{}")
    (ready_model / "optimizer.pt").write_bytes(b"a pickle")
    beside = load(f"file://{ready_model}")
    assert beside.model_id == alone.model_id
    assert not list(beside.path.rglob("*.pt"))
    (ready_model / "model.safetensors").unlink()
    with pytest.raises(InputError, match="safetensors"):
        load(f"file://{ready_model}")


def test_the_chat_template_is_part_of_the_id(ready_model: Path) -> None:
    ids = []
    for template in ("{{ messages }}", "{{ messages[0] }}"):
        (ready_model / "chat_template.jinja").write_text(template)
        ids.append(load(str(ready_model)).model_id)
    assert ids[0] != ids[1]


def test_weights_are_read_once_in_a_process(ready_model: Path) -> None:
    before = _file_digest.cache_info().misses
    load(str(ready_model))
    read = _file_digest.cache_info().misses
    assert read > before
    load(str(ready_model))
    assert _file_digest.cache_info().misses == read


@pytest.mark.parametrize("content", ["{", "[]", "\udcff"])
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_broken_settings_are_named(bare_model: Path, name: str, content: str) -> None:
    (bare_model / name).write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=name):
        load(str(bare_model))


def test_pickled_weights_are_refused(bare_model: Path) -> None:
    (bare_model / "model.safetensors").unlink()
    (bare_model / "pytorch_model.bin").write_bytes(pickle.dumps({}))
    with pytest.raises(InputError, match="safetensors"):
        load(str(bare_model))


class Payload:
    """What makes a folder when it is unpickled."""

    def __init__(self, ran: Path) -> None:
        self.ran = ran

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.ran),)


@pytest.mark.parametrize("safetensors", ["none", "beside", "index"])
def test_a_pickle_in_a_models_folder_is_never_executed(bare_model: Path, safetensors: str, tmp_path: Path) -> None:
    for name in ("pytorch_model.bin", "training_args.bin", "model.pkl", "adapter_model.bin"):
        (bare_model / name).write_bytes(pickle.dumps(Payload(tmp_path / "ran")))
    weights = bare_model / "model.safetensors"
    if safetensors == "none":
        weights.unlink()
    elif safetensors == "index":
        weights.rename(bare_model / "model-1.safetensors")
        index = {"metadata": {}, "weight_map": {"lm_head.weight": "pytorch_model.bin"}}
        (bare_model / "model.safetensors.index.json").write_text(json.dumps(index))
    if safetensors == "beside":
        assert load(str(bare_model)).path.is_dir()
    else:
        with pytest.raises(InputError, match="safetensors"):
            load(str(bare_model))
    assert not (tmp_path / "ran").exists()
    with (bare_model / "model.pkl").open("rb") as file:  # the payload is a real one
        pickle.load(file)  # noqa: S301
    assert (tmp_path / "ran").exists()


def test_an_index_that_names_weights_of_another_folder_is_refused(bare_model: Path) -> None:
    index = {"weight_map": {"lm_head.weight": "../model.safetensors"}}
    (bare_model / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="names weights that are no"):
        load(str(bare_model))


def test_a_chat_template_cannot_leave_its_sandbox(bare_model: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(bare_model)
    reach = "{{ ''.__class__.__mro__[1].__subclasses__() }}"
    with pytest.raises(SecurityError):
        tokenizer.apply_chat_template([{"role": "user", "content": ""}], chat_template=reach, tokenize=False)


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer_config.json", "processor_config.json", "preprocessor_config.json"]
)
def test_code_of_a_model_is_refused(bare_model: Path, name: str) -> None:
    config = json.loads((bare_model / name).read_text()) if (bare_model / name).exists() else {}
    config["auto_map"] = {"AutoModelForCausalLM": "modeling_evil.Evil"}
    (bare_model / name).write_text(json.dumps(config))
    with pytest.raises(InputError, match="code that comes with the model"):
        load(str(bare_model))


def test_a_captioner_is_taken_as_it_is(bare_model: Path) -> None:
    assert load(str(bare_model), options=False).path == bare_model


def test_no_such_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match="nor to be had from the hub"):
        load("nobody/nothing")
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    with pytest.raises(InputError, match="no config"):
        load(str(tmp_path))
