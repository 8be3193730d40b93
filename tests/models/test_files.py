"""Copies, the cache, digests, and what a model from outside cannot make the loader do."""

import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from jinja2.exceptions import SecurityError
from transformers import AutoModelForCausalLM, AutoTokenizer

from artsel_ray import storage
from artsel_ray.errors import InputError
from artsel_ray.models.files import _file_digest, cached, digest, download, is_folder, local_copy, read_object
from artsel_ray.models.load import load


def test_retrained_model_at_the_same_uri_is_another_model(ready_model: Path) -> None:
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


def test_checkpoints_in_a_model_folder_are_ignored(ready_model: Path) -> None:
    alone = load(f"file://{ready_model}")
    checkpoint = ready_model / "checkpoint-1"
    checkpoint.mkdir()
    (checkpoint / "model.safetensors").write_bytes(b"another")
    (checkpoint / "config.json").write_text("{}")
    (ready_model / "optimizer.pt").write_bytes(b"a pickle")
    with_others = load(f"file://{ready_model}")
    assert with_others.model_id == alone.model_id
    assert not list(with_others.path.rglob("*.pt"))
    (ready_model / "model.safetensors").unlink()
    with pytest.raises(InputError, match="safetensors"):
        load(f"file://{ready_model}")


def test_chat_template_is_part_of_the_id(ready_model: Path) -> None:
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


def test_remote_folder_is_copied_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bucket: str) -> None:
    monkeypatch.setenv("ARTSEL_RAY_CACHE", str(tmp_path))
    uri = storage.join(bucket, "copied-model")
    for name in ("config.json", "model.safetensors", "optimizer.pt", "checkpoint-1/config.json"):
        storage.write_object(storage.join(uri, *name.split("/")), name.encode())
    copy = local_copy(uri)
    assert sorted(file.name for file in copy.iterdir()) == ["config.json", "model.safetensors"]
    before = digest(copy)
    assert local_copy(uri) == copy
    storage.write_object(storage.join(uri, "model.safetensors"), b"trained again")
    assert digest(local_copy(uri)) != before
    shutil.rmtree(copy)
    with pytest.raises(InputError, match="no model there"):
        local_copy(storage.join(bucket, "no-model"))


def test_folders_and_hub_ids_are_distinguished(tmp_path: Path) -> None:
    assert is_folder(str(tmp_path))
    assert is_folder("s3://bucket/model")
    assert not is_folder("nobody/nothing")


def test_absent_hub_model_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match="model 'nobody/nothing' is neither 'smollm2', nor a folder, nor available"):
        download("nobody/nothing")


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of the test's own."""
    monkeypatch.setenv("ARTSEL_RAY_CACHE", str(tmp_path))


@pytest.mark.usefixtures("own_cache")
def test_folder_is_made_once() -> None:
    made = []

    def make(folder: Path) -> None:
        made.append(folder)
        (folder / "a").write_text("content")

    assert cached("kind/key", make) == cached("kind/key", make)
    assert len(made) == 1
    assert (cached("kind/key", make) / "a").read_text() == "content"


@pytest.mark.usefixtures("own_cache")
def test_failure_leaves_no_partial_folder() -> None:
    def fail(folder: Path) -> None:
        (folder / "a").write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        cached("key", fail)
    folder = cached("key", lambda folder: None)
    assert not list(folder.iterdir())
    assert sorted(path.name for path in folder.parent.iterdir()) == ["key", "key.lock"]


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


def test_settings_that_are_no_object_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(InputError, match=r"config\.json should hold a JSON object"):
        read_object(tmp_path / "config.json")
