"""What a model's files must be before anything reads them: complete, safe, and those of a language model.

Only JSON files and the headers of the weights are read, so that every process can afford it.
"""

import re
from pathlib import Path
from types import UnionType
from typing import Any

from safetensors import SafetensorError, safe_open

from artsel_ray.errors import InputError, one_line
from artsel_ray.models.files import WEIGHTS, is_multimodal, model_files, read_object
from artsel_ray.models.tokenizer_check import check_tokenizer

INDEX = f"{WEIGHTS}.index.json"
# Files next to config.json whose `auto_map` would also name code.
_SETTINGS = ("tokenizer", "processor", "preprocessor", "video_preprocessor")
_LFS_POINTER = b"version https://git-lfs.github.com/"
# Architectures that predict next tokens, as transformers names their classes.
_GENERATIVE = re.compile(r"CausalLM|LMHead|BertGenerationDecoder")
_EMBEDDING = re.compile(r"(^|\.)(embed_tokens|lm_head|wte|embed_in|embed_out|word_embeddings|tok_embeddings)\.weight$")
_HEAD = re.compile(r"(^|\.)(lm_head|embed_out)\.weight$")
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")
_LAYERS = ("num_hidden_layers", "n_layer", "num_layers")
# Where quantizers keep what a full weight was made of.
_QUANTIZED_PARTS = re.compile(r"\.(qweight|qzeros|weight_packed|weight_scale(_inv)?|absmax|SCB|quant_state\..*)$")
_FULL = {"F64", "F32", "F16", "BF16"}

# What this package reads of config.json, and of its text_config.
_NUMBERS = (*_LAYERS, "hidden_size", "vocab_size", "num_attention_heads", "num_key_value_heads", "head_dim",
            "num_nextn_predict_layers", "word_embed_proj_dim")  # fmt: skip
_TYPES: dict[str, tuple[type | UnionType, str]] = {
    "model_type": (str, "text"), "architectures": (list | str, "a list"),
    **dict.fromkeys(("text_config", "vision_config", "rope_scaling", "rope_parameters"), (dict, "an object")),
    **dict.fromkeys(_NUMBERS, (int, "a whole number")),
}  # fmt: skip
# Numbers of parts, each of which costs time and memory before any weight is read; no model has as many.
_PARTS, _MAX_PARTS = re.compile(r"(layers?|depths?|blocks?|experts?|heads?|labels)$"), 4096

Header = dict[str, tuple[str, list[int]]]
"""Each tensor's number format and shape."""


def check_settings(folder: Path, name: str) -> None:
    """Raises an InputError, with the user's name of a model, unless its JSON files are whole and need no code."""
    config = folder / "config.json"
    if not config.is_file():
        raise InputError(f"{name}: no config.json in the model's folder")
    check_pointers(folder, name)
    for settings in (config, *(folder / f"{each}_config.json" for each in _SETTINGS)):
        if settings.is_file() and "auto_map" in read_object(settings):
            raise InputError(f"{name} needs code that comes with the model, which is never run; take one without it")
    _check_values(read_object(config), name)
    check_tokenizer(folder, name)


def _check_values(config: dict[str, Any], name: str) -> None:
    """Checks the types of what is read here of a config, and its numbers of parts, also in the configs inside of it."""
    for key, value in config.items():
        kind, words = _TYPES.get(key, (object, ""))
        if value is not None and not isinstance(value, kind):
            raise InputError(f"{name}: in config.json {key} must be {words}; copy or download the model again")
        if _PARTS.search(key) and isinstance(value, int | float) and not value <= _MAX_PARTS:
            raise InputError(
                f"{name}: in config.json {key} is {str(value)[:20]}; more than {_MAX_PARTS:,} are not read"
            )
        if isinstance(value, dict):
            _check_values(value, name)


def check_pointers(folder: Path, name: str) -> None:
    """Raises an InputError if a file is not there but a Git LFS pointer to it."""
    for file in model_files(folder):
        with file.open("rb") as stream:
            if stream.read(len(_LFS_POINTER)) == _LFS_POINTER:
                raise InputError(f"{name}: {file.name} is a Git LFS pointer, not the file; run `git lfs pull` there")


