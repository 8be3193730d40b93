"""The training job: in this process or on Ray Train's workers, and what is published at the end."""

import dataclasses
import os
import shutil
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any, TypeVar

import pyarrow.fs as pafs
import ray
import torch
from ray.train import Checkpoint, CheckpointConfig, RunConfig, ScalingConfig, UserCallback
from ray.train.huggingface.transformers import RayTrainReportCallback
from ray.train.torch import TorchConfig
from ray.util.queue import Queue
from safetensors import SafetensorError
from transformers.integrations import is_mlflow_available

from artsel_ray import storage
from artsel_ray.config import LIMIT_FLAGS, PromptSettings, resolved, unused_weighting
from artsel_ray.errors import InputError
from artsel_ray.evaluation import held_out
from artsel_ray.models import adapter
from artsel_ray.models.files import read_object
from artsel_ray.models.load import ADAPTER, MERGED, Model, check_base, load
from artsel_ray.models.spec import resolve_prompt_spec
from artsel_ray.models.weights import copy_processor, model_length, prompt_tokenizer
from artsel_ray.prompts.tokenizer import PromptTokenizer
from artsel_ray.report.model_card import write_card
from artsel_ray.runtime.ray_cluster import gpus_per_worker, own_queue, start_ray, wait_for_resources
from artsel_ray.runtime.ray_train import Trainer, cause, restarts
from artsel_ray.runtime.run import CONFIG, FRAME, Run, begin, identity_length
from artsel_ray.train.callbacks import is_complete, newest_complete
from artsel_ray.train.history import final_metrics, nothing_learned
from artsel_ray.train.loop import fit, upload
from artsel_ray.train.reading import check_columns
from artsel_ray.train.settings import TrainConfig
from artsel_ray.train.trainers import MLFLOW, SCHEDULE
from artsel_ray.train.training import Fitted, Training
from artsel_ray.train.validation import VALIDATION

CHECKPOINTS = "checkpoints"  # folder of a training's output
_SCHEDULE = "schedule"  # of learning rates, in identities
_MAX_FAILURES = 3
ConfigT = TypeVar("ConfigT", bound=TrainConfig)
# Flags that do not change the result: where it goes, where it runs, and which examples are refused.
NOT_IDENTITY = ("output", "image_root", "workers", "gpus_per_worker", "export_merged", *LIMIT_FLAGS)


def train(config: TrainConfig, callbacks: list[UserCallback] | None = None) -> dict[str, float]:
    """Trains, resuming what an earlier run has left undone, and returns the last value of each of `METRICS`.

    Raises:
        InputError: for a wrong model or examples, another run's output, or a training that failed.
    """
    config = as_it_began(config)
    started, flags = time.monotonic(), resolved(config)
    # With --fsdp the option tokens' rows are not trained. Earlier runs without it do not have it in their identity.
    run = begin_training(flags, NOT_IDENTITY if config.optimization.fsdp else (*NOT_IDENTITY, "fsdp"))
    published = storage.read_manifest(config.output)
    if published is not None:
        print(f"{config.output} is complete already", flush=True)
        if config.export_merged and config.optimization.lora_rank:
            export_merged(config.output)
        return published["metrics"]
    training = training_of(config)
    fitted = _fit_on_ray(training, callbacks or []) if config.optimization.workers else _fit_here(training)
    if fitted.error:
        raise InputError(fitted.error)
    metrics = final_metrics(fitted.history)
    if stalled := nothing_learned(config.method, fitted.history):
        print(stalled, flush=True)
        fitted.notices.append(stalled)
    counts = {"examples_too_long": fitted.too_long, "seconds": round(time.monotonic() - started, 1)}
    summary = {**metrics, **counts, "notices": fitted.notices, "history": fitted.history}
    storage.write_json(storage.join(config.output, "summary.json"), summary)
    write_card(config.output, flags, metrics, fitted.history)
    if config.export_merged and config.optimization.lora_rank:
        export_merged(config.output)
    run.publish({"metrics": metrics})
    shown = f"loss {metrics['loss']:.4f}, validation {held_out.shown_metrics(metrics, VALIDATION)}"
    print(f"train: {shown}; {config.output}", flush=True)
    return metrics


def export_merged(output: str) -> None:
    """Writes merged/ into a training's output, unless its number format would lose more than 5 % of LoRA's change.

    The loss is printed, and kept in summary.json as `merge_loss`. With that, a training is not merged again.
    """
    summary = storage.join(output, "summary.json")
    if "merge_loss" in storage.read_json(summary):
        return
    trained, to = load(output), storage.join(output, MERGED)
    assert trained.lora is not None
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        loss = adapter.merge(trained.base, trained.lora, folder)
        copy_processor(trained.base, folder)
        number_format = read_object(folder / "config.json").get("dtype")
        lost = f"merging into {number_format} loses {loss:.2%} of what LoRA has changed"
        if loss <= adapter.MAX_MERGE_LOSS:
            upload(folder, to)
            print(f"{lost}; {to}", flush=True)
        else:
            print(f"warning: {lost}, so that {MERGED}/ is not written; serve {ADAPTER}/ on its base", flush=True)
    storage.write_json(summary, {**storage.read_json(summary), "merge_loss": loss})


def training_of(config: TrainConfig) -> Training:
    """Returns what the workers get of the flags."""
    return Training(**{field.name: getattr(config, field.name) for field in dataclasses.fields(Training)})


def as_it_began(config: ConfigT) -> ConfigT:
    """Returns the flags of a training or sweep, without groups if an earlier version, which had none, began it."""
    begun = _begun(config.output)
    if begun is None or "group_size" in begun:
        return config
    return dataclasses.replace(config, optimization=dataclasses.replace(config.optimization, group_size=1))


