"""LoRA with the two option tokens' rows trained next to it, its merge, and the base that it names."""

import json
import re
from pathlib import Path

from peft import LoraConfig, PeftModel
from transformers import PreTrainedModel

from artsel_ray.errors import InputError
from artsel_ray.models.files import read_object
from artsel_ray.models.weights import read_model

WEIGHTS = "adapter_model.safetensors"
_ADAPTER_CONFIG = "adapter_config.json"
_BASE = "base_model_name_or_path"
# Modules that encode images, as the vision-language models of transformers name them.
_VISION = r".*(vision|visual).*"


def lora_config(model: PreTrainedModel, rank: int, alpha: int, tokens: list[int]) -> LoraConfig:
    """Returns LoRA on all linear layers except those of a vision encoder, with complete rows of the embeddings.

    Args:
        tokens: ids whose rows are trained, on both sides: `<option>` and `</option>`; none leaves all rows frozen.
    """
    first, last = model.get_input_embeddings(), model.get_output_embeddings()
    sides = [first] if first.weight is last.weight else [first, last]
    if getattr(last, "bias", None) is not None:  # PEFT 0.21 forgets it where it trains rows
        sides = [side for side in sides if side.weight is not last.weight]
    names = {id(module): name.rpartition(".")[2] for name, module in model.named_modules()}
    is_multimodal = any(re.fullmatch(_VISION, name) for name, _ in model.named_modules())
    return LoraConfig(
        r=rank,
        lora_alpha=alpha,
        target_modules="all-linear",
        exclude_modules=_VISION if is_multimodal else None,
        task_type="CAUSAL_LM",
        trainable_token_indices={names[id(side)]: tokens for side in sides} if tokens and sides else None,
    )


def let_fused_head_read_rows(model: PreTrainedModel) -> None:
    """Makes TRL's fused head work with trained rows: it reads `weight` and `bias` of the output embedding itself.

    PEFT's wrapper answers `weight` with the trained rows in their positions, differentiably, and with the base's
    weight while adapters are off; but it has no `bias`. (A Llama has none either.)
    """
    # Wrapper of PEFT 0.21, head of TRL 1.16; tests/models/test_adapter.py fails when either changes.
    head = model.get_output_embeddings()
    if not hasattr(head, "bias"):
        head.bias = None


def merge(base: Path, adapter: Path, to: Path) -> None:
    """Writes base and adapter as one model, in the base's number format."""
    merged = PeftModel.from_pretrained(read_model(base, "auto"), adapter).merge_and_unload(safe_merge=True)
    merged.save_pretrained(to)


def name_base(adapter: Path, base: str) -> None:
    """Writes into a saved adapter what it was trained on: the name that the user gave, not this machine's path."""
    path = adapter / _ADAPTER_CONFIG
    path.write_text(json.dumps(read_object(path) | {_BASE: base}, indent=2, sort_keys=True) + "\n")


def base_of(adapter: Path) -> str:
    """Returns the name of the model that a saved adapter was trained on; raises an InputError if it names none."""
    base = read_object(adapter / _ADAPTER_CONFIG).get(_BASE)
    if not isinstance(base, str) or not base:
        raise InputError(f"{adapter / _ADAPTER_CONFIG} names no {_BASE}; the adapter's files are damaged")
    return base
