"""A model's weights, and its tokenizer or processor, read from a folder that `load` has prepared.

A tokenizer alone loads in a second. The `Auto` classes take four seconds and 300 MB to import, so they are imported
where they are needed.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedTokenizerFast

from artsel_ray.errors import InputError, one_line
from artsel_ray.models.files import is_multimodal, read_object
from artsel_ray.prompts.images import ImagePlaceholders
from artsel_ray.prompts.spec import PromptSpec
from artsel_ray.prompts.tokenizer import PromptTokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def model_length(path: Path) -> int:
    """Returns the most tokens that a model takes, prompt and answer together."""
    config = read_object(path / "config.json")
    text = config.get("text_config", config)
    if "max_position_embeddings" in text:
        return int(text["max_position_embeddings"])
    from transformers import AutoConfig

    # Some files, such as Gemma 3's, leave out what is their class's default.
    return int(AutoConfig.from_pretrained(path, trust_remote_code=False).get_text_config().max_position_embeddings)


def read_model(path: Path, dtype: Any) -> "PreTrainedModel":
    """Reads a language model, or a vision-language one; dtype `auto` keeps the weights' own."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    auto: Any = AutoModelForImageTextToText if is_multimodal(path) else AutoModelForCausalLM
    return auto.from_pretrained(path, dtype=dtype, use_safetensors=True, trust_remote_code=False)


def read_processor(path: Path) -> Any:
    """Reads a vision-language model's processor, which makes its inputs of images and text.

    Raises:
        InputError: if the model has none, or a package that it needs is not installed.
    """
    from transformers import AutoProcessor

    try:
        return AutoProcessor.from_pretrained(path, trust_remote_code=False)
    except (ImportError, OSError, ValueError) as error:
        raise InputError(f"{path.name}: its processor cannot be loaded: {one_line(error)}") from None


def prompt_tokenizer(path: Path, spec: PromptSpec) -> PromptTokenizer:
    """Returns the tokenizer of a model's prompts; raises an InputError if they have images and the model takes none."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(path)  # tokenizer.json is all it needs
    if spec.assets == "caption":
        return PromptTokenizer(tokenizer, spec)
    if not is_multimodal(path):
        raise InputError("--assets image needs a vision-language model, and this one takes only text")
    return PromptTokenizer(tokenizer, spec, ImagePlaceholders(read_processor(path)))


def copy_processor(path: Path, to: Path) -> None:
    """Writes a model's processor, or its tokenizer if it has none, into another folder."""
    read: Any = read_processor if is_multimodal(path) else PreTrainedTokenizerFast.from_pretrained
    read(path).save_pretrained(to)
