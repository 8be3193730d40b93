"""LoRA with the two option tokens' rows trained beside it; and what comes out of a training."""

import json
import re
from pathlib import Path

from peft import LoraConfig, PeftModel
from transformers import PreTrainedModel

from artsel_ray import storage
from artsel_ray.errors import InputError
from artsel_ray.models.weights import read_model

WEIGHTS = "adapter_model.safetensors"
_ADAPTER_CONFIG = "adapter_config.json"
_BASE = "base_model_name_or_path"
# What a vision-language model looks at pictures with, as the models of transformers call it.
_SEEING = r".*(vision|visual).*"


def lora_config(model: PreTrainedModel, rank: int, alpha: int, tokens: list[int]) -> LoraConfig:
    """Returns LoRA on all linear layers, but for those that see; the rows of `tokens` are trained whole, on both sides.

    Args:
        model: decides whether input and output share their rows (tied embeddings).
        tokens: ids of `<option>` and `</option>`; none leaves their rows as they are.
    """
    is_tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    sides = ["embed_tokens"] if is_tied else ["embed_tokens", "lm_head"]
    is_multimodal = any(re.fullmatch(_SEEING, name) for name, _ in model.named_modules())
    return LoraConfig(
        r=rank,
        lora_alpha=alpha,
        target_modules="all-linear",
        exclude_modules=_SEEING if is_multimodal else None,
        task_type="CAUSAL_LM",
        trainable_token_indices=dict.fromkeys(sides, tokens) if tokens else None,
    )


def let_fused_head_read_rows(model: PreTrainedModel) -> None:
    """Makes TRL's fused head work with trained rows: it reads `weight` and `bias` of the output embedding itself.

    PEFT's wrapper answers `weight` with the trained rows in their places, differentiably, and with the base's
    weight while adapters are off; but it has no `bias`. (A Llama has none either.)
    """
    head = model.get_output_embeddings()
    if not hasattr(head, "bias"):
        head.bias = None


def merge(base: Path, adapter: Path, to: Path) -> None:
    """Writes base and adapter as one model, in the base's number format."""
    merged = PeftModel.from_pretrained(read_model(base, "auto"), adapter).merge_and_unload(safe_merge=True)
    merged.save_pretrained(to)


def name_base(adapter: Path, base: str) -> None:
    """Says in a saved adapter what it was trained on, by the name that the user gave, not by this machine's path."""
    path = adapter / _ADAPTER_CONFIG
    settings = json.loads(path.read_text()) | {_BASE: base}
    path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")


def base_of(adapter: Path) -> str:
    """Returns the name of the model that a saved adapter was trained on.

    Raises:
        InputError: if the adapter does not say so.
    """
    settings = storage.read_json(str(adapter / _ADAPTER_CONFIG))
    base = settings.get(_BASE) if isinstance(settings, dict) else None
    if not isinstance(base, str) or not base:
        raise InputError(f"{adapter / _ADAPTER_CONFIG} names no {_BASE}; the adapter's files are damaged")
    return base
