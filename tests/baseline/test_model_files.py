from pathlib import Path

import pytest
import torch

from artsel_ray.baseline.encoding import NetworkInputs, encode
from artsel_ray.baseline.example_arrays import ExampleArrays
from artsel_ray.baseline.model_files import read_model, write_model
from artsel_ray.baseline.predictions import make_predictions
from artsel_ray.baseline.towers import Towers
from artsel_ray.baseline.vocabulary import Vocabulary
from artsel_ray.errors import InputError
from tests.support.baseline_examples import sized


def test_model_read_back_predicts_the_same(
    tmp_path: Path, world: dict[str, ExampleArrays], vocabulary: Vocabulary, inputs: dict[str, NetworkInputs]
) -> None:
    recipe = sized(vocabulary)
    torch.manual_seed(3)
    network = Towers(recipe.sizes)
    model_id = write_model(str(tmp_path), recipe.sizes, network.state_dict(), vocabulary)
    read, known = read_model(str(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors", "vocabulary.json"}
    assert known.artwork_ids.equals(vocabulary.artwork_ids)
    again = encode(world["unseen"], known)
    table = make_predictions(network, inputs["unseen"], world["unseen"], model_id)
    assert table.drop_columns("scored_at").equals(
        make_predictions(read, again, world["unseen"], model_id).drop_columns("scored_at")
    )
    torch.nn.init.ones_(network.skip.weight)
    assert write_model(str(tmp_path), recipe.sizes, network.state_dict(), vocabulary) != model_id


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read .*config\.json"):
        read_model(str(tmp_path))
