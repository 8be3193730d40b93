"""The models, data and settings that stand for the paper's, on each scale of a reproduction."""

from dataclasses import dataclass, field
from typing import Any, Literal

from artsel_ray.reproduce.paper import FEW, MANY

TINY = "tiny"
"""Name of a model of random weights whose tokens are the words of the world."""


@dataclass(frozen=True)
class Scale:
    """Models, data and settings of one scale."""

    models: tuple[str, ...]
    """One model, or one for 3B and one for 8B."""
    teacher: str
    world: dict[str, Any]
    """Flags of simulate."""
    examples: dict[int, int]
    """Number of training examples, for each of the paper's."""
    validation: int
    """Number of validation examples."""
    test: int
    """Number of test examples."""
    history_length: int
    learning_rates: tuple[float, ...]
    """Several start a sweep."""
    training: dict[str, Any] = field(default_factory=dict)
    """Other flags of train."""
    distilling: dict[str, Any] = field(default_factory=dict)
    """Other flags of distill."""
    engine: Literal["vllm", "transformers"] = "vllm"


SCALES = {
    "smoke": Scale(
        models=(TINY,), teacher=TINY,
        world={"users": 60, "titles": 30, "interactions_per_user": 15.0, "themes": 2, "caption_tokens": 12,
               "min_candidates": 3, "max_candidates": 5, "engagement_rate": 0.3},
        examples={FEW: 64, MANY: 128}, validation=8, test=40, history_length=4, learning_rates=(1e-3,),
        training={"workers": 0, "batch_size": 4, "micro_batch": 4, "lora_rank": 4, "max_model_length": 1024},
        distilling={"max_tokens": 96, "min_words": 3, "max_model_length": 1024}, engine="transformers",
    ),
    "small": Scale(
        models=("smollm2",), teacher="smollm2",
        world={"source": "movielens", "caption_tokens": 18, "min_candidates": 4, "max_candidates": 8},
        examples={FEW: 10_000, MANY: 10_000}, validation=500, test=1_000, history_length=6, learning_rates=(1e-4,),
        training={"max_model_length": 2048}, distilling={"max_tokens": 160, "max_model_length": 4096},
    ),
    "paper": Scale(
        models=("meta-llama/Llama-3.2-3B-Instruct", "meta-llama/Llama-3.1-8B-Instruct"), teacher="Qwen/QwQ-32B",
        world={"users": 12_000}, examples={FEW: FEW, MANY: MANY}, validation=1_000, test=5_000, history_length=50,
        learning_rates=(1e-7, 5e-7, 1e-6, 5e-6, 1e-5, 1e-4), distilling={"max_tokens": 8_192},
    ),
}  # fmt: skip
