"""The model card: what was trained, on what, how it went, with a plot of the loss."""

import io
import json
from typing import Any

from matplotlib.figure import Figure

from artsel_ray import storage

_CARD, _PLOT = "README.md", "loss.svg"
_LOGGED = "validation_snips_logged"
# Flags that mean something on one machine only.
_NOT_SHOWN = ("examples", "output")


def write_card(output: str, flags: dict[str, Any], metrics: dict[str, float], history: list[dict[str, float]]) -> None:
    """Writes README.md and the plot that it shows into a training's output; `history` has the `step` of each entry."""
    storage.write_object(storage.join(output, _PLOT), _plot(history))
    storage.write_object(storage.join(output, _CARD), _text(flags, metrics).encode())


def add_note(output: str, note: str) -> None:
    """Adds a paragraph to the card of `write_card`, before the plot."""
    card = storage.join(output, _CARD)
    text = storage.read_object(card).decode()
    storage.write_object(card, text.replace("\n![", f"\n{note}\n\n![", 1).encode())


def _plot(history: list[dict[str, float]]) -> bytes:
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    loss, validation = figure.subplots(1, 2)
    is_logged = any(_LOGGED in entry for entry in history)
    measured = [_LOGGED, f"{_LOGGED}_random"] if is_logged else ["validation_accuracy", "validation_ips"]
    for axes, names in ((loss, ["loss"]), (validation, measured)):
        for name in names:
            entries = [entry for entry in history if name in entry]
            steps, values = [entry["step"] for entry in entries], [entry[name] for entry in entries]
            axes.plot(steps, values, marker="" if name == "loss" else "o", label=name.replace("_", " "))
        axes.set_xlabel("step")
        axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    stream = io.BytesIO()
    figure.savefig(stream, format="svg", metadata={"Date": None})
    return stream.getvalue()


def _text(flags: dict[str, Any], metrics: dict[str, float]) -> str:
    model, method, has_adapter = flags["model"], flags["method"], flags["lora_rank"] > 0
    rows = "\n".join(f"| {name.replace('_', ' ')} | {value:.4f} |" for name, value in metrics.items())
    shown = {name: value for name, value in flags.items() if value is not None and name not in _NOT_SHOWN}
    how = "LoRA, with the rows of `<option>` and `</option>`" if has_adapter else "all weights"
    parts = (
        ("- `adapter/`: the adapter; plain PEFT loads it on the base model with its two added tokens, which\n"
         "  `artsel_ray.models.load.load(BASE).base` is, for the `base_model_name_or_path` of its config.\n"
         if has_adapter else "- `merged/`: the complete model; plain transformers and vLLM load it.\n")
        + "- `spec.json`: the prompt that it was trained for; `jobs/score.py --model` obeys it."
    )  # fmt: skip
    return f"""---
base_model: {json.dumps(model)}
library_name: {"peft" if has_adapter else "transformers"}
tags: [artsel-ray, {method}]
---

# {model} chooses artwork ({method.upper()})

Post-trained by artsel-ray to predict which artwork of a title a user would engage with. Trained: {how}.

| at the end | value |
|---|---|
{rows}

{_about(metrics)}

![loss and validation over steps]({_PLOT})

{parts}

```json
{json.dumps(shown, indent=2)}
```
"""


def _about(metrics: dict[str, float]) -> str:
    if _LOGGED not in metrics:
        return "Accuracy and IPS (uniform propensities) are of validation examples, chosen by the decoding that scores."
    return (
        "All but the loss are of validation examples, chosen by the decoding that scores. **SNIPS with the logged\n"
        f"propensities is the headline: {metrics[_LOGGED]:.4f}, where a random draw has "
        f"{metrics[f'{_LOGGED}_random']:.4f}.** `validation ips` takes the\npropensities as uniform: it is the paper's "
        "metric, and rewards repeating a log that is not uniform."
    )
