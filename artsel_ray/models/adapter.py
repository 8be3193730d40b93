"""LoRA with the two option tokens' rows trained next to it: how it is made, continued, taken apart, and merged."""

import json
import os
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from artsel_ray.errors import InputError
from artsel_ray.models.checks import read_file_header
from artsel_ray.models.files import ADAPTER_CONFIG, ADAPTER_WEIGHTS, read_object
from artsel_ray.models.weights import read_model

MAX_MERGE_LOSS = 0.05
"""Share of LoRA's change that a merge may lose to the number format."""
_BASE = "base_model_name_or_path"
# What follows the name of a module, in an adapter's file, where its rows are.
_ROWS = ".token_adapter.trainable_tokens_delta"
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


def continued(model: PreTrainedModel, lora: Path, tokens: list[int]) -> PeftModel:
    """Returns a model with an earlier training's LoRA, to train on.

    Args:
        model: the base of that training, with its rows in place.
        lora: folder of its LoRA, as `write_lora` leaves it.
        tokens: see `lora_config`.
    """
    earlier: Any = LoraConfig.from_pretrained(str(lora))
    config = lora_config(model, earlier.r, earlier.lora_alpha, tokens)
    config.target_modules = earlier.target_modules
    trained = get_peft_model(model, config)
    rows = get_peft_model_state_dict(trained)  # PEFT asks for all that an adapter has
    set_peft_model_state_dict(trained, rows | load_file(lora / ADAPTER_WEIGHTS))
    return trained


def write_base(base: Path, adapter: Path, to: Path) -> None:
    """Writes a base with the adapter's trained rows in its embeddings; every other tensor stays as it is.

    The embeddings become float32. That keeps the rows exactly, and a model that is read as bfloat16 rounds them as
    training in bfloat16 does.

    Raises:
        InputError: if the base has no embeddings of the rows' name and width.
    """
    rows = {name: tensor for name, tensor in load_file(adapter / ADAPTER_WEIGHTS).items() if name.endswith(_ROWS)}
    ids = read_object(adapter / ADAPTER_CONFIG)["trainable_token_indices"]
    sides = {name.removesuffix(_ROWS).rpartition(".")[2]: tensor.float() for name, tensor in rows.items()}
    written = set()
    for file in filter(Path.is_file, base.iterdir()):
        names = read_file_header(file, str(base)) if file.suffix == ".safetensors" else {}
        found = {name: side for name in names for side in sides if f".{name}".endswith(f".{side}.weight")}
        if not found:
            _link(file, to / file.name)
            continue
        tensors = load_file(file)
        for name, side in found.items():
            tensors[name] = tensors[name].float()
            tensors[name][ids[side]] = sides[side]
        save_file(tensors, to / file.name, metadata={"format": "pt"})
        written |= set(found.values())
    if written != set(sides):
        raise InputError(
            f"{adapter}: its base has no {' or '.join(set(sides) - written)}; it is another model's adapter"
        )


def _link(file: Path, to: Path) -> None:
    """Links a file, which may be of many GB, or copies it to another disk."""
    try:
        os.link(file.resolve(), to)
    except OSError:
        shutil.copyfile(file, to)


def write_lora(adapter: Path, to: Path) -> None:
    """Writes an adapter without its rows: plain LoRA, which vLLM takes too."""
    lora = {name: tensor for name, tensor in load_file(adapter / ADAPTER_WEIGHTS).items() if not name.endswith(_ROWS)}
    save_file(lora, to / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    settings = read_object(adapter / ADAPTER_CONFIG) | {"trainable_token_indices": None}
    (to / ADAPTER_CONFIG).write_text(json.dumps(settings, indent=2, sort_keys=True))


def rank_of(lora: Path) -> int:
    """Returns the rank of a folder's LoRA."""
    return int(read_object(lora / ADAPTER_CONFIG)["r"])


def trains_rows(adapter: Path) -> bool:
    """Tells whether an adapter has trained rows next to its LoRA."""
    return bool(read_object(adapter / ADAPTER_CONFIG).get("trainable_token_indices"))


def merge(base: Path, adapter: Path, to: Path, dtype: Any = "auto") -> float:
    """Writes base and adapter as one model, and returns the share of LoRA's change that its number format loses.

    The loss is `‖merged − base − Δ‖ / ‖Δ‖` over all of LoRA's matrices, for Δ = scaling · B · A. float32 loses nothing
    to speak of. bfloat16 has 8 bits, and a small Δ is lost where it is added to a large weight.

    Args:
        dtype: number format of the merged model; `auto` is the base's.
    """
    model = PeftModel.from_pretrained(read_model(base, dtype), adapter)
    lost = changed = 0.0
    for layer in model.modules():
        if isinstance(layer, LoraLayer):
            weight: Any = layer.get_base_layer().weight
            before, delta = weight.detach().clone(), layer.get_delta_weight("default").float()  # type: ignore[operator]
            layer.merge(safe_merge=True)
            lost += float(((weight.float() - before.float()) - delta).square().sum())
            changed += float(delta.square().sum())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All adapters are already merged")  # the rows are not
        model.merge_and_unload().save_pretrained(to)
    return (lost / changed) ** 0.5 if changed else 0.0


def name_base(adapter: Path, base: str) -> None:
    """Writes into a saved adapter what it was trained on: the name that the user gave, not this machine's path."""
    path = adapter / ADAPTER_CONFIG
    path.write_text(json.dumps(read_object(path) | {_BASE: base}, indent=2, sort_keys=True) + "\n")


def base_of(adapter: Path) -> str:
    """Returns the name of the model that a saved adapter was trained on; raises an InputError if it names none."""
    base = read_object(adapter / ADAPTER_CONFIG).get(_BASE)
    if not isinstance(base, str) or not base or "\0" in base:
        raise InputError(f"{adapter / ADAPTER_CONFIG} names no {_BASE}; the adapter's files are damaged")
    return base