def check_model(folder: Path, name: str) -> None:
    """Raises an InputError, with the user's name of a model, unless its files are complete, safe and fit together."""
    check_settings(folder, name)
    config = read_object(folder / "config.json")
    if not is_multimodal(folder):
        _check_architecture(config, name)
    header = read_header(folder, name)
    if quantization(config) is None:
        _check_full(header, name)
        if not is_multimodal(folder):
            _check_shapes(config, header, name)


def check_rows(folder: Path, name: str, ids: list[int]) -> None:
    """Raises an InputError if a model has no rows of embeddings for some ids of its prompts."""
    shapes = [shape for key, (_, shape) in read_header(folder, name).items() if _EMBEDDING.search(key)]
    rows = min((shape[0] for shape in shapes if len(shape) == 2), default=None)
    if rows is not None and max(ids) >= rows:
        raise InputError(
            f"{name}: a prompt has the token {max(ids)}, and the embeddings have {rows:,} rows; the tokenizer is of "
            "another model, or tokens were added to it alone: resize the embeddings too"
        )


def check_head(folder: Path, name: str) -> None:
    """Raises an InputError if a model has an output layer of its own and its config.json says that it has none.

    transformers obeys the weights then, and vLLM the config.
    """
    if keys := tied_keys(folder, name):
        first, last = (_read_tensor(folder, name, key) for key in keys)
        if first.shape != last.shape or not bool((first == last).all()):
            raise InputError(
                f"{name}: config.json says that embeddings are tied, but {keys[0]} and {keys[1]} differ; set "
                "tie_word_embeddings to false there"
            )


def tied_keys(folder: Path, name: str) -> list[str]:
    """Returns the input's and the output's embedding if the weights have both and config.json says that they are one,
    which it says by default.
    """
    config = read_object(folder / "config.json")
    text = config.get("text_config") or {}
    keys = [key for key in read_header(folder, name) if _EMBEDDING.search(key)]
    heads = [key for key in keys if _HEAD.search(key)]
    is_tied = config.get("tie_word_embeddings", text.get("tie_word_embeddings", True))
    return sorted(keys, key=heads.__contains__) if is_tied and len(heads) == 1 and len(keys) == 2 else []


def _read_tensor(folder: Path, name: str, key: str) -> Any:
    for file in weight_files(folder, name):
        with safe_open(file, framework="pt") as tensors:
            if key in tensors.keys():  # noqa: SIM118  # no mapping
                return tensors.get_tensor(key)
    raise KeyError(key)


def quantization(config: dict[str, Any]) -> str | None:
    """Returns how a model's weights are quantized, None for full ones."""
    text = config.get("text_config") or {}
    named = [part.get(name) for part in (config, text) for name in ("quantization_config", "compression_config")]
    settings = next(filter(None, named), None)
    if settings is None:
        return None
    return str(settings.get("quant_method") or "unknown method") if isinstance(settings, dict) else "unknown method"


def refuse_quantized(folder: Path, name: str, purpose: str) -> None:
    """Raises an InputError if a model's weights are quantized; `purpose` is what they are needed for."""
    method = quantization(read_object(folder / "config.json"))
    if method is not None:
        raise InputError(
            f"{name}: its weights are quantized ({method}), and {purpose} needs full ones; take the model that it was "
            "made from"
        )


def _check_architecture(config: dict[str, Any], name: str) -> None:
    named = config.get("architectures") or []
    named = [named] if isinstance(named, str) else named
    if (named and not any(_GENERATIVE.search(str(each)) for each in named)) or config.get("is_encoder_decoder"):
        kind = ", ".join(map(str, named)) or config.get("model_type")
        raise InputError(f"{name} is a {kind}, which does not predict next tokens; take a causal language model")


def weight_files(folder: Path, name: str) -> list[Path]:
    """Returns the files with a model's weights; raises an InputError unless all are there, and only once."""
    whole, index = folder / WEIGHTS, folder / INDEX
    if not index.is_file():
        if not whole.is_file():
            raise InputError(_no_weights(folder, name))
        return [whole]
    named = _indexed(index, name)
    if whole.is_file() and WEIGHTS not in named.values():
        raise InputError(f"{name} has both {WEIGHTS} and {INDEX}; delete the one that is not its weights")
    absent = sorted(part for part in set(named.values()) if not (folder / part).is_file())
    if absent:
        raise InputError(
            f"{name}: {len(absent)} of the files in {INDEX} are not there ({absent[0]} is the first); copy or download "
            "the model again"
        )
    return [folder / part for part in sorted(set(named.values()))]


