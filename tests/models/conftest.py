"""Models of the tests' own, without and with option tokens."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from artsel_ray.models.load import Model, load


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


@pytest.fixture
def ready_model(bare_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny model of the test's own, with option tokens."""
    monkeypatch.setenv("ARTSEL_RAY_CACHE", str(tmp_path / "cache"))
    return Path(shutil.copytree(load(str(bare_model)).path, tmp_path / "ready"))
