import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from artsel_ray import storage
from artsel_ray.baseline.folds import fold_n, subset
from artsel_ray.baseline.job import _identity, baseline, make_predictions
from artsel_ray.baseline.settings import BaselineConfig
from artsel_ray.baseline.trials import run_trials
from artsel_ray.data.checked_reader import read_table
from artsel_ray.data.conformity import check_footers
from artsel_ray.data.footers import Footer
from artsel_ray.errors import InputError
from artsel_ray.evaluate.job import evaluate
from artsel_ray.evaluate.settings import EvaluateConfig
from artsel_ray.network.encoding import NetworkInputs, encode
from artsel_ray.network.example_arrays import ExampleArrays, read_example_arrays
from artsel_ray.network.towers import Towers
from artsel_ray.network.vocabulary import Vocabulary, make_vocabulary
from tests.support.network_examples import RECIPE, example, genre_fans, silent, sized, write_examples


def test_predictions_hold_every_candidates_probability(
    world: dict[str, ExampleArrays], vocabulary: Vocabulary, inputs: dict[str, NetworkInputs]
) -> None:
    torch.manual_seed(3)
    network = Towers(sized(vocabulary).sizes)
    table = make_predictions(network, inputs["unseen"], world["unseen"], "m")
    check_footers({"predictions": [Footer("here", table.schema, frozenset(), {}, [])]})
    for row in table.to_pylist():
        top = max(row["candidates"], key=lambda candidate: candidate["probability"])
        assert top == {"artwork_id": row["artwork_id"], "probability": row["probability"]}
        assert sum(candidate["probability"] for candidate in row["candidates"]) == pytest.approx(1)
        assert [candidate["artwork_id"] for candidate in row["candidates"]] == [
            f"{row['title_id']}-{index}" for index in range(3)
        ]


def test_equal_fingerprints_have_equal_candidates(
    world: dict[str, ExampleArrays], vocabulary: Vocabulary, inputs: dict[str, NetworkInputs]
) -> None:
    torch.manual_seed(3)
    network = Towers(sized(vocabulary).sizes)
    table = make_predictions(network, inputs["unseen"], world["unseen"], "m")
    candidates = {row["fingerprint"]: row["candidates"] for row in table.to_pylist()}
    assert len(candidates) > 90  # a few of the drawn examples are the same
    assert all(candidates[row["fingerprint"]] == row["candidates"] for row in table.to_pylist())


def test_each_pair_is_predicted_once(tmp_path: Path) -> None:
    rows = [example("u", title, 0, [("a", "x"), ("b", "y")]) for title in ("t", "s", "t")]
    split = read_example_arrays(write_examples(tmp_path, rows))
    vocabulary = make_vocabulary(split)
    table = make_predictions(Towers(sized(vocabulary).sizes), encode(split, vocabulary), split, "m")
    assert table["title_id"].to_pylist() == ["t", "s"]


def test_more_workers_than_train_examples_is_an_error(tmp_path: Path) -> None:
    for name in ("train", "validation", "test"):
        write_examples(tmp_path / "examples" / name, [example("u", "t", 0, [("a", "x")])])
    config = BaselineConfig(examples=str(tmp_path / "examples"), output=str(tmp_path / "baseline"), workers=2)
    with pytest.raises(InputError, match=r"train has fewer examples than --workers 2; use fewer workers"):
        baseline(config)
    assert not (tmp_path / "baseline").exists()


def test_weighting_needs_a_propensity_of_every_train_and_validation_example(tmp_path: Path) -> None:
    for name in ("train", "validation", "test"):
        rows = [example("u", "t", 0, [("a", "x"), ("b", "y")]), example("v", "t", 0, [("a", "x"), ("b", "y")])]
        rows[0]["propensity"] = 0.0 if name == "validation" else None if name == "test" else 0.5
        write_examples(tmp_path / "examples" / name, rows)
    examples, output = str(tmp_path / "examples"), str(tmp_path / "baseline")
    with pytest.raises(InputError, match=r"validation/part-0\.parquet: 1 examples have no propensity in \(0, 1\], and"):
        baseline(BaselineConfig(examples=examples, output=output, weight_by_propensity=True))
    assert not (tmp_path / "baseline").exists()


