"""What the history of a training says: its last metrics, and whether anything was learned."""

import math

from artsel_ray.evaluation import held_out
from artsel_ray.train.validation import VALIDATION

_STALLED = 0.01  # largest change of a loss, relative to where it begins, that is none
METRICS = ("loss", *(f"{VALIDATION}{name}" for name in held_out.METRICS))  # what a training is judged by


def nothing_learned(method: str, history: list[dict[str, float]]) -> str:
    """Returns a warning if the losses of all steps show that a training has learned nothing, else an empty text."""
    losses = [entry["loss"] for entry in history if "loss" in entry]
    if len(losses) < 2:
        return ""
    if method == "dpo" and max(abs(loss - math.log(2)) for loss in losses) < _STALLED * math.log(2):
        stayed = f"within {_STALLED:.0%} of log 2, which is where DPO begins"
    elif max(losses) - min(losses) <= 1e-6 * max(losses):
        stayed = "the same"
    else:
        return ""
    return f"warning: the loss stayed {stayed}: next to nothing was learned; raise --learning-rate or train longer"


def final_metrics(history: list[dict[str, float]]) -> dict[str, float]:
    """Returns the last value of each metric that a training is judged by."""
    return {name: entry[name] for name in METRICS for entry in history if name in entry}
