"""The paper's Tables 1 to 4, row by row, each with the run of ours that stands beside it; and the runs of Figure 1.

Numbers are percent changes of accuracy and of IPS from Nam, Oh, Kong, Feng, Bhattacharya, "Modeling diverse
preferences in movie artwork personalization with large language models".
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Size = Literal["3B", "8B"]
SIZES: tuple[Size, ...] = ("3B", "8B")
FEW, MANY = 10_000, 110_000


@dataclass(frozen=True)
class Run:
    """What decides a model: which one, and how it was trained."""

    size: Size
    output: Literal["text", "number"] = "text"
    method: Literal["zero-shot", "sft", "dpo"] = "zero-shot"
    examples: int = 0
    """Examples that it was trained on in the paper."""
    reason: bool = False
    start: "Run | None" = None
    """What DPO starts from; None is the pretrained model."""


@dataclass(frozen=True)
class Row:
    """A row of a table."""

    table: Literal["1", "2", "3", "4"]
    label: str
    run: Run | None
    """None is a random draw."""
    against: Literal["production", "zero-shot"]
    """What the changes are relative to: the production model, or the same size's zero-shot with the same output."""
    accuracy: float
    ips: float


def _sft(size: Size, examples: int, output: Literal["text", "number"] = "text", reason: bool = False) -> Run:
    return Run(size, output, "sft", examples, reason)


def _dpo(examples: int, start: Run | None) -> Run:
    return Run("8B", "text", "dpo", examples, start is not None and start.reason, start)


_AFTER_REASONS = _dpo(MANY, _sft("8B", MANY, reason=True))

ROWS = (
    Row("1", "random draw", None, "production", -74.96, -4.59),
    Row("1", "zero-shot", Run("8B"), "production", -4.22, -0.19),
    Row("1", "SFT", _sft("8B", MANY), "production", -2.55, 2.45),
    # Which of Table 4's runs this is the paper does not say; of these it has the IPS of the one after reasons.
    Row("1", "DPO", _AFTER_REASONS, "production", 0.91, 2.82),
    Row("1", "SFT with reasons", _sft("8B", MANY, reason=True), "production", 1.41, 5.21),
    Row("2", "3B, number", Run("3B", "number"), "production", -11.55, -6.81),
    Row("2", "3B, text", Run("3B"), "production", -12.76, -8.15),
    Row("2", "8B, number", Run("8B", "number"), "production", -7.06, -1.73),
    Row("2", "8B, text", Run("8B"), "production", -6.52, -0.19),
    Row("3", "3B, 10K, number", _sft("3B", FEW, "number"), "zero-shot", 6.71, 5.76),
    Row("3", "3B, 10K, text", _sft("3B", FEW), "zero-shot", 8.38, 8.06),
    Row("3", "3B, 10K, text with reasons", _sft("3B", FEW, reason=True), "zero-shot", 10.53, 10.60),
    Row("3", "8B, 10K, number", _sft("8B", FEW, "number"), "zero-shot", -0.40, 0.67),
    Row("3", "8B, 10K, text", _sft("8B", FEW), "zero-shot", 1.14, 1.52),
    Row("3", "8B, 10K, text with reasons", _sft("8B", FEW, reason=True), "zero-shot", 3.05, 3.02),
    Row("3", "8B, 110K, number", _sft("8B", MANY, "number"), "zero-shot", 1.64, -0.96),
    Row("3", "8B, 110K, text", _sft("8B", MANY), "zero-shot", 1.67, 3.02),
    Row("3", "8B, 110K, text with reasons", _sft("8B", MANY, reason=True), "zero-shot", 5.63, 5.40),
    Row("4", "8B, 10K, from SFT", _dpo(FEW, _sft("8B", FEW)), "production", -4.26, 1.42),
    Row("4", "8B, 10K, from SFT with reasons", _dpo(FEW, _sft("8B", FEW, reason=True)), "production", -3.73, 0.0),
    Row("4", "8B, 110K, from the pretrained model", _dpo(MANY, None), "production", -5.38, -0.19),
    Row("4", "8B, 110K, from SFT with reasons", _AFTER_REASONS, "production", -3.21, 2.82),
)
FIGURE1 = (Run("3B", "number"), Run("3B"))
"""Accuracy by the position of the truth, with numbers and with text."""


def zero_shot(run: Run) -> Run:
    """Returns the same model with the same output before any training."""
    return Run(run.size, run.output)


def runs(rows: Iterable[Row], figure: Iterable[Run]) -> list[Run]:
    """Returns what has to be run for these, each once, behind its model before training and what it starts from."""
    found: dict[Run, None] = {}
    for run in [row.run for row in rows if row.run] + list(figure):
        found |= {needed: None for needed in (zero_shot(run), run.start, run) if needed}
    # Zero-shot first: a look at the report is worth while early.
    return sorted(found, key=lambda run: (run.method != "zero-shot", run.method == "dpo"))
