"""A model's weights, and its tokenizer or processor, read from a folder that `load` has prepared.

A tokenizer alone loads in a second. The `Auto` classes take four seconds and 300 MB to import, so they are imported
where they are needed.
"""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedTokenizerFast

from artsel_ray.errors import InputError, one_line, without_advice
from artsel_ray.models.checks import read_header, refuse_quantized
from artsel_ray.models.files import is_multimodal, read_object
from artsel_ray.prompts.images import ImagePlaceholders
from artsel_ray.prompts.spec import PromptSpec
from artsel_ray.prompts.tokenizer import PromptTokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# A model's longest sequence, as configs of Llama, GPT-2, MPT, ChatGLM, Command R and others name it.
_LENGTHS = (
    "max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "model_max_length", "max_sequence_length",
    "max_seq_length", "seq_len", "n_ctx",
)  # fmt: skip
_MAX_LENGTH = 10**9
# Numbers that a model may compute when it is made, such as masks: 256 MB.
_MADE_UP = 1 << 26


def model_length(path: Path) -> int:
    """Returns the most tokens that a model takes, prompt and answer together.

    Raises:
        InputError: if its config does not say it.
    """
    config = read_object(path / "config.json")
    text = config.get("text_config") or config
    length = next((text[name] for name in _LENGTHS if isinstance(text.get(name), int)), None)
    if length is None:
        length = _class_default(path)
    # Other kinds of scaling are in the length already, or change with a prompt's own length.
    scaling = text.get("rope_scaling") or text.get("rope_parameters") or {}
    is_linear = (scaling.get("rope_type") or scaling.get("type")) == "linear"
    factor = (scaling.get("factor") or 1) if is_linear else 1
    is_number = isinstance(factor, int | float) and 1 <= length <= _MAX_LENGTH
    if not is_number or not 1 <= length * factor <= _MAX_LENGTH:
        raise InputError(
            f"{path / 'config.json'} says that prompts have {str(length)[:20]} tokens at most, scaled by "
            f"{str(factor)[:20]}; it must be from 1 to {_MAX_LENGTH:,}"
        )
    return int(length * factor)


def _class_default(path: Path) -> int:
    # Some files, such as Gemma 3's, leave out what is their class's default.
    text = read_config(path).get_text_config()
    lengths = [value for value in (getattr(text, name, None) for name in _LENGTHS) if isinstance(value, int)]
    if not lengths:
        raise InputError(f"{path / 'config.json'} does not say how long a prompt may be; add max_position_embeddings")
    return lengths[0]


def read_config(path: Path) -> Any:
    """Reads a model's config, without what only its user may say: how attention and experts are computed.

    Names of implementations there can be those of code on the hub.

    Raises:
        InputError: if transformers cannot read it.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
    except Exception as error:  # noqa: BLE001  # each family of models fails in its own way
        raise InputError(f"{path}: transformers cannot read its config: {without_advice(one_line(error))}") from None
    config._attn_implementation = config._experts_implementation = None
    return config


def read_model(path: Path, dtype: Any) -> "PreTrainedModel":
    """Reads a language model, or a vision-language one; dtype `auto` keeps the weights' own.

    What is returned can be saved, whatever its generation config says.

    Raises:
        InputError: if transformers cannot read it, or would make up a part of its weights.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText
    from transformers.utils import logging

    refuse_quantized(path, str(path), "transformers (for training, and for --engine transformers)")
    auto: Any = AutoModelForImageTextToText if is_multimodal(path) else AutoModelForCausalLM
    refuse_unknown(path)
    config = read_config(path)
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # its report of a model that does not fit is many lines, and ours is one
    try:
        _refuse_larger(path, auto, config)
        model, found = auto.from_pretrained(
            path,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused below, by name
        )
    except (torch.OutOfMemoryError, InputError):
        raise
    except Exception as error:  # noqa: BLE001  # each family of models fails in its own way
        reason = without_advice(one_line(error))
        raise InputError(f"{path}: transformers cannot read the model: {reason}") from None
    finally:
        logging.set_verbosity(verbosity)
    if found["mismatched_keys"]:
        key, *shapes = min(found["mismatched_keys"])
        had, expected = (list(shape) for shape in shapes)
        raise InputError(
            f"{path}: {key} has the shape {had}, its config.json says {expected}; take both from one model"
        )
    _refuse_other_keys(path, sorted(found["missing_keys"]), sorted(found["unexpected_keys"]))
    _keep_own_head(model)
    _make_savable(model)
    return model


def _refuse_larger(path: Path, auto: Any, config: Any) -> None:
    """Raises an InputError if a config describes far more than the weights are: it would all be made up."""
    import torch

    try:
        with torch.device("meta"):  # nothing is allocated
            described = auto.from_config(config)
    except Exception:  # noqa: BLE001  # whoever reads the weights will say it
        return
    numbers = sum(each.numel() for each in (*described.parameters(), *described.buffers()))
    found = sum(math.prod(shape) for _, shape in read_header(path, str(path)).values())
    if numbers > 2 * found + _MADE_UP:
        raise InputError(
            f"{path}: its config.json describes a model of {numbers:,} numbers, and the weights have {found:,}; take "
            "both from one model"
        )


