"""Adapters from elsewhere, alone or left next to a model's weights."""

import re
import sys
import warnings
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

from artsel_ray.errors import InputError, one_line
from artsel_ray.models import adapter_config, checks
from artsel_ray.models.files import ADAPTER_CONFIG, ADAPTER_WEIGHTS, WEIGHTS, cached, digest, model_files, read_object
from artsel_ray.models.tokenizer_check import check_tokenizer

# Complete embeddings in an adapter: trained, or saved because the vocabulary was extended.
_EMBEDDING = re.compile(r"\.(embed_tokens|lm_head|wte|embed_in|embed_out|word_embeddings)(\.modules_to_save)?\.weight$")


_HALF = {"BF16", "F16"}


def is_adapter(folder: Path) -> bool:
    """Tells whether a folder has an adapter, and no model that the adapter was left next to."""
    has_model = (folder / WEIGHTS).is_file() or (folder / checks.INDEX).is_file()
    return (folder / ADAPTER_CONFIG).is_file() and not has_model


def find_adapter(folder: Path, name: str) -> None:
    """Raises an InputError, with the user's name of an adapter, unless its weights are there."""
    checks.check_pointers(folder, name)
    if not (folder / ADAPTER_WEIGHTS).is_file():
        raise InputError(
            f"{name}: no {ADAPTER_WEIGHTS} there, and no merged model next to it; save the adapter as safetensors: "
            "pickled weights are never read"
        )
    adapter_config.check_settings(read_object(folder / ADAPTER_CONFIG), name)
    check_tokenizer(folder, name)


def check_adapter(folder: Path, base: Path, name: str) -> None:
    """Raises an InputError, with the user's name of an adapter, unless its settings fit its weights and its base's."""
    weights = checks.read_file_header(folder / ADAPTER_WEIGHTS, name)
    settings = read_object(folder / ADAPTER_CONFIG)
    adapter_config.check_fit(settings, weights, checks.read_header(base, name), name)


def merge_adapter(base: Path, folder: Path, to: Path, name: str) -> None:
    """Writes an adapter merged into its base, with its own tokenizer if it has one.

    Raises:
        InputError: if the adapter does not fit its base.
    """
    from artsel_ray.models import adapter, options

    with TemporaryDirectory(dir=to.parent, prefix=f"{to.name}.") as scratch, warnings.catch_warnings():
        # PEFT would go on with weights that it made up.
        warnings.filterwarnings("error", message=".*missing adapter keys.*")
        try:
            with_rows = _with_rows(base, folder, name, Path(scratch))
            if adapter.merge(with_rows, folder, to) > adapter.MAX_MERGE_LOSS:
                adapter.merge(with_rows, folder, to, "float32")
        except (InputError, OSError):
            raise
        except Exception as error:  # noqa: BLE001  # PEFT checks few of its settings
            raise InputError(
                f"{name}: the adapter cannot be merged into its base {adapter.base_of(folder)}: {one_line(error)}"
            ) from None
    options.copy_source_tokenizer(folder if (folder / "tokenizer.json").is_file() else base, base, to)


def warn_of_widening(base: Path, merged: Path, name: str) -> None:
    """Warns at each run that `merge_adapter` has merged in float32, given the user's name of the adapter."""
    from artsel_ray.models import adapter

    formats = [{dtype for dtype, _ in checks.read_header(folder, name).values()} for folder in (base, merged)]
    if formats[0] & _HALF and not formats[1] & _HALF:
        _warn(f"{name}: merged into its base's number format, more than {adapter.MAX_MERGE_LOSS:.0%} of the adapter "
              "would be lost; it is merged in float32: score with --dtype float32")  # fmt: skip


def _with_rows(base: Path, folder: Path, name: str, scratch: Path) -> Path:
    """Returns the base with as many rows of embeddings as the adapter has, in `scratch` if it has others."""
    from artsel_ray.models import weights

    header = checks.read_file_header(folder / ADAPTER_WEIGHTS, name)
    rows = {shape[0] for key, (_, shape) in header.items() if _EMBEDDING.search(key)}
    config = read_object(base / "config.json")
    if len(rows) != 1 or rows == {config.get("vocab_size")}:
        return base
    model = weights.read_model(base, "auto")
    model.resize_token_embeddings(rows.pop(), mean_resizing=False)  # the adapter has all rows
    model.save_pretrained(scratch)
    return scratch


def without_leftovers(folder: Path, name: str) -> Path:
    """Returns a folder with a model's files alone: next to an adapter, transformers would read that one's base.

    Links to the files, in the cache, where something must be left out; else the folder itself.
    """
    weights = set(checks.weight_files(folder, name))
    files = model_files(folder)
    kept = [file for file in files if file in weights or not _is_leftover(file)]
    if kept == files:
        return folder
    if (folder / ADAPTER_CONFIG).is_file():
        _warn(f"{name} has complete weights next to {ADAPTER_CONFIG}; the adapter is not applied")

    def link(to: Path) -> None:
        for file in kept:
            (to / file.name).symlink_to(file.resolve())

    return cached(f"clean/{digest(folder)}", link)


def _is_leftover(file: Path) -> bool:
    return file.name == ADAPTER_CONFIG or file.suffix == ".safetensors"


@lru_cache(maxsize=64)
def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr, flush=True)
