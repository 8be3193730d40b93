"""Trials of the baseline's network: each trained while its validation loss falls, the best by its choices there.

Suffixes: n examples, b examples of a batch, m most candidates of an example.
"""

import copy
import dataclasses
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar
from torch import Tensor, distributed
from torch.nn.parallel import DistributedDataParallel

from artsel_ray.evaluation.examples import Examples
from artsel_ray.evaluation.held_out import headline_of, held_out_metrics, held_out_sums, shown_metrics, training_weights
from artsel_ray.network.encoder_network import EncoderNetwork, Fusion, is_known, mixed
from artsel_ray.network.encoding import NetworkInputs, make_batch
from artsel_ray.network.example_arrays import IntArray
from artsel_ray.network.network_files import AnyNetwork, Weights
from artsel_ray.network.prediction import predict
from artsel_ray.network.towers import Network, Sizes, Towers

_BATCH = 1_024
# Epochs without a lower validation loss after which a trial stops.
_PATIENCE = 3
_MAX_SHARPNESS = 10.0


@dataclass(frozen=True)
class Recipe:
    """What all trials share.

    Attributes:
        batch_size: all workers' examples.
        max_weight: cap of the weights by propensity; without one, all examples weigh the same.
    """

    sizes: Sizes
    learning_rates: tuple[float, ...]
    weight_decays: tuple[float, ...]
    epochs: int
    batch_size: int
    seed: int
    max_weight: float | None = None
    network: Callable[[Sizes], Network] = Towers

    def weights(self, inputs: NetworkInputs) -> Tensor | None:
        """Returns the weight of each of a split's examples, or None if all weigh the same: [N]."""
        if self.max_weight is None:
            return None
        return torch.from_numpy(training_weights(inputs.candidates_n, inputs.propensity_n, self.max_weight))


def encoder_recipe(words: Recipe) -> Recipe:
    """Returns how the network over vectors is trained: longer than that of words, at higher learning rates."""
    rates, decays, epochs, batch_size = (5e-3, 1e-2), (0.01,), 100, 256
    return dataclasses.replace(
        words, learning_rates=rates, weight_decays=decays, epochs=epochs, batch_size=batch_size, network=EncoderNetwork
    )


@dataclass(frozen=True)
class Trial:
    """One learning rate and weight decay, measured on validation at its best epoch, counted from 1.

    `snips_logged` to `effective_sample_size` are null where no example has a propensity. A trial whose loss was never
    finite has epoch 0, infinite loss and an IPS of 0.
    """

    learning_rate: float
    weight_decay: float
    epoch: int = 0
    loss: float = math.inf
    accuracy: float = 0.0
    ips: float = 0.0
    snips_logged: float | None = None
    snips_logged_random: float | None = None
    ips_logged: float | None = None
    effective_sample_size: float | None = None

    @property
    def rank(self) -> tuple[bool, float, float]:
        """Higher is better: trained at all, the metric that selects, then the loss."""
        metrics = dataclasses.asdict(self)
        return self.epoch > 0, metrics[headline_of(metrics)], -self.loss


class Fitted(NamedTuple):
    """A recipe's best weights, their trial, and all trials."""

    weights: Weights
    best: Trial
    trials: list[Trial]


def measure(network: Network | AnyNetwork, inputs: NetworkInputs, weight_n: Tensor | None = None) -> dict[str, float]:
    """Returns the loss, and the metrics of `held_out_metrics`.

    A choice that reads as the engaged artwork is right. The loss is the mean negative log-probability of the engaged
    artwork, weighted if there are weights.
    """
    loss, chosen_c = 0.0, np.zeros(len(inputs.artwork_c))
    for picked_b, log_bm in predict(network, inputs):
        label_b = torch.from_numpy(inputs.label_n[picked_b])
        chosen_c[inputs.first_candidate_n[picked_b] + log_bm.argmax(dim=1).numpy()] = 1.0
        loss += float(_loss(log_bm.double(), label_b, picked_b, weight_n))
    examples = Examples(
        np.arange(len(inputs.label_n)), inputs.label_n, inputs.candidates_n, inputs.propensity_n, inputs.text_c
    )
    sums = held_out_sums(examples.mass_of(chosen_c), 1 / examples.uniform_n, examples.logging_n)
    return {"loss": loss / len(inputs.label_n), **held_out_metrics(sums)}


def _loss(log_bm: Tensor, label_b: Tensor, picked_b: IntArray, weight_n: Tensor | None) -> Tensor:
    if weight_n is None:
        return torch.nn.functional.nll_loss(log_bm, label_b, reduction="sum")
    loss_b = torch.nn.functional.nll_loss(log_bm, label_b, reduction="none")
    return (loss_b * weight_n[torch.from_numpy(picked_b)].to(loss_b)).sum()


