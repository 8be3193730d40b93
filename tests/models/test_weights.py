import json
from pathlib import Path
from typing import Any

import pytest
import torch

from artsel_ray.errors import InputError
from artsel_ray.models.load import Model
from artsel_ray.models.weights import (
    copy_processor,
    is_multimodal,
    model_length,
    prompt_tokenizer,
    read_model,
    read_processor,
)  # fmt: skip
from artsel_ray.prompts.spec import PromptSpec
from tests.support.tiny_vision import write_tiny_vision


def test_text_model_has_no_images(ready_model: Path, tmp_path: Path) -> None:
    assert not is_multimodal(ready_model)
    assert read_model(ready_model, torch.bfloat16).dtype == torch.bfloat16
    assert prompt_tokenizer(ready_model, PromptSpec()).placeholders is None
    with pytest.raises(InputError, match="--assets image needs a vision-language model"):
        prompt_tokenizer(ready_model, PromptSpec(assets="image", output="number"))
    copy_processor(ready_model, tmp_path / "copy")
    tokenizers = [json.loads((folder / "tokenizer.json").read_text()) for folder in (ready_model, tmp_path / "copy")]
    assert tokenizers[0]["model"] == tokenizers[1]["model"]


def test_vision_language_model_brings_its_processor(smollm2: Model, tmp_path: Path) -> None:
    model = Path(write_tiny_vision("idefics3", smollm2.path, tmp_path / "tiny"))
    assert is_multimodal(model)
    assert type(read_model(model, torch.float32)).__name__ == "Idefics3ForConditionalGeneration"
    assert prompt_tokenizer(model, PromptSpec(assets="image", output="number")).placeholders is not None
    copy_processor(model, tmp_path / "copy")
    assert type(read_processor(tmp_path / "copy")) is type(read_processor(model))
    (model / "processor_config.json").unlink()
    (model / "preprocessor_config.json").unlink(missing_ok=True)
    with pytest.raises(InputError, match="tiny: its processor cannot be loaded"):
        read_processor(model)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"max_position_embeddings": 300}, 300), ({"n_positions": 300}, 300), ({"max_seq_len": 300}, 300),
        ({"seq_length": 300}, 300), ({"max_sequence_length": 300}, 300), ({"n_ctx": 300}, 300),
        ({"text_config": {"max_position_embeddings": 300}, "max_position_embeddings": 1}, 300),
        ({"max_position_embeddings": 300, "rope_scaling": {"type": "linear", "factor": 4.0}}, 1200),
        ({"max_position_embeddings": 300, "rope_parameters": {"rope_type": "linear", "factor": 2.0}}, 600),
        ({"max_position_embeddings": 300, "rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, 300),
        ({"max_position_embeddings": 300, "rope_scaling": None}, 300),
        ({"model_type": "gpt2"}, 1024),
    ],
)  # fmt: skip
def test_length_is_found_by_any_of_its_names(tmp_path: Path, config: dict[str, Any], expected: int) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert model_length(tmp_path) == expected


def test_length_that_no_config_says_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bloom"}))
    with pytest.raises(InputError, match="does not say how long a prompt may be; add max_position_embeddings"):
        model_length(tmp_path)


@pytest.mark.parametrize(
    "config",
    [
        {"max_position_embeddings": -1}, {"max_position_embeddings": 10**12}, {"n_positions": 10**400},
        {"max_position_embeddings": 300, "rope_scaling": {"type": "linear", "factor": 1e300}},
        {"max_position_embeddings": 300, "rope_scaling": {"type": "linear", "factor": float("nan")}},
        {"max_position_embeddings": 300, "rope_scaling": {"type": "linear", "factor": {"x": 1}}},
    ],
)  # fmt: skip
def test_length_that_no_model_has_is_refused(tmp_path: Path, config: dict[str, Any]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"config\.json says that prompts have .* it must be from 1 to 1,000,000,000"):
        model_length(tmp_path)


def change(folder: Path, **values: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))


@pytest.mark.parametrize("name", ["_attn_implementation", "attn_implementation", "_experts_implementation"])
def test_implementations_are_not_taken_from_a_models_folder(ready_model: Path, name: str) -> None:
    own = read_model(ready_model, torch.float32).config._attn_implementation
    change(ready_model, **{name: "kernels-community/evil"})
    assert read_model(ready_model, torch.float32).config._attn_implementation == own == "sdpa"


@pytest.mark.parametrize("name", ["intermediate_size", "head_dim"])
def test_model_much_larger_than_its_weights_is_not_made(ready_model: Path, name: str) -> None:
    change(ready_model, **{name: 10**9})
    with pytest.raises(InputError, match=r"describes a model of [\d,]+ numbers, and the weights have 6,"):
        read_model(ready_model, torch.float32)


def test_model_that_says_it_takes_images_and_has_no_processor_is_refused(ready_model: Path) -> None:
    with pytest.raises(InputError, match="has a vision_config, and no processor of images"):
        read_processor(ready_model)
