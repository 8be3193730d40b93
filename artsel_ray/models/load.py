"""The one guarded door to models: by hub id, local path, URI, training output, or `smollm2`.

A model that comes out of it is ready: safetensors on the local disk, a tokenizer with `<option>` and `</option>`, and
embeddings for them. No pickle is read and no code that comes with a model is run.
"""

from dataclasses import dataclass
from pathlib import Path

from artsel_ray import storage
from artsel_ray.errors import InputError
from artsel_ray.models.cache import cached
from artsel_ray.models.files import digest, download, is_folder, local_copy
from artsel_ray.models.option_tokens import add_options, has_options
from artsel_ray.models.safety import check_safe, read_object
from artsel_ray.models.smollm2 import convert_smollm2
from artsel_ray.models.spec import read_spec
from artsel_ray.prompts.spec import PromptSpec

SMOLLM2 = "smollm2"
ADAPTER, MERGED = "adapter", "merged"
"""Folders of a training's output."""


@dataclass(frozen=True)
class Model:
    """A model that is ready on this machine."""

    path: Path
    """Its folder."""
    model_id: str
    """Its name and a digest of all its files, as in predictions and fingerprints."""
    spec: PromptSpec | None
    """The prompt it was trained for, if it was."""


def load(name: str, options: bool = True) -> Model:
    """Makes a model ready on this machine and returns where it is.

    Args:
        name: `smollm2`, a folder (any URI) with a model or a training's output, or a hub id.
        options: whether it must have the option tokens; captioning needs none.

    Raises:
        InputError: if there is no such model, or it needs pickled weights or its own code.
    """
    if name == SMOLLM2:
        return _model(name, cached(SMOLLM2, convert_smollm2), None)
    source, spec = _fetch(name)
    check_safe(source, name)
    return _model(name, _with_options(source) if options else source, spec)


def _model(name: str, path: Path, spec: PromptSpec | None) -> Model:
    label = name.rstrip("/").rsplit("/", 1)[-1] if is_folder(name) else name
    return Model(path, f"{label}@{digest(path)[:12]}", spec)


def _fetch(name: str) -> tuple[Path, PromptSpec | None]:
    """Returns a model's folder on this machine, as it came, and the prompt that it was trained for."""
    if not is_folder(name):
        return download(name), None
    spec = read_spec(name)
    if spec is None:
        return local_copy(name), None
    if storage.exists(storage.join(name, MERGED, "config.json")):
        return local_copy(storage.join(name, MERGED)), spec
    return _merge(storage.join(name, ADAPTER)), spec


def _merge(name: str) -> Path:
    """Merges an adapter that came without its merged model into its base, once."""
    from artsel_ray.models import adapter, weights

    folder = local_copy(name)
    if not (folder / adapter.WEIGHTS).is_file():
        raise InputError(f"{name}: no {adapter.WEIGHTS} there, and no merged model beside it")
    base = load(adapter.base_of(folder))

    def make(to: Path) -> None:
        adapter.merge(base.path, folder, to)
        weights.copy_processor(base.path, to)

    return cached(f"merged/{storage.fingerprint(base.model_id, digest(folder))}", make)


def _with_options(source: Path) -> Path:
    """Returns a model's folder, or the cache's copy of it with the option tokens where it lacks them."""
    if has_options(source):
        return source
    is_multimodal = "vision_config" in read_object(source / "config.json")
    key = digest(source) + "-multimodal" * is_multimodal
    return cached(key, lambda to: add_options(source, to, is_multimodal))