def test_weighting_belongs_to_the_identity_only_where_it_is_on() -> None:
    configs = [BaselineConfig(examples="D", output="B", weight_by_propensity=on) for on in (False, True)]
    plain, weighted = (_identity(config, {}) for config in configs)
    assert not {"weight_by_propensity", "max_weight", "output"} & plain.keys()
    assert weighted.keys() - plain.keys() == {"weight_by_propensity", "max_weight"}


@pytest.mark.slow
def test_two_workers_train_as_one_process_would_and_evaluate_reads_that_they_beat_popularity(
    ray_cluster: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    splits = {"train": genre_fans(600, 0), "validation": genre_fans(100, 1), "test": genre_fans(200, 2)}
    bad = example("bad", "t", 5, [("a", "x")])
    rows = {
        name: read_example_arrays(write_examples(tmp_path / "examples" / name, [*part, bad]))
        for name, part in splits.items()
    }
    config = BaselineConfig(
        examples=str(tmp_path / "examples"), output=str(tmp_path / "baseline"), learning_rates=(0.03,),
        weight_decays=(0.01,), epochs=4, batch_size=50, width=16, id_dropout=0.0, workers=2, folds=2,
    )  # fmt: skip
    baseline(config)
    assert "epoch 1: validation loss" in capsys.readouterr().out
    manifest = storage.read_manifest(config.output)
    assert manifest is not None
    assert manifest["predictions"] == {"train": 600, "validation": 100, "test": 200}
    assert not (tmp_path / "baseline" / "_work").exists()
    summary = json.loads((tmp_path / "baseline" / "summary.json").read_text())
    assert summary["rejected"] == {"train": 1, "validation": 1, "test": 1}
    invalid = read_table(f"{config.output}/rejected/test.parquet", "invalid_rows").to_pylist()
    assert [(row["row"], row["column"], row["user_id"]) for row in invalid] == [(200, "label", "bad")]

    # No ids are hidden at random: two workers compute what one process does, up to the order of sums.
    vocabulary = make_vocabulary(rows["train"])
    inputs = {name: encode(part, vocabulary, train=name == "train") for name, part in rows.items()}
    same = dataclasses.replace(RECIPE, sizes=dataclasses.replace(RECIPE.sizes, id_dropout=0.0), epochs=4, batch_size=50)
    recipe = sized(vocabulary, same)
    weights, *_ = run_trials(inputs["train"], inputs["validation"], recipe, silent)
    network = Towers(recipe.sizes)
    network.load_state_dict(weights)
    expected = make_predictions(network, inputs["test"], rows["test"], "m")["probability"]
    found = read_table(f"{config.output}/predictions/test", "predictions")["probability"]
    np.testing.assert_allclose(found, expected, atol=1e-3)

    # Each train example is predicted by a network that has not seen its title, whose artworks' ids mean nothing to it.
    first = fold_n(rows["train"], 2, 1, "train") == 0
    others, own = (subset(rows["train"], np.flatnonzero(of_fold)) for of_fold in (~first, first))
    vocabulary = make_vocabulary(others)
    part, held_out = encode(others, vocabulary, train=True), encode(rows["validation"], vocabulary)
    weights, *_ = run_trials(part, held_out, dataclasses.replace(sized(vocabulary, same), epochs=4), silent)
    network = Towers(sized(vocabulary, same).sizes)
    network.load_state_dict(weights)
    expected = make_predictions(network, encode(own, vocabulary), own, "m")["probability"]
    out_of_fold = read_table(f"{config.output}/predictions/train", "predictions")
    np.testing.assert_allclose(out_of_fold["probability"][: int(first.sum())], expected, atol=1e-3)
    assert set(out_of_fold["model_id"].to_pylist()) == {f"{summary['model_id']}+2-folds"}

    baseline(config)
    assert "is complete already" in capsys.readouterr().out
    with pytest.raises(InputError, match="holds another run, which differs in: seed"):
        baseline(dataclasses.replace(config, seed=5))

    predicted = f"{config.output}/predictions/test"
    evaluated = EvaluateConfig(
        examples=f"{config.examples}/test",
        predictions=predicted,
        output=str(tmp_path / "evaluation"),
        baseline=predicted,
    )
    evaluate(evaluated)
    metrics = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())
    assert metrics["missing"] == metrics["unknown_artwork"] == 0
    assert metrics["accuracy"]["low"] > 0.9 > metrics["references"]["popularity"]["accuracy"]["high"]
    assert metrics["references"]["baseline"]["accuracy"] == metrics["accuracy"]
