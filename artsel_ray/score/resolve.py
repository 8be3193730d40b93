"""What a run's answers depend on beside the data: model, prompt, decoding and limits."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from artsel_ray import storage
from artsel_ray.decoding import label_prior as labels
from artsel_ray.errors import InputError
from artsel_ray.models.load import Model, load
from artsel_ray.prompts.spec import PromptSpec
from artsel_ray.score.settings import ScoreConfig


@dataclass(frozen=True)
class ScoringSettings:
    """What rendering and decoding depend on beside the data."""

    model: str
    model_id: str
    spec: PromptSpec
    max_model_length: int
    decoding: str
    label_prior: tuple[float, ...] = ()
    """What the model thinks of each option's number, to be divided out; nothing where empty."""


def check_limits(config: object, limits: dict[str, tuple[float, float]]) -> None:
    """Refuses numbers of a config outside of the least and most that it may have, each included.

    Raises:
        InputError: naming the flag.
    """
    for name, (least, most) in limits.items():
        value = getattr(config, name)
        if value is not None and not least <= value <= most:
            raise InputError(f"--{name.replace('_', '-')} is {value}, expected a number from {least:,} to {most:,}")


def check(config: ScoreConfig) -> None:
    """Refuses flags that cannot be.

    Raises:
        InputError: naming the flag.
    """
    limits: dict[str, tuple[float, float]] = {
        "engines": (1, 10**6), "shard_pairs": (1, 10**9), "max_model_length": (64, 10**9), "max_reject_rate": (0, 1),
        "history_length": (0, 10**6), "gpus_per_engine": (0, 10**3), "tensor_parallel": (1, 10**3),
        "permutation": (0, 10**9), "engine_memory": (0.1, 10**6),
        "tokens_per_second": (1e-3, 1e12), "epsilon": (0, 1), "temperature": (1e-6, 1e6),
    }  # fmt: skip
    check_limits(config, limits)
    if config.explore != "none" and config.decoding not in ("rank", "labels"):
        raise InputError(f"--explore {config.explore} needs every candidate's probability; add --decoding rank")
    if config.label_prior and config.decoding != "labels":
        raise InputError(
            f"--label-prior is of the options' numbers, --decoding is {config.decoding}; add --decoding labels"
        )


def resolve(config: ScoreConfig) -> ScoringSettings:
    """Makes the model ready on this machine and settles how its prompts read."""
    from artsel_ray.models.weights import prompt_tokenizer

    model = load(config.model)
    length = min(config.max_model_length, model_length(model))
    model_id = "null" if config.engine == "null" else model.model_id
    spec = prompt_spec(config, model)
    if spec.assets == "image":
        prompt_tokenizer(model.path, spec)  # refuses a model that sees no pictures, before anything is begun
    prior = read_label_prior(config.label_prior) if config.label_prior else ()
    return ScoringSettings(config.model, model_id, spec, length, config.decoding, prior)


def read_label_prior(uris: Sequence[str]) -> tuple[float, ...]:
    """Returns the prior of the options' numbers out of all predictions below these URIs.

    Raises:
        InputError: if a run is not over, or is no run of `--decoding labels`.
    """
    distributions = []
    for uri in uris:
        manifest = storage.read_manifest(uri)
        if manifest is None or manifest.get("decoding") != "labels":
            raise InputError(f"--label-prior {uri} is no finished run of jobs/score.py --decoding labels")
        for part in manifest["parts"]:
            candidates = storage.read_table(storage.join(uri, part), "predictions")["candidates"]
            distributions += [
                np.array([each["probability"] for each in listed]) for listed in candidates.to_pylist() if listed
            ]
    if not distributions:
        raise InputError(f"--label-prior {uris[0]}: no prediction there")
    return tuple(labels.prior(distributions).tolist())


def prompt_spec(config: ScoreConfig, model: Model) -> PromptSpec:
    """Returns the prompt that the model was trained for, or for a model without one what the flags say.

    Raises:
        InputError: if flags ask for another prompt than the model's, or `labels` of a model that answers in text.
    """
    numbers = config.decoding == "labels" or config.assets == "image"
    flags: dict[str, Any] = {
        "layout": None if config.layout == "auto" else config.layout,
        "output": config.output_format or ("number" if numbers and not model.spec else None),
        "history_length": config.history_length,
        "asset_kind": config.asset_kind,
        "assets": config.assets,
    }
    given = {name: value for name, value in flags.items() if value is not None}
    if model.spec is None:
        spec = PromptSpec(**given)
    else:
        spec = model.spec
        wrong = [f"{name} {value}" for name, value in given.items() if getattr(spec, name) != value]
        if wrong:
            raise InputError(f"{config.model} was trained for another prompt than {', '.join(wrong)}; leave these out")
    spec.check()
    if config.layout == "auto" and spec.assets == "image":
        raise InputError("--layout auto: with pictures the title comes first; leave it out")
    if config.layout == "auto" and model.spec is not None:
        raise InputError(f"--layout auto: {config.model} was trained for {spec.layout} alone; leave it out")
    if config.decoding == "labels" and spec.output != "number":
        raise InputError("--decoding labels needs a model that answers with numbers; take rank")
    return spec


def model_length(model: Model) -> int:
    """Returns the most tokens that a model takes."""
    settings = json.loads((model.path / "config.json").read_text())
    return int(settings.get("text_config", settings)["max_position_embeddings"])
