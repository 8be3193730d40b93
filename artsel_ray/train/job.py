"""Training on Ray Train: one worker, several, several machines; or in this process."""

import dataclasses
import os
import shutil
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

import pyarrow.fs as pafs
import ray
import torch
from ray.train import Checkpoint, CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from ray.util.queue import Queue
from safetensors import SafetensorError
from transformers.integrations import is_mlflow_available

from artsel_ray import storage
from artsel_ray.config import resolved
from artsel_ray.errors import InputError
from artsel_ray.models.load import load
from artsel_ray.runtime.ray_cluster import own_queue, start_ray
from artsel_ray.runtime.run import begin
from artsel_ray.train.checkpoints import is_complete, newest_complete
from artsel_ray.train.model_card import write_card
from artsel_ray.train.settings import TrainConfig
from artsel_ray.train.trainers import MLFLOW

_CHECKPOINTS = "checkpoints"
_MAX_FAILURES = 3


def train(config: TrainConfig, callbacks: list[Any] | None = None) -> dict[str, float]:
    """Trains, resuming what an earlier run has left undone.

    Args:
        callbacks: of Ray Train's run, such as the one that reports to Ray Tune.

    Returns:
        The last `loss`, `validation_accuracy` and `validation_ips`.

    Raises:
        InputError: for wrong flags, model or examples, another run's output, or a training that failed.
    """
    check(config)
    started = time.monotonic()
    run = begin(config.output, _run(config), resolved(config))
    known = storage.read_manifest(config.output)
    if known is not None:
        print(f"{config.output} is complete already", flush=True)
        return known["metrics"]
    fitted = _fit_here(config) if config.workers == 0 else _fit_on_ray(config, callbacks or [])
    if fitted["error"]:
        raise InputError(fitted["error"])
    metrics = final_metrics(fitted["history"])
    summary = {**metrics, "examples_too_long": fitted["too_long"], "seconds": round(time.monotonic() - started, 1)}
    storage.write_json(storage.join(config.output, "summary.json"), {**summary, "history": fitted["history"]})
    write_card(config, metrics, fitted["history"])
    run.publish({"metrics": metrics})
    shown = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in metrics.items())
    print(f"train: {shown}; {config.output}", flush=True)
    return metrics


def check(config: TrainConfig) -> None:
    """Finds flags that cannot be.

    Raises:
        InputError: naming the flag.
    """
    least = {"learning_rate": 1e-12, "epochs": 1e-6, "batch_size": 1, "micro_batch": 1, "checkpoint_steps": 1}
    least |= {"validation_size": 1, "lora_rank": 0, "workers": 0, "beta": 1e-6, "max_steps": 1, "max_model_length": 64}
    for name, bound in least.items():
        value = getattr(config, name)
        if value is not None and not value >= bound:
            raise InputError(f"--{name.replace('_', '-')} is {value}, expected {bound:g} or more")
    at_once = config.micro_batch * max(config.workers, 1)
    if config.batch_size % at_once:
        raise InputError(f"--batch-size {config.batch_size} is no multiple of --micro-batch times --workers, {at_once}")
    if config.fsdp and config.workers < 2:
        raise InputError(f"--fsdp shards a model over the GPUs of several workers, and --workers is {config.workers}")
    if os.environ.get(MLFLOW) and not is_mlflow_available():
        raise InputError(f"{MLFLOW} is set and MLflow is not installed; pip install mlflow-skinny, or unset it")
    for split in ("train", "validation"):
        storage.list_files(storage.join(config.examples, split))


def final_metrics(history: list[dict[str, float]]) -> dict[str, float]:
    """Returns the last value of each metric that a training is judged by."""
    names = ("loss", "validation_accuracy", "validation_ips")
    return {name: [entry[name] for entry in history if name in entry][-1] for name in names}


def _torch_trainer(config: TrainConfig, told: Queue, callbacks: list[Any]) -> TorchTrainer:
    on_gpu = ray.cluster_resources().get("GPU", 0) > 0
    if config.fsdp and not on_gpu:
        raise InputError("--fsdp shards a model over GPUs, and this cluster has none; leave it out")
    fs, path = storage.filesystem(storage.join(config.output, _CHECKPOINTS))
    return TorchTrainer(
        _worker,
        train_loop_config={"config": dataclasses.asdict(config), "told": told, "alone": not callbacks},
        scaling_config=ScalingConfig(num_workers=config.workers, use_gpu=on_gpu),
        torch_config=TorchConfig(backend="nccl" if on_gpu else "gloo"),
        run_config=RunConfig(
            name="train",
            storage_path=path,
            storage_filesystem=fs,
            failure_config=FailureConfig(max_failures=_MAX_FAILURES),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
            callbacks=callbacks,
        ),
    )


