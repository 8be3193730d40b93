"""Copies, the cache and digests."""

import errno
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from artsel_ray import storage
from artsel_ray.errors import InputError
from artsel_ray.models.files import _file_digest, cached, digest, is_folder, local_copy, read_object
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


def test_remote_model_is_copied_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARTSEL_RAY_CACHE", str(tmp_path / "cache"))
    size = 400 * 2**20
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.truncate(size)
    ask = (
        "import resource, sys\nfrom artsel_ray.models.files import local_copy\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\nfolder = local_copy(sys.argv[1])\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024, folder)"
    )
    command = [sys.executable, "-c", ask, f"file://{tmp_path}"]
    grown, folder = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert (Path(folder) / "model.safetensors").stat().st_size == size
    assert int(grown) < size / 2


def test_folder_left_by_a_killed_process_is_removed(own_cache: None) -> None:
    folder = cached("kind/key", lambda to: None)
    left = folder.parent / ".key.abcd"
    left.mkdir()
    folder.rmdir()
    cached("kind/key", lambda to: None)
    assert not left.exists()


def test_disk_that_fills_up_leaves_nothing_and_names_the_cache(own_cache: None) -> None:
    def fill(folder: Path) -> None:
        (folder / "a").write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(InputError, match=r"cannot write to the cache .*set ARTSEL_RAY_CACHE"):
        cached("key", fill)
    folder = cached("key", lambda to: None)
    assert sorted(path.name for path in folder.parent.iterdir()) == ["key", "key.lock"]


def test_folders_and_hub_ids_are_distinguished(tmp_path: Path) -> None:
    assert is_folder(str(tmp_path))
    assert is_folder("s3://bucket/model")
    assert not is_folder("nobody/nothing")


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


def test_settings_that_are_no_object_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(InputError, match=r"config\.json should hold a JSON object"):
        read_object(tmp_path / "config.json")
