import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from artsel_ray.baseline.trials import Trial, batches, fit_fusion, measure, run_trials
from artsel_ray.evaluation.held_out import held_out_metrics, held_out_sums
from artsel_ray.network.encoder_network import Fusion
from artsel_ray.network.encoding import NetworkInputs, encode
from artsel_ray.network.example_arrays import read_example_arrays
from artsel_ray.network.prediction import predict
from artsel_ray.network.towers import Towers
from artsel_ray.network.vocabulary import Vocabulary, make_vocabulary
from tests.support.network_examples import RECIPE, example, silent, sized, write_examples


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


def test_training_stops_three_epochs_after_the_lowest_validation_loss(
    vocabulary: Vocabulary, inputs: dict[str, NetworkInputs]
) -> None:
    flipped = dataclasses.replace(inputs["validation"], label_n=1 - inputs["validation"].label_n)
    recipe = dataclasses.replace(sized(vocabulary), epochs=50)
    lines: list[str] = []
    _, best, _ = run_trials(inputs["train"], flipped, recipe, lines.append)
    assert len(lines) == best.epoch + 3 < 50


def test_world_without_signal_is_not_overrated(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    candidates = [(name, f"{name} word") for name in "abcd"]
    splits = {
        name: read_example_arrays(write_examples(tmp_path / name, [
            example(f"u{n}", "t", int(rng.integers(4)), candidates) for n in range(count)
        ]))
        for name, count in {"train": 60, "validation": 60, "test": 400}.items()
    }  # fmt: skip
    known = make_vocabulary(splits["train"])
    inputs = {name: encode(rows, known, train=name == "train") for name, rows in splits.items()}
    recipe = sized(known)
    weights, best, _ = run_trials(inputs["train"], inputs["validation"], recipe, silent)
    network = Towers(recipe.sizes)
    network.load_state_dict(weights)
    assert best.loss <= np.log(4) + 1e-6
    assert measure(network, inputs["test"])["loss"] < np.log(4) + 0.05


def test_temperature_minimizes_the_validation_loss(vocabulary: Vocabulary, inputs: dict[str, NetworkInputs]) -> None:
    recipe = sized(vocabulary)
    weights, best, _ = run_trials(inputs["train"], inputs["validation"], recipe, silent)
    network = Towers(recipe.sizes)
    network.load_state_dict(weights)
    for factor in (0.9, 1.1):
        network.load_state_dict({**weights, "sharpness": weights["sharpness"] * factor})
        other = measure(network, inputs["validation"])
        assert other["loss"] >= best.loss - 1e-6
        assert other["accuracy"] == best.accuracy


def test_network_that_starts_at_zero_is_a_random_draw(vocabulary: Vocabulary, inputs: dict[str, NetworkInputs]) -> None:
    network = Towers(sized(vocabulary).sizes)
    network.start_at_zero()
    (_, log_bm), *_ = predict(network, inputs["validation"])
    assert torch.allclose(log_bm, torch.full_like(log_bm, -np.log(3)))


def test_trials_are_ranked_by_logged_snips_where_there_is_one() -> None:
    copies_log = Trial(0.1, 0.1, 1, loss=0.5, ips=5.2, snips_logged=0.2)
    learns = Trial(0.1, 0.1, 1, loss=0.9, ips=1.8, snips_logged=0.4)
    never_finite = Trial(0.1, 0.1)
    assert max([copies_log, learns, never_finite], key=lambda trial: trial.rank) == learns
    without = [dataclasses.replace(trial, snips_logged=None) for trial in (copies_log, learns)]
    assert max(without, key=lambda trial: trial.rank).ips == 5.2
    assert max([Trial(0.1, 0.1, 1, ips=0.0, snips_logged=0.0), never_finite], key=lambda trial: trial.rank).epoch == 1


def logged(folder: Path, count: int, seed: int) -> str:
    """Examples of a log that shows artwork a four times as often as b, which users like twice as much."""
    label_n = np.random.default_rng(seed).choice(2, p=[2 / 3, 1 / 3], size=count)  # 0.8 · 0.2 to 0.2 · 0.4
    candidates = [("a", "a clown laughs"), ("b", "a dark knife")]
    rows = [
        example(f"u{n}", "t", int(label), candidates, propensity=0.2 if label else 0.8)
        for n, label in enumerate(label_n)
    ]
    return write_examples(folder, rows)


def test_weights_by_propensity_undo_what_the_log_showed_most(tmp_path: Path) -> None:
    train, validation = (
        read_example_arrays(logged(tmp_path / name, count, seed))
        for seed, (name, count) in enumerate({"train": 400, "validation": 200}.items())
    )
    known = make_vocabulary(train)
    inputs, held_out = encode(train, known, train=True), encode(validation, known)

    def chosen(max_weight: float | None) -> tuple[int, Trial]:
        recipe = dataclasses.replace(sized(known, RECIPE), max_weight=max_weight)
        weights, best, _ = run_trials(inputs, held_out, recipe, silent)
        network = Towers(recipe.sizes)
        network.load_state_dict(weights)
        (_, log_bm), *_ = predict(network, held_out)
        return int(log_bm.mean(dim=0).argmax()), best

    (plain, by_log), (weighted, by_engagement) = chosen(None), chosen(10.0)
    assert (plain, weighted) == (0, 1)
    assert by_log.ips > by_engagement.ips
    assert by_engagement.snips_logged is not None
    assert by_log.snips_logged is not None
    assert by_engagement.snips_logged > 1.5 * by_log.snips_logged


def test_measured_metrics_and_weighted_loss_by_hand(vocabulary: Vocabulary, inputs: dict[str, NetworkInputs]) -> None:
    torch.manual_seed(0)
    network, split = Towers(sized(vocabulary).sizes), inputs["validation"]
    (picked, log_bm), *_ = predict(network, split)
    label = torch.from_numpy(split.label_n[picked])
    loss = torch.nn.functional.nll_loss(log_bm.double(), label, reduction="none")
    found = measure(network, split)
    assert found.pop("loss") == pytest.approx(float(loss.mean()))
    hit = (log_bm.argmax(dim=1) == label).numpy()
    assert found == pytest.approx(held_out_metrics(held_out_sums(hit, split.candidates_n, split.propensity_n)))
    weight = torch.arange(len(loss), dtype=torch.float64)
    assert measure(network, split, weight)["loss"] == pytest.approx(float((loss * weight).mean()))


def test_choice_that_reads_as_the_engaged_artwork_is_right(tmp_path: Path) -> None:
    candidates = [("a", "a clown"), ("b", " a clown "), ("c", "a knife"), ("d", None)]
    rows = [example(f"u{n}", "t", 1, candidates, propensity=0.25) for n in range(4)]
    split = read_example_arrays(write_examples(tmp_path, rows))
    known = make_vocabulary(split)
    network = Towers(sized(known).sizes)
    network.start_at_zero()  # of equals, the first is chosen: it reads as the second, which is engaged
    found = measure(network, encode(split, known))
    assert (found["accuracy"], found["ips"], found["snips_logged"]) == (1, 2, 1)
    assert found["snips_logged_random"] == 0.5


def test_fusion_takes_what_tells_of_new_and_of_known_titles(
    vocabulary: Vocabulary, inputs: dict[str, NetworkInputs]
) -> None:
    fusion = Fusion(dataclasses.replace(sized(vocabulary).sizes, vector=0))
    recipe = sized(vocabulary, dataclasses.replace(RECIPE, epochs=3))
    words: Any = fusion.networks[0]
    words.load_state_dict(run_trials(inputs["train"], inputs["validation"], recipe, silent).weights)
    words.sharpness.fill_(0.01)  # far too unsure
    before = measure(words, inputs["validation"])["loss"]
    fit_fusion(fusion, inputs["validation"])
    assert fusion.weights[0].tolist() == [0, 1]  # there was no example of a new title
    assert fusion.weights[1, 0] > 2
    assert measure(fusion, inputs["validation"])["loss"] < before / 2
    fit_fusion(fusion, inputs["unseen"])
    assert fusion.weights[0, 0] > 2
