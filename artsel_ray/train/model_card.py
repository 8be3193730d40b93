"""The model card: what was trained, on what, how it went, with a picture of the loss."""

import io
import json
from typing import Any

from matplotlib.figure import Figure

from artsel_ray import storage
from artsel_ray.config import resolved
from artsel_ray.train.settings import TrainConfig

_PICTURE = "loss.svg"


def write_card(config: TrainConfig, metrics: dict[str, float], history: list[dict[str, float]]) -> None:
    """Writes README.md and the picture that it shows into a training's output.

    Args:
        metrics: the last value of each.
        history: what was logged, each with its `step`.
    """
    storage.write_object(storage.join(config.output, _PICTURE), _image_path(history))
    storage.write_object(storage.join(config.output, "README.md"), _card(config, metrics).encode())


def _image_path(history: list[dict[str, float]]) -> bytes:
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    loss, chosen = figure.subplots(1, 2)
    for axes, names in ((loss, ["loss"]), (chosen, ["validation_accuracy", "validation_ips"])):
        for name in names:
            entries = [entry for entry in history if name in entry]
            marker = "" if name == "loss" else "o"
            label = name.replace("_", " ")
            axes.plot(
                [entry["step"] for entry in entries], [entry[name] for entry in entries], marker=marker, label=label
            )
        axes.set_xlabel("step")
        axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    stream = io.BytesIO()
    figure.savefig(stream, format="svg", metadata={"Date": None})
    return stream.getvalue()


def _card(config: TrainConfig, metrics: dict[str, float]) -> str:
    rows = "\n".join(f"| {name.replace('_', ' ')} | {value:.4f} |" for name, value in metrics.items())
    places = ("examples", "output")  # of one machine: nothing that a reader of the card could use
    flags: dict[str, Any] = {
        name: value for name, value in resolved(config).items() if value is not None and name not in places
    }
    how = "LoRA, with the rows of `<option>` and `</option>`" if config.lora_rank else "all weights"
    parts = (
        "- `merged/`: the whole model; plain transformers and vLLM load it.\n"
        + ("- `adapter/`: the adapter; plain PEFT loads it on the base model with its two added tokens, which\n"
           f"  `artsel_ray.models.load.load({config.model!r}).path` is.\n" if config.lora_rank else "")
        + "- `spec.json`: the prompt that it was trained for; `jobs/score.py --model` obeys it."
    )  # fmt: skip
    return f"""---
base_model: {json.dumps(config.model)}
library_name: {"peft" if config.lora_rank else "transformers"}
tags: [artsel-ray, {config.method}]
---

# {config.model} chooses artwork ({config.method.upper()})

Post-trained by artsel-ray to predict which artwork of a title a user would engage with. Trained: {how}.

| at the end | value |
|---|---|
{rows}

Accuracy and IPS (uniform propensities) are of validation examples, chosen by the decoding that scores.

![loss and validation over steps]({_PICTURE})

{parts}

```json
{json.dumps(flags, indent=2)}
```
"""
