"""What a model from outside cannot make the loader do, and files that are incomplete or do not fit together."""

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from jinja2.exceptions import SecurityError
from transformers import AutoTokenizer

from artsel_ray.errors import InputError
from artsel_ray.models.load import load


@pytest.mark.parametrize("content", ["{", "[]", "\udcff"])
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_broken_settings_name_their_file(bare_model: Path, name: str, content: str) -> None:
    (bare_model / name).write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=name):
        load(str(bare_model))


def test_pickled_weights_are_refused(bare_model: Path) -> None:
    (bare_model / "model.safetensors").unlink()
    (bare_model / "pytorch_model.bin").write_bytes(pickle.dumps({}))
    with pytest.raises(InputError, match="safetensors"):
        load(str(bare_model))


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, ran: Path) -> None:
        self.ran = ran

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.ran),)


@pytest.mark.parametrize("safetensors", ["none", "beside", "index"])
def test_pickle_in_model_folder_is_never_executed(bare_model: Path, safetensors: str, tmp_path: Path) -> None:
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


def test_index_with_weights_of_another_folder_is_refused(bare_model: Path) -> None:
    index = {"weight_map": {"lm_head.weight": "../model.safetensors"}}
    (bare_model / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="names weights that are no"):
        load(str(bare_model))


def test_chat_template_cannot_leave_its_sandbox(bare_model: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(bare_model)
    reach = "{{ ''.__class__.__mro__[1].__subclasses__() }}"
    with pytest.raises(SecurityError):
        tokenizer.apply_chat_template([{"role": "user", "content": ""}], chat_template=reach, tokenize=False)


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer_config.json", "processor_config.json", "preprocessor_config.json"]
)
def test_code_that_comes_with_a_model_is_refused(bare_model: Path, name: str) -> None:
    config = json.loads((bare_model / name).read_text()) if (bare_model / name).exists() else {}
    config["auto_map"] = {"AutoModelForCausalLM": "modeling_evil.Evil"}
    (bare_model / name).write_text(json.dumps(config))
    with pytest.raises(InputError, match="code that comes with the model"):
        load(str(bare_model))
