"""Settings of adapters from elsewhere that are refused, each in one line and before PEFT makes anything of them."""

import json
from typing import Any

import pytest
from peft import LoraConfig

from artsel_ray.errors import InputError
from artsel_ray.models import adapter_config
from artsel_ray.models.adapter_config import check_fit, check_settings

BASE = {f"model.layers.{n}.self_attn.q_proj.weight": ("F32", [64, 64]) for n in range(2)}
BASE["lm_head.weight"] = ("F32", [300, 64])
WEIGHTS = {
    f"base_model.model.model.layers.{n}.self_attn.q_proj.lora_{side}.weight": (
        "F32",
        [4, 64] if side == "A" else [64, 4],
    )
    for n in range(2)
    for side in "AB"
}
SLOW = r"((([a-z._0-9])+)+)+Q"


def settings(**changes: Any) -> dict[str, Any]:
    """Returns what PEFT writes of a LoRA."""
    lora = LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM", base_model_name_or_path="org/base")
    plain = {name: list(value) if isinstance(value, set) else value for name, value in lora.to_dict().items()}
    return {**json.loads(json.dumps(plain)), **changes}


@pytest.mark.parametrize(
    "changes",
    [
        {}, {"use_dora": True}, {"use_rslora": True, "bias": "all"},
        {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"q": 1}},
        {"target_modules": r"model\.layers\.\d+\.self_attn\.(q|v)_proj"}, {"modules_to_save": ["lm_head"]},
        {"trainable_token_indices": {"embed_tokens": [7]}}, {"something_new": None}, {"layers_to_transform": [0]},
    ],
)  # fmt: skip
def test_plain_lora_is_taken(changes: dict[str, Any]) -> None:
    check_settings(settings(**changes), "m")
    check_fit(settings(**changes), WEIGHTS, BASE, "m")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "IA3"}, "adapters of type IA3 cannot be merged"),
        ({"peft_type": ["LORA"]}, "cannot be merged"),
        ({"layer_replication": [[0, 2]] * 10**6}, "layer_replication are not supported; merge it"),
        ({"megatron_config": {"a": 1}}, "sets megatron_config"),
        ({"something_new": {"a": 1}}, "sets something_new"),
        ({"target_parameters": ["x"]}, "sets target_parameters"),
        ({"init_lora_weights": "pissa_niter_1000000"}, "another init_lora_weights"),
        ({"r": "4"}, "r has a value of the wrong type"),
        ({"target_modules": 5}, "target_modules has a value of the wrong type"),
        ({"base_model_name_or_path": ["x"]}, "base_model_name_or_path has a value of the wrong type"),
    ],
)
def test_other_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^m: .*{message}"):
        check_settings(settings(**changes), "m")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"r": 10**9}, "a rank that is not one of its weights', at most 4"),
        ({"r": -1}, "a rank that is not"),
        ({"rank_pattern": {"q_proj": 10**9}}, "a rank that is not"),
        ({"lora_alpha": float("nan")}, "must be numbers"),
        ({"alpha_pattern": {"q_proj": 10**400}}, "must be numbers"),
        ({"modules_to_save": ["layers"]}, "saves layers, which is no layer with weights"),
        ({"modules_to_save": [1]}, "saves 1, "),
        ({"target_modules": SLOW}, "a pattern in adapter_config.json takes more than 1 seconds"),
        ({"exclude_modules": SLOW}, "a pattern in"),
        ({"rank_pattern": {SLOW: 4}}, "a pattern in"),
        ({"layers_to_transform": [0], "layers_pattern": SLOW}, "a pattern in"),
        ({"target_modules": "((("}, "a pattern in adapter_config.json fails"),
    ],
)
def test_settings_that_do_not_fit_the_weights_are_refused(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr(adapter_config, "_SECONDS", 1)
    with pytest.raises(InputError, match=f"^m: .*{message}"):
        check_fit(settings(**changes), WEIGHTS, BASE, "m")