def _indexed(index: Path, name: str) -> dict[str, str]:
    """Returns the file of each tensor in an index."""
    parts = read_object(index).get("weight_map")
    named = {str(key): str(part) for key, part in parts.items()} if isinstance(parts, dict) else {"": ""}
    if any(not part.endswith(".safetensors") or Path(part).name != part for part in named.values()):
        raise InputError(f"{name}: {index.name} names weights that are no *.safetensors of the same folder")
    return named


def _no_weights(folder: Path, name: str) -> str:
    if list(folder.glob("*.gguf")):
        return f"{name} holds GGUF files, which are quantized for llama.cpp; take the model that they were made from"
    other = sorted(file.name for file in folder.glob("*.safetensors"))
    if other:
        return f"{name} has {other[0]} and neither {WEIGHTS} nor {INDEX}; copy or download the model again"
    return (
        f"{name} has no *.safetensors; convert its weights with transformers' save_pretrained: pickled ones are never "
        "read. If the model is on the hub, its download may be incomplete"
    )


def read_header(folder: Path, name: str) -> Header:
    """Returns the tensors of a model's weights without reading them; an InputError if a file is incomplete."""
    files, header = weight_files(folder, name), Header()
    for file in files:
        header |= read_file_header(file, name)
    if (folder / INDEX).is_file():
        absent = sorted(_indexed(folder / INDEX, name).keys() - header.keys())
        if absent:
            raise InputError(f"{name}: {absent[0]} is in {INDEX} and in none of its files; download the model again")
    return header


def read_file_header(file: Path, name: str) -> Header:
    """Returns the tensors of one file without reading them; an InputError if it is incomplete."""
    try:
        with safe_open(file, framework="numpy") as tensors:
            slices = {key: tensors.get_slice(key) for key in tensors.keys()}  # noqa: SIM118  # no mapping
            return {key: (str(each.get_dtype()), list(each.get_shape())) for key, each in slices.items()}
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{name}: {file.name} is damaged or incomplete ({one_line(error)}); copy or download it again"
        ) from None


def _check_full(header: Header, name: str) -> None:
    for key, (dtype, _) in header.items():
        if _QUANTIZED_PARTS.search(key) or (key.endswith(".weight") and dtype not in _FULL):
            raise InputError(
                f"{name}: its weights are quantized ({key} is {dtype}), and its config.json does not say how; take the "
                "model that it was made from"
            )


def _check_shapes(config: dict[str, Any], header: Header, name: str) -> None:
    """Compares the header with what the config says of vocabulary, width and layers, where it says it."""
    vocabulary, widths = config.get("vocab_size"), {config.get("hidden_size"), config.get("word_embed_proj_dim")}
    for key, (_, shape) in header.items():
        if len(shape) != 2 or not _EMBEDDING.search(key):
            continue
        if vocabulary is not None and shape[0] != vocabulary:
            raise InputError(_differ(name, f"vocab_size is {vocabulary}", f"{key} has {shape[0]} rows"))
        if widths != {None} and shape[1] not in widths:
            raise InputError(_differ(name, f"hidden_size is {config.get('hidden_size')}", f"{key} has {shape[1]}"))
    expected = next((int(config[key]) for key in _LAYERS if isinstance(config.get(key), int)), None)
    found = max((int(each.group(1)) + 1 for each in map(_LAYER.search, header) if each), default=None)
    if expected is None or found is None:
        return
    # Layers that only predict further tokens come after the others, and may be left out.
    if not expected <= found <= expected + int(config.get("num_nextn_predict_layers") or 0):
        raise InputError(_differ(name, f"the number of layers is {expected}", f"the weights have {found}"))


def _differ(name: str, config: str, weights: str) -> str:
    return f"{name}: in config.json {config}, but {weights}; the two are of different models: take both from one"