def run_trials(train: NetworkInputs, validation: NetworkInputs, recipe: Recipe, log: Callable[[str], None]) -> Fitted:
    """Trains with every learning rate and weight decay.

    Best is the highest logged SNIPS on validation, or without propensities the highest IPS, then the lowest loss. In a
    process group of `torch.distributed` each worker takes its share of every batch, and all workers return the same.
    """
    best, weights, trials = Trial(0, 0, ips=-1), Weights(), list[Trial]()
    for learning_rate, weight_decay in itertools.product(recipe.learning_rates, recipe.weight_decays):
        found, trial = _run_trial(train, validation, recipe, Trial(learning_rate, weight_decay), log)
        trials.append(trial)
        if trial.rank > best.rank:
            best, weights = trial, found
    return Fitted(weights, best, trials)


def _run_trial(
    train: NetworkInputs, validation: NetworkInputs, recipe: Recipe, trial: Trial, log: Callable[[str], None]
) -> tuple[Weights, Trial]:
    rank, workers = (distributed.get_rank(), distributed.get_world_size()) if distributed.is_initialized() else (0, 1)
    weight_n, held_out_weight_n = recipe.weights(train), recipe.weights(validation)
    torch.manual_seed(recipe.seed)
    network = recipe.network(recipe.sizes)
    network.start_at_zero()
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
            own_b = picked_b[rank::workers]
            batch = make_batch(train, own_b)
            loss = _loss(trained(batch), batch.label_b, own_b, weight_n)
            optimizer.zero_grad()
            (loss * workers / len(picked_b)).backward()
            optimizer.step()
        now = Trial(trial.learning_rate, trial.weight_decay, epoch, **measure(network, validation, held_out_weight_n))
        rates = f"learning rate {now.learning_rate:g}, weight decay {now.weight_decay:g}"
        log(f"{rates}, epoch {epoch}: validation loss {now.loss:.4f}, {shown_metrics(dataclasses.asdict(now))}")
        if now.loss < best.loss:
            best, weights = now, copy.deepcopy(network.state_dict())
        elif not math.isfinite(now.loss) or epoch - best.epoch >= _PATIENCE:
            break
    if not best.epoch:
        return weights, best
    network.load_state_dict(weights)
    network.sharpness.fill_(fit_sharpness(network, validation, held_out_weight_n))
    calibrated = measure(network, validation, held_out_weight_n)["loss"]
    return copy.deepcopy(network.state_dict()), dataclasses.replace(best, loss=calibrated)


def fit_sharpness(network: Network, inputs: NetworkInputs, weight_n: Tensor | None = None) -> float:
    """Returns the factor of all scores, at least 0, with the lowest loss: one over the temperature.

    Source: Guo, Pleiss, Sun and Weinberger, "On calibration of modern neural networks", ICML 2017.
    """
    predicted = [(picked_b, log_bm.double()) for picked_b, log_bm in predict(network, inputs)]

    def loss(factor: float) -> float:
        total = 0.0
        for picked_b, log_bm in predicted:
            scaled_bm = torch.where(log_bm.isfinite(), log_bm * factor, -torch.inf).log_softmax(dim=1)
            total += float(_loss(scaled_bm, torch.from_numpy(inputs.label_n[picked_b]), picked_b, weight_n))
        return total

    return float(minimize_scalar(loss, bounds=(0, _MAX_SHARPNESS), method="bounded").x)


def fit_fusion(fusion: Fusion, inputs: NetworkInputs, weight_n: Tensor | None = None) -> None:
    """Sets the weights of both networks to those with the lowest loss, of new and known titles apart.

    Where there are no examples of one kind, its weights stay.
    """
    parts = []
    for first in range(0, len(inputs.label_n), _BATCH):
        picked_b = np.arange(first, min(first + _BATCH, len(inputs.label_n)))
        batch = make_batch(inputs, picked_b)
        with torch.no_grad():
            log_kbm = torch.stack([network.eval()(batch).double() for network in fusion.networks])
        parts.append((picked_b, batch.label_b, log_kbm, is_known(batch)))

    def loss(weights: NDArray[np.float64], known: bool) -> float:
        total = 0.0
        for picked_b, label_b, log_kbm, known_b in parts:
            of_kind = (known_b == known).numpy()
            log_bm = mixed(log_kbm[:, of_kind], torch.from_numpy(weights).expand(int(of_kind.sum()), -1))
            total += float(_loss(log_bm, label_b[of_kind], picked_b[of_kind], weight_n))
        return total

    for known, row in enumerate(fusion.weights):
        if any((known_b == bool(known)).any() for *_, known_b in parts):
            bounds = [(0, _MAX_SHARPNESS)] * len(row)
            found = minimize(loss, row.numpy().astype(np.float64), (bool(known),), method="L-BFGS-B", bounds=bounds)
            row.copy_(torch.from_numpy(found.x))


def batches(examples: int, batch_size: int, seed: list[int]) -> list[IntArray]:
    """Returns the examples' indices in an order that depends on the seed, cut into batches; the last takes the rest."""
    order = np.random.default_rng(seed).permutation(examples)
    return np.array_split(order, np.arange(1, examples // batch_size) * batch_size)
