"""The files that make a model: how they get onto this machine, and the digest that identifies them."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path
from typing import Any

from artsel_ray import packages, storage
from artsel_ray.errors import InputError
from artsel_ray.s3 import open_file

WEIGHTS = "model.safetensors"
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
"""Files of an adapter's folder, as PEFT names them."""
SMALL_PATTERNS = ["*.json", "*.jinja", "*.txt", "*.model"]
"""Names of all of a model's files but its weights."""
PATTERNS = ["*.safetensors", *SMALL_PATTERNS]

# What a copy from a remote storage holds in memory at a time.
_PART_BYTES = 16 * 2**20


def is_folder(name: str) -> bool:
    """Tells a folder, local or by URI, from a hub id."""
    return storage.is_uri(name) or Path(name).expanduser().is_dir()


def cached(key: str, make: Callable[[Path], None]) -> Path:
    """Returns a key's folder in the cache, made by `make(folder)` if absent: completely, and by only one process.

    Raises:
        InputError: if the cache cannot be written or its disk is full; nothing of the folder is left then.
    """
    folder = packages.cache_folder() / "models" / key
    if os.path.isdir(folder):
        return folder
    with packages.locked(folder):
        if not folder.exists():
            _make(folder, make)
    return folder


def _make(folder: Path, make: Callable[[Path], None]) -> None:
    from transformers.utils import logging

    logging.disable_progress_bar()  # it would mix with the job's own lines
    for left in folder.parent.glob(f".{folder.name}.*"):  # by a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        make(scratch)
        scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def local_copy(folder: str, patterns: list[str] = PATTERNS) -> Path:
    """Returns a folder with a model's files on this machine; a remote one, if there is one, is copied to the cache."""
    if not storage.is_uri(folder):
        return Path(folder).expanduser()
    # Those in the folder itself, none of its checkpoints'.
    named = ((file.partition("?")[0].rsplit("/", 1)[-1], file) for file in storage.find_files(folder, ""))
    files = {name: file for name, file in named if file == storage.join(folder, name) and _matches(name, patterns)}
    if not files:
        raise InputError(f"{folder}: no model there")

    def copy(to: Path) -> None:
        for name, file in files.items():
            with (to / name).open("wb") as local:
                for part in _parts(file):
                    local.write(part)

    # Sizes and times are in the key: a model that is trained again to the same URI is another one.
    key = storage.fingerprint(folder, storage.describe(list(files.values()), folder))
    return cached(f"copies/{key}", copy)


def _parts(uri: str) -> Iterator[bytes]:
    """Yields an object in parts, so that memory does not grow with it."""
    fs, path = storage.filesystem(uri)
    try:
        with open_file(fs, path) as file:
            while part := file.read(_PART_BYTES):
                yield part
    except OSError as error:
        raise InputError(f"cannot read {uri}: {storage.reason(error, uri)}") from None


def model_files(folder: Path, patterns: list[str] = PATTERNS) -> list[Path]:
    """Returns the files that belong to a model, sorted by name."""
    return sorted(file for file in folder.iterdir() if _matches(file.name, patterns) and file.is_file())


def read_object(file: Path) -> dict[str, Any]:
    """Reads one of a model's JSON files; raises an InputError if it holds no JSON object."""
    content = storage.read_json(str(file))
    if not isinstance(content, dict):
        raise InputError(f"{file} should hold a JSON object; the model's files are damaged")
    return content


def is_multimodal(folder: Path) -> bool:
    """Tells whether a model takes images next to text."""
    return "vision_config" in read_object(folder / "config.json")


def digest(folder: Path, patterns: list[str] = PATTERNS) -> str:
    """Returns a digest of a model's config, tokenizer, chat template and weights."""
    total = hashlib.sha256()
    for file in model_files(folder, patterns):
        state = file.stat()
        total.update(f"{file.name}\0{_file_digest(str(file), state.st_size, state.st_mtime_ns)}\0".encode())
    return total.hexdigest()


@lru_cache(maxsize=1024)
def _file_digest(file: str, size: int, mtime_ns: int) -> str:
    """Reads a file once in a process, as long as its size and time stay the same."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _matches(name: str, patterns: list[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)
