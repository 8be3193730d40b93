"""The training job: in this process or on Ray Train, and what is published at the end."""

import dataclasses
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
import torch
from ray.train import UserCallback
from safetensors import SafetensorError
from transformers.integrations import is_mlflow_available

from artsel_ray import storage
from artsel_ray.config import resolved
from artsel_ray.errors import InputError
from artsel_ray.models.load import load
from artsel_ray.runtime.run import Run, begin
from artsel_ray.train.checkpoints import is_complete, newest_complete
from artsel_ray.train.loop import Fitted, fit
from artsel_ray.train.model_card import write_card
from artsel_ray.train.ray_train import CHECKPOINTS, fit_on_ray, training_failed
from artsel_ray.train.settings import TrainConfig
from artsel_ray.train.trainers import MLFLOW, Training

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
    started, flags = time.monotonic(), resolved(config)
    run = begin_training(flags, _NOT_IDENTITY)
    published = storage.read_manifest(config.output)
    if published is not None:
        print(f"{config.output} is complete already", flush=True)
        return published["metrics"]
    training = training_of(config)
    fitted = fit_on_ray(training, callbacks or []) if config.optimization.workers else _fit_here(training)
    if fitted.error:
        raise InputError(fitted.error)
    metrics = final_metrics(fitted.history)
    summary = {**metrics, "examples_too_long": fitted.too_long, "seconds": round(time.monotonic() - started, 1)}
    storage.write_json(storage.join(config.output, "summary.json"), {**summary, "history": fitted.history})
    write_card(config.output, flags, metrics, fitted.history)
    run.publish({"metrics": metrics})
    shown = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in metrics.items())
    print(f"train: {shown}; {config.output}", flush=True)
    return metrics


def training_of(config: TrainConfig) -> Training:
    """Returns what the workers get of the flags."""
    return Training(**{field.name: getattr(config, field.name) for field in dataclasses.fields(Training)})


def begin_training(flags: dict[str, Any], not_identity: tuple[str, ...]) -> Run:
    """Claims the output of a training or sweep, after checks of what its flags alone do not show.

    Args:
        not_identity: names of the flags that do not change the result.

    Raises:
        InputError: if examples, the model, or MLflow where it is asked for, are missing, or for another run's output.
    """
    if os.environ.get(MLFLOW) and not is_mlflow_available():
        raise InputError(f"{MLFLOW} is set and MLflow is not installed; pip install mlflow-skinny, or unset it")
    for split in ("train", "validation"):
        storage.list_files(storage.join(flags["examples"], split))
    identity = {name: value for name, value in flags.items() if name not in not_identity}
    return begin(flags["output"], {**identity, "model": load(flags["model"]).model_id}, flags)


def final_metrics(history: list[dict[str, float]]) -> dict[str, float]:
    """Returns the last value of each metric that a training is judged by."""
    return {name: [entry[name] for entry in history if name in entry][-1] for name in METRICS}


def _fit_here(training: Training) -> Fitted:
    """Trains in this process, from the newest complete checkpoint in the output."""
    if storage.is_uri(training.output):
        raise InputError(
            f"--output is {training.output}; with --workers 0, which keeps its checkpoints there, it must be a local "
            "folder"
        )
    folder = Path(training.output, CHECKPOINTS)
    folder.mkdir(parents=True, exist_ok=True)
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)
    local = pafs.LocalFileSystem()
    checkpoint = newest_complete(local, map(str, found), print)
    for path in found:  # a step's folder is written to again, and must hold nothing of an earlier attempt
        if not is_complete(local, str(path)):
            shutil.rmtree(path)
    try:
        return fit(training, str(folder), checkpoint, [], print)
    except (OSError, SafetensorError, torch.OutOfMemoryError) as error:  # a full disk, above all
        raise training_failed(f"{type(error).__name__}: {error}") from error
