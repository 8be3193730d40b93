from pathlib import Path

import pytest
import torch

from artsel_ray.baseline.encoding import NetworkInputs, encode
from artsel_ray.baseline.example_arrays import ExampleArrays, read_example_arrays
from artsel_ray.baseline.predictions import make_predictions
from artsel_ray.baseline.towers import Towers
from artsel_ray.baseline.vocabulary import Vocabulary, make_vocabulary
from artsel_ray.data.casting import conform
from tests.support.baseline_examples import example, sized, write_examples


def test_predictions_hold_every_candidates_probability(
    world: dict[str, ExampleArrays], vocabulary: Vocabulary, inputs: dict[str, NetworkInputs]
) -> None:
    torch.manual_seed(3)
    network = Towers(sized(vocabulary).sizes)
    table = make_predictions(network, inputs["unseen"], world["unseen"], "m")
    conform(table.schema, "predictions", "here")
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
