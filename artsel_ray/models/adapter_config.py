"""What the settings of an adapter from elsewhere may say: a LoRA, of sizes that its weights have, with plain patterns.

PEFT makes whatever `adapter_config.json` asks for before it reads a weight, and matches its patterns with every module.
"""

import re
from typing import Any

from artsel_ray import limited_process
from artsel_ray.errors import InputError
from artsel_ray.models.files import ADAPTER_CONFIG

_TEXT, _NAMES, _NUMBERS = str | None, list | str | None, dict | None
_KNOWN: dict[str, Any] = {
    "peft_type": str, "base_model_name_or_path": _TEXT, "revision": _TEXT, "task_type": _TEXT, "peft_version": _TEXT,
    "auto_mapping": dict | None, "inference_mode": bool, "r": int, "lora_alpha": int | float,
    "lora_dropout": int | float,
    "target_modules": list | str, "exclude_modules": _NAMES, "modules_to_save": list | None, "bias": str,
    "use_rslora": bool, "use_dora": bool, "lora_bias": bool, "fan_in_fan_out": bool, "ensure_weight_tying": bool,
    "init_lora_weights": bool | str, "layers_to_transform": list | int | None, "layers_pattern": _NAMES,
    "rank_pattern": _NUMBERS, "alpha_pattern": _NUMBERS, "trainable_token_indices": dict | list | None,
    # Names and sizes for what is off.
    "megatron_core": _TEXT, "qalora_group_size": int,
}  # fmt: skip
# Others start from the base's weights, and change them.
_STARTS = (True, False, "gaussian", "orthogonal")
_SECONDS, _MAX_ALPHA = 5, 1e6

Shapes = dict[str, tuple[str, list[int]]]


def check_settings(settings: dict[str, Any], name: str) -> None:
    """Raises an InputError, with the user's name of an adapter, unless it is a LoRA without what is not known here."""
    if settings.get("peft_type") != "LORA":
        kind = str(settings.get("peft_type"))[:40]
        raise InputError(
            f"{name}: adapters of type {kind} cannot be merged into their base; take a LoRA, or a complete model"
        )
    for key, value in settings.items():
        if key not in _KNOWN and value not in (None, False, 0, "", [], {}):
            raise InputError(
                f"{name}: {ADAPTER_CONFIG} sets {key[:40]}, and adapters with {key[:40]} are not supported; merge it "
                "with the tool that made it, and take the result"
            )
        if not isinstance(value, _KNOWN.get(key, object)):
            raise InputError(f"{name}: in {ADAPTER_CONFIG} {key} has a value of the wrong type; save it again")
    if settings.get("init_lora_weights", True) not in _STARTS:
        raise InputError(
            f"{name}: {ADAPTER_CONFIG} has another init_lora_weights than {_STARTS}; convert it to a plain LoRA: "
            "PEFT's save_pretrained does so with path_initial_model_for_weight_conversion"
        )


def check_fit(settings: dict[str, Any], adapter: Shapes, base: Shapes, name: str) -> None:
    """Checks ranks, saved modules and patterns of settings against the tensors of an adapter and of its base.

    Raises:
        InputError: for numbers or modules that the weights do not have, or a pattern that takes too long.
    """
    ranks = [settings.get("r", 8), *(settings.get("rank_pattern") or {}).values()]
    most = max((shape[0] for key, (_, shape) in adapter.items() if "lora_A" in key and shape), default=0)
    if not all(isinstance(rank, int) and 0 < rank <= most for rank in ranks):
        raise InputError(f"{name}: {ADAPTER_CONFIG} has a rank that is not one of its weights', at most {most}")
    alphas = [settings.get("lora_alpha", 8), *(settings.get("alpha_pattern") or {}).values()]
    if not all(isinstance(alpha, int | float) and abs(alpha) <= _MAX_ALPHA for alpha in alphas):
        raise InputError(
            f"{name}: in {ADAPTER_CONFIG} lora_alpha and alpha_pattern must be numbers of at most {_MAX_ALPHA:g}"
        )
    leaves = {key.split(".")[-2] for key in base if key.count(".")}
    if other := [str(each)[:40] for each in settings.get("modules_to_save") or [] if each not in leaves]:
        raise InputError(f"{name}: {ADAPTER_CONFIG} saves {other[0]}, which is no layer with weights of its base")
    try:
        limited_process.call(f"{__name__}:match", _SECONDS, _patterns(settings), _modules([*adapter, *base]))
    except limited_process.LimitError as error:
        raise InputError(f"{name}: a pattern in {ADAPTER_CONFIG} {error}; name the modules in a list") from None


def _patterns(settings: dict[str, Any]) -> list[str]:
    """Returns the regular expressions of settings, as PEFT 0.21 puts them together."""
    plain = [each for key in ("target_modules", "exclude_modules") if isinstance(each := settings.get(key), str)]
    layers = settings.get("layers_pattern") or []
    numbered = [rf".*\.[^.]*{each}\.(\d+)\." for each in ([layers] if isinstance(layers, str) else layers)]
    by_name = [*(settings.get("rank_pattern") or {}), *(settings.get("alpha_pattern") or {})]
    return [*plain, *numbered, *(rf"(.*\.)?({each})$" for each in by_name)]


def _modules(tensors: list[str]) -> list[str]:
    """Returns the names of all modules that have tensors of these names inside."""
    parts = [key.removeprefix("base_model.model.").split(".") for key in tensors]
    return sorted({".".join(each[:end]) for each in parts for end in range(1, len(each))})


def match(patterns: list[str], names: list[str]) -> None:
    """Matches patterns with names. Only for a process with limits."""
    for pattern in patterns:
        compiled = re.compile(pattern)
        for name in names:
            compiled.match(name), compiled.fullmatch(name)