def _begun(output: str) -> dict[str, Any] | None:
    """Returns the identity of the run that an output holds, None if it holds none."""
    path = storage.join(output, CONFIG)
    return storage.read_json(path).get("run", {}) if storage.exists(path) else None


def _without_effect(flags: dict[str, Any]) -> tuple[str, ...]:
    """Returns the flags that are off: runs of versions without them are the same runs."""
    off = {"group_size": 1, "negatives": "one", "prior": None, "prior_in_loss": True}
    return (*unused_weighting(flags), *(name for name, value in off.items() if flags[name] == value))


def begin_training(flags: dict[str, Any], not_identity: tuple[str, ...]) -> Run:
    """Claims the output of a training or sweep; flags in `not_identity` do not change the result.

    Raises:
        InputError: if examples, the model, or MLflow where it is asked for, are missing, or for another run's output.
    """
    if os.environ.get(MLFLOW) and not is_mlflow_available():
        raise InputError(f"{MLFLOW} is set and MLflow is not installed; pip install mlflow-skinny, or unset it")
    train_files, validation_files = (
        storage.list_files(storage.join(flags["examples"], split)) for split in ("train", "validation")
    )
    left_out = (*not_identity, *_without_effect(flags))
    identity = {name: value for name, value in flags.items() if name not in left_out}
    model = load(flags["model"])
    if flags["lora_rank"]:  # before it trains: its adapter will name the base
        check_base(model.lora_base or flags["model"], flags["output"], is_own=True)
    # On the driver: what the workers print about the same columns is not shown.
    check_columns(train_files, with_rationales=flags["reason"] or (model.spec is not None and model.spec.reason))
    check_columns(validation_files, with_rationales=False)
    length = identity_length(flags["max_model_length"], model_length(model.base))
    identity |= {"model": model.model_id, "max_model_length": length}
    added = {
        "example_files": storage.describe([*train_files, *validation_files], flags["examples"]),
        FRAME: storage.fingerprint(_prompts(model, flags).frame()),
        _SCHEDULE: SCHEDULE,
    }
    begun = _begun(flags["output"])
    if flags["prior"]:
        splits = [storage.join(flags["prior"], split) for split in ("train", "validation")]
        identity["prior"] = [storage.describe_files(split) for split in splits]
    if begun is not None and _SCHEDULE not in begun and storage.read_manifest(flags["output"]) is None:
        known = "an earlier version, perhaps with other learning rates, began"
        print(f"warning: {known} {flags['output']}; give another --output to train all with these", flush=True)
    return begin(flags["output"], identity | added, flags, added)


def _prompts(model: Model, flags: dict[str, Any]) -> PromptTokenizer:
    settings = PromptSettings(**{field.name: flags[field.name] for field in dataclasses.fields(PromptSettings)})
    return prompt_tokenizer(model.base, resolve_prompt_spec(model.spec, settings, reason=flags["reason"] or None))


def _fit_here(training: Training) -> Fitted:
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


def _fit_on_ray(training: Training, callbacks: list[UserCallback]) -> Fitted:
    start_ray()
    workers, gpus = training.optimization.workers, gpus_per_worker(training.optimization.gpus_per_worker)
    if not callbacks:  # a trial of a sweep waits for what other trials hold
        wait_for_resources(f"{workers} worker(s)", {"CPU": 1, "GPU": gpus}, workers, at_least=workers)
    where = "a GPU each" if gpus else "CPUs"
    print(f"starting {workers} worker(s) on {where}, which takes half a minute", flush=True)
    events, fitted = own_queue(), list[Fitted]()
    listener = Thread(target=_listen, args=(events, fitted), daemon=True)
    listener.start()
    try:
        _torch_trainer(training, gpus > 0, events, callbacks).fit()
    except ray.train.TrainingFailedError as error:
        raise training_failed(cause(error, workers)) from None
    finally:
        events.put(None)
        listener.join()
        events.shutdown()
    return fitted[-1]


def training_failed(cause: str) -> InputError:
    """Returns the error of a training that failed, with its cause's last line."""
    last = cause.strip().splitlines()[-1]
    return InputError(f"the training failed: {last}; the same command resumes from its last checkpoint")


def share_cpus() -> None:
    """Makes the workers on this machine use all of its CPUs together: Ray gives one to each."""
    machine = len(os.sched_getaffinity(0))
    torch.set_num_threads(max(1, machine // ray.train.get_context().get_local_world_size()))


def _torch_trainer(training: Training, on_gpu: bool, events: Queue, callbacks: list[UserCallback]) -> Trainer:
    if training.optimization.fsdp and not on_gpu:
        raise InputError("--fsdp shards a model over GPUs, and the workers have none; leave it out")
    fs, path = storage.filesystem(storage.join(training.output, CHECKPOINTS))
    return Trainer(
        _worker,
        # With callbacks this is a trial of a sweep, which has other trials next to it.
        train_loop_config={"training": training, "events": events, "is_alone": not callbacks},
        scaling_config=ScalingConfig(num_workers=training.optimization.workers, use_gpu=on_gpu),
        torch_config=TorchConfig(backend="nccl" if on_gpu else "gloo"),
        run_config=RunConfig(
            name="train", storage_path=path, storage_filesystem=fs,
            failure_config=restarts(_MAX_FAILURES), checkpoint_config=CheckpointConfig(num_to_keep=2),
            callbacks=callbacks,  # type: ignore[arg-type]  # annotated with the API before Ray Train V2
        ),
    )  # fmt: skip


def _listen(events: Queue, fitted: list[Fitted]) -> None:
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