def _run(config: TrainConfig) -> dict[str, Any]:
    """Returns what decides the result: all flags but where it runs, and what they name."""
    flags = {name: value for name, value in resolved(config).items() if name not in ("output", "workers", "fsdp")}
    return {**flags, "model": load(config.model).model_id}


def _fit_on_ray(config: TrainConfig, callbacks: list[Any]) -> dict[str, Any]:
    start_ray()
    print(f"starting {config.workers} worker(s), which takes half a minute", flush=True)
    told, fitted = own_queue(), dict[str, Any]()
    listener = Thread(target=_listen, args=(told, fitted), daemon=True)
    listener.start()
    try:
        _torch_trainer(config, told, callbacks).fit()
    except ray.train.TrainingFailedError as error:
        raise _failure(str(error)) from None
    finally:
        told.put(None)
        listener.join()
        told.shutdown()
    return fitted


def _failure(cause: str) -> InputError:
    last = cause.strip().splitlines()[-1]
    return InputError(f"the training failed: {last}; the same command resumes from its last checkpoint")


def _listen(told: Queue, fitted: dict[str, Any]) -> None:
    """Prints the lines that the first worker tells, and takes what it says at the end."""
    for item in iter(told.get, None):
        if isinstance(item, dict):
            fitted.update(item)
        else:
            print(item, flush=True)


def share_cpus() -> None:
    """Lets the workers on this machine compute on all of its CPUs together: Ray gives one to each."""
    machine = len(os.sched_getaffinity(0))
    torch.set_num_threads(max(1, machine // ray.train.get_context().get_local_world_size()))


def _worker(settings: dict[str, Any]) -> None:
    """Is what each of Ray Train's workers runs."""
    from ray.train.huggingface.transformers import RayTrainReportCallback

    from artsel_ray.train.loop import Fitted, fit

    config, told = TrainConfig(**settings["config"]), settings["told"]
    if settings["alone"]:  # and no trial of a sweep beside others
        share_cpus()
    try:
        checkpoint = _complete_checkpoint(
            told.put if ray.train.get_context().get_world_rank() == 0 else lambda line: None
        )
        # Each worker has a folder of its own; Ray puts what they write into one checkpoint.
        with TemporaryDirectory() as scratch, checkpoint.as_directory() if checkpoint else nullcontext() as folder:
            resumed = str(Path(folder, "checkpoint")) if folder else None
            fitted = fit(config, scratch, resumed, [RayTrainReportCallback()], told.put)
    except InputError as error:  # Ray would try again, and make a traceback of it
        fitted = Fitted(error=str(error))
    if ray.train.get_context().get_world_rank() == 0:
        told.put(dataclasses.asdict(fitted))


def _complete_checkpoint(say: Callable[[str], None]) -> Checkpoint | None:
    """Returns the checkpoint that Ray goes on from, or where it is not whole the newest one before it that is."""
    last = ray.train.get_checkpoint()
    if last is None:
        return None
    fs, (folder, _, name) = last.filesystem, last.path.rpartition("/")
    entries = fs.get_file_info(pafs.FileSelector(folder))
    # Ray names them by the time they were made.
    names = {name, *(entry.base_name for entry in entries if entry.base_name.startswith("checkpoint_"))}
    earlier = sorted((each for each in names if each <= name), reverse=True)
    path = newest_complete(fs, [f"{folder}/{each}/checkpoint" for each in earlier], say)
    return Checkpoint(path.removesuffix("/checkpoint"), fs) if path else None


def _fit_here(config: TrainConfig) -> dict[str, Any]:
    from artsel_ray.train.loop import fit

    if storage.is_uri(config.output):
        raise InputError("--workers 0 keeps its checkpoints in --output, which must then be a local folder")
    folder = Path(config.output, _CHECKPOINTS)
    folder.mkdir(parents=True, exist_ok=True)
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)
    local = pafs.LocalFileSystem()
    checkpoint = newest_complete(local, map(str, found), print)
    for path in found:  # a step's folder is written to again, and must hold nothing of an earlier attempt
        if not is_complete(local, str(path)):
            shutil.rmtree(path)
    try:
        return dataclasses.asdict(fit(config, str(folder), checkpoint, [], print))
    except (OSError, SafetensorError, torch.OutOfMemoryError) as error:  # a full disk, above all
        raise _failure(f"{type(error).__name__}: {error}") from error
