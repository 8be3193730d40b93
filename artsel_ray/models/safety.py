"""What is never done with a model from outside: no pickle is read, and no code that comes with it is run."""

from pathlib import Path
from typing import Any

from artsel_ray import storage
from artsel_ray.errors import InputError

# Files beside config.json whose `auto_map` would also name code.
_SETTINGS = ("tokenizer", "processor", "preprocessor", "video_preprocessor")


def check_safe(folder: Path, name: str) -> None:
    """Checks that a model's folder has weights as safetensors and needs no code of its own.

    Args:
        name: the model as the user named it, for the message.

    Raises:
        InputError: if it has no config.json or no safetensors, or asks for pickles or code.
    """
    config = folder / "config.json"
    if not config.is_file():
        raise InputError(f"{name}: no config.json in the model's folder")
    for settings in (config, *(folder / f"{each}_config.json" for each in _SETTINGS)):
        if settings.is_file() and "auto_map" in read_object(settings):
            raise InputError(f"{name} needs code that comes with the model, which is never run; take one without it")
    if not list(folder.glob("*.safetensors")):
        raise InputError(f"{name} has no *.safetensors; convert its weights: pickled ones are never read")
    for index in folder.glob("*.safetensors.index.json"):
        _check_index(index, name)


def _check_index(index: Path, name: str) -> None:
    """Checks that an index of sharded weights names safetensors of its own folder only."""
    parts = read_object(index).get("weight_map")
    named = set(map(str, parts.values())) if isinstance(parts, dict) else {""}
    if any(not part.endswith(".safetensors") or Path(part).name != part for part in named):
        raise InputError(f"{name}: {index.name} names weights that are no *.safetensors of the same folder")


def read_object(file: Path) -> dict[str, Any]:
    """Reads one of a model's JSON files.

    Raises:
        InputError: if it holds no JSON object.
    """
    content = storage.read_json(str(file))
    if not isinstance(content, dict):
        raise InputError(f"{file} should hold a JSON object; the model's files are damaged")
    return content
