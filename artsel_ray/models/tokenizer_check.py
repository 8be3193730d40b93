"""Tries a model's tokenizer in a process of its own: its patterns are programs, and its files ask for any memory."""

from contextlib import suppress
from pathlib import Path

from artsel_ray import limited_process
from artsel_ray.errors import InputError
from artsel_ray.models.files import digest
from artsel_ray.packages import cache_folder

_TRIAL, _SECONDS = "artsel_ray.models.tokenizer_trial:encode", 10
_FILES = ["tokenizer*", "special_tokens_map.json", "added_tokens.json"]
_tried: set[str] = set()  # digests of tokenizers that are right


def check_tokenizer(folder: Path, name: str) -> None:
    """Raises an InputError, with the user's name of a model, if its tokenizer fails on texts or takes too much."""
    tried = digest(folder, _FILES)
    # Tried once on a machine where the cache can be written, else once in each process.
    mark = cache_folder() / "tokenizers" / tried
    if tried in _tried or not (folder / "tokenizer.json").is_file() or mark.exists():
        return
    try:
        limited_process.call(_TRIAL, _SECONDS, str(folder))
    except limited_process.LimitError as error:
        raise InputError(
            f"{name}: the tokenizer of tokenizer.json and the files next to it {error}; take another model"
        ) from None
    _tried.add(tried)
    with suppress(OSError):
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
