"""Training on Ray Train: one worker, several, several machines."""

import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

import pyarrow.fs as pafs
import ray
import torch
from ray.train import Checkpoint, CheckpointConfig, FailureConfig, RunConfig, ScalingConfig, UserCallback
from ray.train.huggingface.transformers import RayTrainReportCallback
from ray.train.torch import TorchConfig, TorchTrainer
from ray.util.queue import Queue

from artsel_ray import storage
from artsel_ray.errors import InputError
from artsel_ray.runtime.ray_cluster import own_queue, start_ray
from artsel_ray.train.checkpoints import newest_complete
from artsel_ray.train.loop import Fitted, fit
from artsel_ray.train.trainers import Training

CHECKPOINTS = "checkpoints"
"""Folder of a training's output."""
_MAX_FAILURES = 3


def fit_on_ray(training: Training, callbacks: list[UserCallback]) -> Fitted:
    """Trains on the cluster's workers, from the newest complete checkpoint in the output.

    Raises:
        InputError: if the training failed, or the cluster has no GPUs to shard over.
    """
    start_ray()
    print(f"starting {training.optimization.workers} worker(s), which takes half a minute", flush=True)
    events, fitted = own_queue(), list[Fitted]()
    listener = Thread(target=_listen, args=(events, fitted), daemon=True)
    listener.start()
    try:
        _torch_trainer(training, events, callbacks).fit()
    except ray.train.TrainingFailedError as error:
        raise training_failed(str(error)) from None
    finally:
        events.put(None)
        listener.join()
        events.shutdown()
    return fitted[-1]


def training_failed(cause: str) -> InputError:
    """Returns the error of a training that failed, in one line."""
    last = cause.strip().splitlines()[-1]
    return InputError(f"the training failed: {last}; the same command resumes from its last checkpoint")


def share_cpus() -> None:
    """Makes the workers on this machine use all of its CPUs together: Ray gives one to each."""
    machine = len(os.sched_getaffinity(0))
    torch.set_num_threads(max(1, machine // ray.train.get_context().get_local_world_size()))


def _torch_trainer(training: Training, events: Queue, callbacks: list[UserCallback]) -> TorchTrainer:
    on_gpu = ray.cluster_resources().get("GPU", 0) > 0
    if training.optimization.fsdp and not on_gpu:
        raise InputError("--fsdp shards a model over GPUs, and this cluster has none; leave it out")
    fs, path = storage.filesystem(storage.join(training.output, CHECKPOINTS))
    return TorchTrainer(
        _worker,
        # With callbacks this is a trial of a sweep, which has other trials next to it.
        train_loop_config={"training": training, "events": events, "is_alone": not callbacks},
        scaling_config=ScalingConfig(num_workers=training.optimization.workers, use_gpu=on_gpu),
        torch_config=TorchConfig(backend="nccl" if on_gpu else "gloo"),
        run_config=RunConfig(
            name="train",
            storage_path=path,
            storage_filesystem=fs,
            failure_config=FailureConfig(max_failures=_MAX_FAILURES),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
            callbacks=callbacks,  # type: ignore[arg-type]  # annotated with the API before Ray Train V2
        ),
    )


def _listen(events: Queue, fitted: list[Fitted]) -> None:
    """Prints the first worker's lines, and keeps its result."""
    for event in iter(events.get, None):
        if isinstance(event, Fitted):
            fitted.append(event)
        else:
            print(event, flush=True)


def _worker(settings: dict[str, Any]) -> None:
    events = settings["events"]
    is_first = ray.train.get_context().get_world_rank() == 0
    if settings["is_alone"]:
        share_cpus()
    try:
        checkpoint = _complete_checkpoint(events.put if is_first else lambda line: None)
        # Each worker has a folder of its own; Ray puts what they write into one checkpoint.
        with TemporaryDirectory() as scratch, checkpoint.as_directory() if checkpoint else nullcontext() as folder:
            resumed = str(Path(folder, "checkpoint")) if folder else None
            fitted = fit(settings["training"], scratch, resumed, [RayTrainReportCallback()], events.put)
    except InputError as error:  # Ray would retry it, and report a traceback
        fitted = Fitted(error=str(error))
    if is_first:
        events.put(fitted)


def _complete_checkpoint(report: Callable[[str], None]) -> Checkpoint | None:
    """Returns the checkpoint that Ray resumes from or, if it is incomplete, the newest complete one before it."""
    last = ray.train.get_checkpoint()
    if last is None:
        return None
    fs, (folder, _, name) = last.filesystem, last.path.rpartition("/")
    entries = fs.get_file_info(pafs.FileSelector(folder))
    # Ray names them by the time they were made.
    names = {name, *(entry.base_name for entry in entries if entry.base_name.startswith("checkpoint_"))}
    earlier = sorted((each for each in names if each <= name), reverse=True)
    path = newest_complete(fs, [f"{folder}/{each}/checkpoint" for each in earlier], report)
    return Checkpoint(path.removesuffix("/checkpoint"), fs) if path else None
