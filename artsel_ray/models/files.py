"""The files that make a model: how they get onto this machine, and the digest that identifies them."""

import hashlib
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path

from artsel_ray import storage
from artsel_ray.errors import InputError
from artsel_ray.models.cache import cached

_PATTERNS = ["*.safetensors", "*.json", "*.jinja", "*.txt", "*.model"]


def is_folder(name: str) -> bool:
    """Tells a folder, local or by URI, from a hub id."""
    return storage.is_uri(name) or Path(name).expanduser().is_dir()


def local_copy(folder: str) -> Path:
    """Returns a folder with a model's files on this machine; a remote one is copied into the cache.

    Raises:
        InputError: if a remote folder holds no such file.
    """
    if not storage.is_uri(folder):
        return Path(folder).expanduser()
    files = _remote_files(folder)
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


def _remote_files(uri: str) -> dict[str, str]:
    """Returns the URIs of a model's files by their names: those in the folder itself, none of its checkpoints'."""
    named = ((file.partition("?")[0].rsplit("/", 1)[-1], file) for file in storage.find_files(uri, ""))
    return {name: file for name, file in named if file == storage.join(uri, name) and _is_model_file(name)}


def _is_model_file(name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in _PATTERNS)
