import dataclasses

import numpy as np
import pytest
import torch

from artsel_ray.baseline.encoding import NetworkInputs
from artsel_ray.baseline.towers import Towers
from artsel_ray.baseline.trials import Trial, batches, measure, run_trials
from artsel_ray.baseline.vocabulary import Vocabulary
from tests.support.baseline_examples import silent, sized


def test_every_example_is_in_one_batch() -> None:
    for examples, size in ((10, 3), (9, 3), (2, 3), (1, 1)):
        cut = batches(examples, size, [0, 1])
        assert sorted(np.concatenate(cut).tolist()) == list(range(examples))
        assert all(size <= len(part) < 2 * size for part in cut) or len(cut) == 1
    assert not np.array_equal(batches(50, 50, [0, 1])[0], batches(50, 50, [0, 2])[0])


def test_network_learns_tastes_and_judges_unknown_artworks_by_captions(
    vocabulary: Vocabulary, inputs: dict[str, NetworkInputs]
) -> None:
    recipe = sized(vocabulary)
    weights, best, trials = run_trials(inputs["train"], inputs["validation"], recipe, silent)
    assert trials == [best]
    assert best.accuracy > 0.95  # chance is a third, popularity a half
    network = Towers(recipe.sizes)
    network.load_state_dict(weights)
    unseen = measure(network, inputs["unseen"])
    assert unseen["accuracy"] > 0.9
    assert unseen["ips"] == pytest.approx(3 * unseen["accuracy"])
    again, *_ = run_trials(inputs["train"], inputs["validation"], recipe, silent)
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    other, *_ = run_trials(inputs["train"], inputs["validation"], dataclasses.replace(recipe, seed=1), silent)
    assert not torch.equal(weights["artwork.weight"], other["artwork.weight"])


def test_best_trial_is_kept_and_one_without_a_finite_loss_is_survived(
    vocabulary: Vocabulary, inputs: dict[str, NetworkInputs]
) -> None:
    recipe = dataclasses.replace(sized(vocabulary), learning_rates=(1e30, 1e-9, 0.03), epochs=3)
    lines: list[str] = []
    weights, best, trials = run_trials(inputs["train"], inputs["validation"], recipe, lines.append)
    assert trials[0] == Trial(1e30, 0.01)
    assert [trial.learning_rate for trial in trials] == [1e30, 1e-9, 0.03]
    assert best == trials[2]
    assert best.ips > trials[1].ips
    network = Towers(recipe.sizes)
    network.load_state_dict(weights)
    assert measure(network, inputs["validation"])["loss"] == pytest.approx(best.loss)
    assert any("learning rate 0.03, weight decay 0.01, epoch 1" in line for line in lines)


def test_training_stops_when_the_validation_loss_rises(
    vocabulary: Vocabulary, inputs: dict[str, NetworkInputs]
) -> None:
    flipped = dataclasses.replace(inputs["validation"], label_n=1 - inputs["validation"].label_n)
    recipe = dataclasses.replace(sized(vocabulary), epochs=50)
    lines: list[str] = []
    _, best, _ = run_trials(inputs["train"], flipped, recipe, lines.append)
    assert len(lines) == best.epoch + 1 < 50
