"""Trials on Ray Train's workers: of the network itself, and of the networks of its folds."""

from dataclasses import dataclass
from threading import Thread
from typing import Any

import ray
import torch
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchConfig
from safetensors.torch import load, save

from artsel_ray import storage
from artsel_ray.baseline.trials import Fitted, Recipe, fit_fusion, run_trials
from artsel_ray.errors import InputError
from artsel_ray.network.encoding import NetworkInputs
from artsel_ray.network.network_files import AnyNetwork, make_network
from artsel_ray.network.towers import Towers
from artsel_ray.runtime.ray_cluster import own_queue, start_ray, wait_for_resources
from artsel_ray.runtime.ray_train import Trainer, cause, restarts

# A run takes minutes: after a lost worker it starts again from the beginning.
_MAX_RESTARTS = 2


@dataclass(frozen=True)
class Task:
    """Examples to train on, and how: a recipe for each part of the network."""

    train: NetworkInputs
    validation: NetworkInputs
    recipes: list[Recipe]


def fit(work: str, workers: int, tasks: list[Task]) -> list[list[Fitted]]:
    """Returns, for each task, each recipe's result.

    Raises:
        InputError: if a worker fails again and again, or no trial of a recipe has a finite loss.
    """
    start_ray()
    wait_for_resources(f"{workers} worker(s)", {"CPU": 1}, workers, at_least=workers)
    print(f"starting {workers} worker(s) on CPUs, which takes half a minute", flush=True)
    lines = own_queue()
    printer = Thread(target=lambda: [print(line, flush=True) for line in iter(lines.get, None)], daemon=True)
    printer.start()
    fs, path = storage.filesystem(work)
    trainer = Trainer(
        _worker,
        # Put once: workers on one machine share the pages.
        train_loop_config={"tasks": ray.put(tasks), "lines": lines},
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=False, resources_per_worker={"CPU": 1}),
        torch_config=TorchConfig(backend="gloo"),
        run_config=RunConfig(
            name="baseline", storage_path=path, storage_filesystem=fs, failure_config=restarts(_MAX_RESTARTS)
        ),
    )
    try:
        result: Any = trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise InputError(f"the training failed: {cause(error, workers)}") from None
    finally:
        lines.put(None)
        printer.join()
        lines.shutdown()
        storage.delete(work)
    fitted = [
        [Fitted(load(weights), best, trials) for weights, best, trials in of_task] for of_task in result.return_value
    ]
    if not all(each.best.epoch for of_task in fitted for each in of_task):
        raise InputError("no trial's loss was a finite number; give smaller --learning-rates")
    return fitted


def _worker(settings: dict[str, Any]) -> Any:
    """Runs on each of Ray Train's workers; returns each recipe's best weights as safetensors, their trial, and all."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    is_first = ray.train.get_context().get_world_rank() == 0
    log = settings["lines"].put if is_first else lambda line: None
    tasks: list[Task] = ray.get(settings["tasks"])
    return [
        [(save(weights), best, trials) for weights, best, trials in
         (run_trials(task.train, task.validation, recipe, log) for recipe in task.recipes)]
        for task in tasks
    ]  # fmt: skip


def network_of(task: Task, fitted: list[Fitted]) -> AnyNetwork:
    """Returns the network of the best weights; with an encoder both networks' sum, weighted on validation."""
    words = task.recipes[0]
    network = make_network(words.sizes)
    if isinstance(network, Towers):
        network.load_state_dict(fitted[0].weights)
        return network
    for part, found in zip(network.networks, fitted, strict=True):
        part.load_state_dict(found.weights)
    fit_fusion(network, task.validation, words.weights(task.validation))
    return network
