"""Trials of the baseline's network: each trained until its validation loss rises, the best by validation IPS.

Suffixes: n examples, b examples of a batch, m most candidates of an example.
"""

import copy
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, distributed
from torch.nn.parallel import DistributedDataParallel

from artsel_ray.baseline.encoding import NetworkInputs, make_batch
from artsel_ray.baseline.example_arrays import IntArray
from artsel_ray.baseline.towers import Sizes, Towers, Weights

_PREDICT_BATCH = 1_024


@dataclass(frozen=True)
class Recipe:
    """What all trials share; `batch_size` counts all workers' examples."""

    sizes: Sizes
    learning_rates: tuple[float, ...]
    weight_decays: tuple[float, ...]
    epochs: int
    batch_size: int
    seed: int


@dataclass(frozen=True)
class Trial:
    """One learning rate and weight decay, measured on validation at its best epoch, counted from 1.

    A trial whose loss was never finite has epoch 0, infinite loss and an IPS of 0.
    """

    learning_rate: float
    weight_decay: float
    epoch: int = 0
    loss: float = math.inf
    accuracy: float = 0.0
    ips: float = 0.0


def predict(network: Towers, inputs: NetworkInputs) -> Iterator[tuple[IntArray, Tensor]]:
    """Yields, batch by batch, the examples' indices and their `[B, M]` log-probabilities."""
    network.eval()
    for first in range(0, len(inputs.label_n), _PREDICT_BATCH):
        picked_b = np.arange(first, min(first + _PREDICT_BATCH, len(inputs.label_n)))
        with torch.no_grad():
            yield picked_b, network(make_batch(inputs, picked_b))


def measure(network: Towers, inputs: NetworkInputs) -> dict[str, float]:
    """Returns loss (mean negative log-probability of the engaged artwork), accuracy and IPS, `mean(hit · m)`."""
    loss = hits = ips = 0.0
    for picked_b, log_bm in predict(network, inputs):
        label_b = torch.from_numpy(inputs.label_n[picked_b])
        hit_b = (log_bm.argmax(dim=1) == label_b).numpy()
        loss += float(torch.nn.functional.nll_loss(log_bm.double(), label_b, reduction="sum"))
        hits += float(hit_b.sum())
        ips += float((hit_b * inputs.candidates_n[picked_b]).sum())
    count = len(inputs.label_n)
    return {"loss": loss / count, "accuracy": hits / count, "ips": ips / count}


def run_trials(
    train: NetworkInputs, validation: NetworkInputs, recipe: Recipe, log: Callable[[str], None]
) -> tuple[Weights, Trial, list[Trial]]:
    """Trains with every learning rate and weight decay; returns the best weights, their trial, and all trials.

    Best is the highest IPS on validation, then the lowest loss. In a process group of `torch.distributed` each
    worker takes its share of every batch, and all workers return the same.
    """
    best, weights, trials = Trial(0, 0, ips=-1), Weights(), []
    for learning_rate, weight_decay in itertools.product(recipe.learning_rates, recipe.weight_decays):
        found, trial = _run_trial(train, validation, recipe, Trial(learning_rate, weight_decay), log)
        trials.append(trial)
        if (trial.ips, -trial.loss) > (best.ips, -best.loss):
            best, weights = trial, found
    return weights, best, trials


def _run_trial(
    train: NetworkInputs, validation: NetworkInputs, recipe: Recipe, trial: Trial, log: Callable[[str], None]
) -> tuple[Weights, Trial]:
    rank, workers = (distributed.get_rank(), distributed.get_world_size()) if distributed.is_initialized() else (0, 1)
    torch.manual_seed(recipe.seed)
    network = Towers(recipe.sizes)
    # Averages gradients over the workers, as if one had seen the complete batch.
    trained = DistributedDataParallel(network) if workers > 1 else network
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=trial.learning_rate, weight_decay=trial.weight_decay, fused=True
    )
    torch.manual_seed(recipe.seed + rank)  # each worker hides other ids
    best, weights = trial, copy.deepcopy(network.state_dict())
    for epoch in range(1, recipe.epochs + 1):
        network.train()
        for picked_b in batches(len(train.label_n), recipe.batch_size, [recipe.seed, epoch]):
            batch = make_batch(train, picked_b[rank::workers])
            loss = torch.nn.functional.nll_loss(trained(batch), batch.label_b, reduction="sum")
            optimizer.zero_grad()
            (loss * workers / len(picked_b)).backward()
            optimizer.step()
        now = Trial(trial.learning_rate, trial.weight_decay, epoch, **measure(network, validation))
        rates = f"learning rate {now.learning_rate:g}, weight decay {now.weight_decay:g}"
        log(f"{rates}, epoch {epoch}: validation loss {now.loss:.4f}, IPS {now.ips:.3f}")
        if not now.loss < best.loss:  # also NaN
            break
        best, weights = now, copy.deepcopy(network.state_dict())
    return weights, best


def batches(examples: int, batch_size: int, seed: list[int]) -> list[IntArray]:
    """Returns the examples' indices in an order that depends on the seed, cut into batches; the last takes the rest."""
    order = np.random.default_rng(seed).permutation(examples)
    return np.array_split(order, np.arange(1, examples // batch_size) * batch_size)