def refuse_unknown(path: Path) -> None:
    """Raises an InputError if transformers has no class for a model, or one that reads text in both directions."""
    import transformers
    from transformers.models.auto import modeling_auto as auto

    config = read_object(path / "config.json")
    kind = config.get("model_type")
    if is_multimodal(path):
        known = auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    else:
        known = auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    if kind not in transformers.CONFIG_MAPPING:
        raise InputError(
            f"{path}: transformers {transformers.__version__} does not know models of type {kind!r}; install a version "
            "that does, or take another model"
        )
    reads_both_ways = kind in auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES and not config.get("is_decoder")
    if kind not in known or (reads_both_ways and not is_multimodal(path)):
        raise InputError(f"{path}: models of type {kind!r} do not generate text; take a causal language model")


def _refuse_other_keys(path: Path, missing: list[str], unexpected: list[str]) -> None:
    """Raises an InputError for tensors that transformers would make up, or leave out."""
    lists = {"lack": missing, "have, and the model does not know,": unexpected}
    listed = [
        f"{verb} {', '.join(keys[:3])}{f' and {len(keys) - 3:,} more' * (len(keys) > 3)}"
        for verb, keys in lists.items()
        if keys
    ]
    if listed:
        remedy = "save the model again with save_pretrained, or take one whose weights are complete"
        raise InputError(f"{path}: its weights {'; they '.join(listed)}; {remedy}")


def _keep_own_head(model: Any) -> None:
    """Makes a model's config say what its weights are: transformers reads an output layer of its own where the config
    says that it is tied to the input's, and then throws it away where it resizes both.
    """
    first, last = model.get_input_embeddings(), model.get_output_embeddings()
    if last is not None and last.weight is not first.weight:
        model.config.tie_word_embeddings = model.config.get_text_config().tie_word_embeddings = False


def _make_savable(model: Any) -> None:
    """Keeps of a generation config that transformers would refuse to save the special tokens alone."""
    from transformers import GenerationConfig

    settings = model.generation_config
    try:
        settings.validate(strict=True)
    except ValueError:
        names = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
        model.generation_config = GenerationConfig(**{name: getattr(settings, name) for name in names})


def read_tokenizer(path: Path) -> PreTrainedTokenizerFast:
    """Reads a tokenizer as its tokenizer.json says; one without an end token gets that of the model's configs.

    Raises:
        InputError: if there is no tokenizer, or it is damaged.
    """
    try:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(path)
    except Exception as error:  # noqa: BLE001  # tokenizers raises nothing more specific
        raise InputError(f"{path / 'tokenizer.json'} cannot be read: {one_line(error)}") from None
    if tokenizer.eos_token_id is None:
        tokenizer.eos_token = _end_token(path, tokenizer)
    return tokenizer


def _end_token(path: Path, tokenizer: PreTrainedTokenizerFast) -> str:
    for name in ("generation_config.json", "config.json"):
        ends = read_object(path / name).get("eos_token_id") if (path / name).is_file() else None
        first = ends[0] if isinstance(ends, list) and ends else ends
        if isinstance(first, int) and first < len(tokenizer):
            return str(tokenizer.convert_ids_to_tokens(first))
    raise InputError(f"{path}: neither tokenizer nor config names an end token; add eos_token to tokenizer_config.json")


def read_processor(path: Path) -> Any:
    """Reads a vision-language model's processor, which makes its inputs of images and text.

    Raises:
        InputError: if the model has none, or a package that it needs is not installed.
    """
    from transformers import AutoProcessor

    try:
        processor = AutoProcessor.from_pretrained(path, trust_remote_code=False)
    except Exception as error:  # noqa: BLE001  # each family of models fails in its own way
        raise InputError(f"{path.name}: its processor cannot be loaded: {without_advice(one_line(error))}") from None
    if not hasattr(processor, "tokenizer") or not hasattr(processor, "image_processor"):
        raise InputError(f"{path.name}: it has a vision_config, and no processor of images; take a complete model")
    return processor


def prompt_tokenizer(path: Path, spec: PromptSpec) -> PromptTokenizer:
    """Returns the tokenizer of a model's prompts; raises an InputError if they have images and the model takes none."""
    tokenizer = read_tokenizer(path)
    if spec.assets == "caption":
        return PromptTokenizer(tokenizer, spec)
    if not is_multimodal(path):
        raise InputError("--assets image needs a vision-language model, and this one takes only text")
    return PromptTokenizer(tokenizer, spec, ImagePlaceholders(read_processor(path)))


def copy_processor(path: Path, to: Path) -> None:
    """Writes a model's processor, or its tokenizer if it has none, into another folder."""
    read: Any = read_processor if is_multimodal(path) else read_tokenizer
    read(path).save_pretrained(to)
