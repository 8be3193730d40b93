"""The training job: in this process or on Ray Train, and what is published at the end."""

import os
import shutil
import time
from pathlib import Path

import pyarrow.fs as pafs
import torch
from ray.train import UserCallback
from safetensors import SafetensorError
from transformers.integrations import is_mlflow_available

from artsel_ray import storage
from artsel_ray.config import resolved
from artsel_ray.errors import InputError
from artsel_ray.models.load import load
from artsel_ray.runtime.run import begin
from artsel_ray.train.checkpoints import is_complete, newest_complete
from artsel_ray.train.loop import Fitted, fit
from artsel_ray.train.model_card import ModelCard, write_card
from artsel_ray.train.ray_train import CHECKPOINTS, fit_on_ray, training_failed
from artsel_ray.train.settings import TrainConfig
from artsel_ray.train.trainers import MLFLOW

METRICS = ("loss", "validation_accuracy", "validation_ips")
"""What a training is judged by."""

# Flags that do not change the result: where it goes and where it runs.
_NOT_IDENTITY = ("output", "workers", "fsdp")


def train(config: TrainConfig, callbacks: list[UserCallback] | None = None) -> dict[str, float]:
    """Trains, resuming what an earlier run has left undone.

    Args:
        callbacks: of Ray Train's run, such as the one that reports to Ray Tune.

    Returns:
        The last `loss`, `validation_accuracy` and `validation_ips`.

    Raises:
        InputError: for a wrong model or examples, another run's output, or a training that failed.
    """
    check_inputs(config.examples)
    started = time.monotonic()
    flags = resolved(config)
    identity = {name: value for name, value in flags.items() if name not in _NOT_IDENTITY}
    run = begin(config.output, {**identity, "model": load(config.model).model_id}, flags)
    published = storage.read_manifest(config.output)
    if published is not None:
        print(f"{config.output} is complete already", flush=True)
        return published["metrics"]
    fitted = _fit_here(config) if config.workers == 0 else fit_on_ray(config, callbacks or [])
    if fitted.error:
        raise InputError(fitted.error)
    metrics = final_metrics(fitted.history)
    summary = {**metrics, "examples_too_long": fitted.too_long, "seconds": round(time.monotonic() - started, 1)}
    storage.write_json(storage.join(config.output, "summary.json"), {**summary, "history": fitted.history})
    card = ModelCard(config.model, config.method, config.lora_rank > 0, flags, metrics, fitted.history)
    write_card(config.output, card)
    run.publish({"metrics": metrics})
    shown = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in metrics.items())
    print(f"train: {shown}; {config.output}", flush=True)
    return metrics


def check_inputs(examples: str) -> None:
    """Checks what the flags alone do not show: that examples are there, and MLflow where it is asked for.

    Raises:
        InputError: if something is missing.
    """
    if os.environ.get(MLFLOW) and not is_mlflow_available():
        raise InputError(f"{MLFLOW} is set and MLflow is not installed; pip install mlflow-skinny, or unset it")
    for split in ("train", "validation"):
        storage.list_files(storage.join(examples, split))


def final_metrics(history: list[dict[str, float]]) -> dict[str, float]:
    """Returns the last value of each metric that a training is judged by."""
    return {name: [entry[name] for entry in history if name in entry][-1] for name in METRICS}


def _fit_here(config: TrainConfig) -> Fitted:
    """Trains in this process, from the newest complete checkpoint in the output."""
    if storage.is_uri(config.output):
        raise InputError(
            f"--output is {config.output}; with --workers 0, which keeps its checkpoints there, it must be a local "
            "folder"
        )
    folder = Path(config.output, CHECKPOINTS)
    folder.mkdir(parents=True, exist_ok=True)
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)
    local = pafs.LocalFileSystem()
    checkpoint = newest_complete(local, map(str, found), print)
    for path in found:  # a step's folder is written to again, and must hold nothing of an earlier attempt
        if not is_complete(local, str(path)):
            shutil.rmtree(path)
    try:
        return fit(config, str(folder), checkpoint, [], print)
    except (OSError, SafetensorError, torch.OutOfMemoryError) as error:  # a full disk, above all
        raise training_failed(f"{type(error).__name__}: {error}") from error
