"""The files that make a model: how they get onto this machine, what is refused, and the digest that identifies them."""

import hashlib
import shutil
import tempfile
from collections.abc import Callable
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path
from typing import Any

from filelock import FileLock

from artsel_ray import packages, storage
from artsel_ray.errors import InputError

_PATTERNS = ["*.safetensors", "*.json", "*.jinja", "*.txt", "*.model"]
# Files next to config.json whose `auto_map` would also name code.
_SETTINGS = ("tokenizer", "processor", "preprocessor", "video_preprocessor")


def is_folder(name: str) -> bool:
    """Tells a folder, local or by URI, from a hub id."""
    return storage.is_uri(name) or Path(name).expanduser().is_dir()


def cached(key: str, make: Callable[[Path], None]) -> Path:
    """Returns a key's folder in the cache, made by `make(folder)` if absent: completely, and by only one process."""
    folder = packages.cache_folder() / "models" / key
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            from transformers.utils import logging

            logging.disable_progress_bar()  # it would mix with the job's own lines
            scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
            try:
                make(scratch)
                scratch.rename(folder)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
    return folder


def local_copy(folder: str) -> Path:
    """Returns a folder with a model's files on this machine; a remote one, if there is one, is copied to the cache."""
    if not storage.is_uri(folder):
        return Path(folder).expanduser()
    # Those in the folder itself, none of its checkpoints'.
    named = ((file.partition("?")[0].rsplit("/", 1)[-1], file) for file in storage.find_files(folder, ""))
    files = {name: file for name, file in named if file == storage.join(folder, name) and _is_model_file(name)}
    if not files:
        raise InputError(f"{folder}: no model there")

    def copy(to: Path) -> None:
        for name, file in files.items():
            (to / name).write_bytes(storage.read_object(file))

    # Sizes and times are in the key: a model that is trained again to the same URI is another one.
    key = storage.fingerprint(folder, storage.describe(list(files.values()), folder))
    return cached(f"copies/{key}", copy)


def download(name: str) -> Path:
    """Returns the folder of a hub model, downloaded if it is not in the hub's own cache.

    Raises:
        InputError: if the hub has no such model or does not answer.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=_PATTERNS))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise InputError(
            f"model {name!r} is neither 'smollm2', nor a folder, nor available from the hub ({type(error).__name__}); "
            "check its name"
        ) from None


def check_safe(folder: Path, name: str) -> None:
    """Raises an InputError, with the user's name of a model, unless it is safetensors and needs no code of its own."""
    config = folder / "config.json"
    if not config.is_file():
        raise InputError(f"{name}: no config.json in the model's folder")
    for settings in (config, *(folder / f"{each}_config.json" for each in _SETTINGS)):
        if settings.is_file() and "auto_map" in read_object(settings):
            raise InputError(f"{name} needs code that comes with the model, which is never run; take one without it")
    if not list(folder.glob("*.safetensors")):
        raise InputError(f"{name} has no *.safetensors; convert its weights: pickled ones are never read")
    for index in folder.glob("*.safetensors.index.json"):
        parts = read_object(index).get("weight_map")
        named = set(map(str, parts.values())) if isinstance(parts, dict) else {""}
        if any(not part.endswith(".safetensors") or Path(part).name != part for part in named):
            raise InputError(f"{name}: {index.name} names weights that are no *.safetensors of the same folder")


def read_object(file: Path) -> dict[str, Any]:
    """Reads one of a model's JSON files; raises an InputError if it holds no JSON object."""
    content = storage.read_json(str(file))
    if not isinstance(content, dict):
        raise InputError(f"{file} should hold a JSON object; the model's files are damaged")
    return content


def is_multimodal(folder: Path) -> bool:
    """Tells whether a model takes images next to text."""
    return "vision_config" in read_object(folder / "config.json")


def digest(folder: Path) -> str:
    """Returns a digest of a model's config, tokenizer, chat template and weights."""
    total = hashlib.sha256()
    for file in sorted(file for file in folder.iterdir() if _is_model_file(file.name) and file.is_file()):
        state = file.stat()
        total.update(f"{file.name}\0{_file_digest(str(file), state.st_size, state.st_mtime_ns)}\0".encode())
    return total.hexdigest()


@lru_cache(maxsize=1024)
def _file_digest(file: str, size: int, mtime_ns: int) -> str:
    """Reads a file once in a process, as long as its size and time stay the same."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _is_model_file(name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in _PATTERNS)
