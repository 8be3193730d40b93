"""The paper's Tables 1 to 4, row by row, each with the experiment of ours that stands for it; and those of Figure 1.

Numbers are percent changes of accuracy and of IPS from Nam, Oh, Kong, Feng, Bhattacharya, "Modeling diverse
preferences in movie artwork personalization with large language models". Each scale has the models, data and settings
that stand for the paper's.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

Size = Literal["3B", "8B"]
SIZES: tuple[Size, ...] = ("3B", "8B")
FEW, MANY = 10_000, 110_000
TINY = "tiny"
"""Name of a model of random weights whose tokens are the words of the world."""


@dataclass(frozen=True)
class Experiment:
    """A model and how it was trained."""

    size: Size
    output: Literal["text", "number"] = "text"
    method: Literal["zero-shot", "sft", "dpo"] = "zero-shot"
    examples: int = 0
    """Number of training examples in the paper."""
    rationale: bool = False
    """Whether it learns to write a rationale first."""
    start: "Experiment | None" = None
    """The model that DPO starts from; None is the pretrained model."""


@dataclass(frozen=True)
class Row:
    """A row of a table."""

    table: Literal["1", "2", "3", "4"]
    label: str
    experiment: Experiment | None
    """None is a random draw."""
    against: Literal["production", "zero-shot"]
    """Reference of the changes: the production model, or the same size's zero-shot with the same output."""
    accuracy: float
    """Change of accuracy in the paper, in percent."""
    ips: float
    """Change of IPS in the paper, in percent."""


def _sft(size: Size, examples: int, output: Literal["text", "number"] = "text", rationale: bool = False) -> Experiment:
    return Experiment(size, output, "sft", examples, rationale)


def _dpo(examples: int, start: Experiment | None) -> Experiment:
    return Experiment("8B", "text", "dpo", examples, start is not None and start.rationale, start)


_DPO_AFTER_RATIONALES = _dpo(MANY, _sft("8B", MANY, rationale=True))

ROWS = (
    Row("1", "random draw", None, "production", -74.96, -4.59),
    Row("1", "zero-shot", Experiment("8B"), "production", -4.22, -0.19),
    Row("1", "SFT", _sft("8B", MANY), "production", -2.55, 2.45),
    # The paper does not say which of Table 4's models this is. It has the IPS of the one after SFT with reasons.
    Row("1", "DPO", _DPO_AFTER_RATIONALES, "production", 0.91, 2.82),
    Row("1", "SFT with reasons", _sft("8B", MANY, rationale=True), "production", 1.41, 5.21),
    Row("2", "3B, number", Experiment("3B", "number"), "production", -11.55, -6.81),
    Row("2", "3B, text", Experiment("3B"), "production", -12.76, -8.15),
    Row("2", "8B, number", Experiment("8B", "number"), "production", -7.06, -1.73),
    Row("2", "8B, text", Experiment("8B"), "production", -6.52, -0.19),
    Row("3", "3B, 10K, number", _sft("3B", FEW, "number"), "zero-shot", 6.71, 5.76),
    Row("3", "3B, 10K, text", _sft("3B", FEW), "zero-shot", 8.38, 8.06),
    Row("3", "3B, 10K, text with reasons", _sft("3B", FEW, rationale=True), "zero-shot", 10.53, 10.60),
    Row("3", "8B, 10K, number", _sft("8B", FEW, "number"), "zero-shot", -0.40, 0.67),
    Row("3", "8B, 10K, text", _sft("8B", FEW), "zero-shot", 1.14, 1.52),
    Row("3", "8B, 10K, text with reasons", _sft("8B", FEW, rationale=True), "zero-shot", 3.05, 3.02),
    Row("3", "8B, 110K, number", _sft("8B", MANY, "number"), "zero-shot", 1.64, -0.96),
    Row("3", "8B, 110K, text", _sft("8B", MANY), "zero-shot", 1.67, 3.02),
    Row("3", "8B, 110K, text with reasons", _sft("8B", MANY, rationale=True), "zero-shot", 5.63, 5.40),
    Row("4", "8B, 10K, from SFT", _dpo(FEW, _sft("8B", FEW)), "production", -4.26, 1.42),
    Row("4", "8B, 10K, from SFT with reasons", _dpo(FEW, _sft("8B", FEW, rationale=True)), "production", -3.73, 0.0),
    Row("4", "8B, 110K, from the pretrained model", _dpo(MANY, None), "production", -5.38, -0.19),
    Row("4", "8B, 110K, from SFT with reasons", _DPO_AFTER_RATIONALES, "production", -3.21, 2.82),
)
FIGURE1 = (Experiment("3B", "number"), Experiment("3B"))
"""Accuracy by the position of the truth, with numbers and with text."""


def zero_shot(experiment: Experiment) -> Experiment:
    """Returns the same model with the same output before any training."""
    return Experiment(experiment.size, experiment.output)


def experiments(rows: Iterable[Row], figure: Iterable[Experiment]) -> list[Experiment]:
    """Returns the experiments that these need, each once, after its zero-shot model and the one it starts from."""
    found: dict[Experiment, None] = {}
    for experiment in [*(row.experiment for row in rows if row.experiment), *figure]:
        found |= {needed: None for needed in (zero_shot(experiment), experiment.start, experiment) if needed}
    # Zero-shot first: the report is worth reading early.
    return sorted(found, key=lambda experiment: (experiment.method != "zero-shot", experiment.method == "dpo"))


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
