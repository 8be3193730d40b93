"""A network's files: what is written is read back, and files of earlier versions are."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save

from artsel_ray.baseline.job import make_predictions
from artsel_ray.errors import InputError
from artsel_ray.network.encoder_network import Fusion
from artsel_ray.network.encoding import NetworkInputs, encode
from artsel_ray.network.example_arrays import ExampleArrays
from artsel_ray.network.network_files import make_network, read_model, write_model
from artsel_ray.network.prediction import choose
from artsel_ray.network.towers import Towers
from artsel_ray.network.vocabulary import Vocabulary
from tests.support.network_examples import sized


def test_model_read_back_predicts_the_same(
    tmp_path: Path, world: dict[str, ExampleArrays], vocabulary: Vocabulary, inputs: dict[str, NetworkInputs]
) -> None:
    recipe = sized(vocabulary)
    torch.manual_seed(3)
    network = Towers(recipe.sizes)
    model_id = write_model(str(tmp_path), recipe.sizes, network.state_dict(), vocabulary, 3)
    read, known = read_model(str(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors", "vocabulary.json"}
    assert known.artwork_ids.equals(vocabulary.artwork_ids)
    again = encode(world["unseen"], known)
    table = make_predictions(network, inputs["unseen"], world["unseen"], model_id)
    assert table.drop_columns("scored_at").equals(
        make_predictions(read, again, world["unseen"], model_id).drop_columns("scored_at")
    )
    torch.nn.init.ones_(network.skip.weight)
    assert write_model(str(tmp_path), recipe.sizes, network.state_dict(), vocabulary, 3) != model_id


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read .*config\.json"):
        read_model(str(tmp_path))


def test_both_networks_and_their_weights_are_read_back(tmp_path: Path, vocabulary: Vocabulary) -> None:
    sizes = dataclasses.replace(sized(vocabulary).sizes, vector=4)
    with_vectors = dataclasses.replace(vocabulary, vector_mean_e=torch.ones(4).numpy())
    network = make_network(sizes)
    assert isinstance(network, Fusion)
    network.weights.copy_(torch.tensor([[0.1, 1.2], [0.7, 0.3]]))
    write_model(str(tmp_path), sizes, network.state_dict(), with_vectors, 3, "smollm2")
    read, known = read_model(str(tmp_path))
    assert known.vector_mean_e.tolist() == [1, 1, 1, 1]
    assert {name: value.tolist() for name, value in read.state_dict().items()} == {
        name: value.tolist() for name, value in network.state_dict().items()
    }


def test_files_without_vectors_and_temperature_are_read(tmp_path: Path, vocabulary: Vocabulary) -> None:
    recipe = sized(vocabulary)
    write_model(str(tmp_path), recipe.sizes, Towers(recipe.sizes).state_dict(), vocabulary, 3)
    file = tmp_path / "model.safetensors"
    weights = load(file.read_bytes())
    file.write_bytes(
        save({name: weights[name] for name in weights if name not in ("sharpness", "vector_mean_e", "vector_scale")})
    )
    read, known = read_model(str(tmp_path))
    assert isinstance(read, Towers)
    assert (float(read.sharpness), known.vector_mean_e.size, known.vector_scale.tolist()) == (1, 0, [1])


def test_damaged_or_mixed_files_are_one_line(tmp_path: Path, vocabulary: Vocabulary) -> None:
    recipe = sized(vocabulary)
    write_model(str(tmp_path), recipe.sizes, Towers(recipe.sizes).state_dict(), vocabulary, 3)
    config, words, content = (
        (tmp_path / name).read_bytes() for name in ("config.json", "vocabulary.json", "model.safetensors")
    )
    described = json.loads(config)
    huge = json.dumps(described | {"sizes": described["sizes"] | {"width": 10**9}}).encode()
    text = json.dumps(described | {"sizes": described["sizes"] | {"width": "64"}}).encode()
    fewer = json.dumps(json.loads(words) | {"names": []}).encode()
    for name, damaged, right in (
        ("config.json", huge, config),
        ("config.json", text, config),
        ("vocabulary.json", fewer, words),
        ("vocabulary.json", b"{}", words),
        ("model.safetensors", content[: len(content) // 2], content),
    ):
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(InputError, match="its files are damaged, or of several networks") as caught:
            read_model(str(tmp_path))
        assert "\n" not in str(caught.value)
        (tmp_path / name).write_bytes(right)
    read_model(str(tmp_path))


def test_network_that_answers_nan_is_an_error(vocabulary: Vocabulary, inputs: dict[str, NetworkInputs]) -> None:
    network = Towers(sized(vocabulary).sizes)
    torch.nn.init.constant_(network.popularity, float("nan"))
    with pytest.raises(InputError, match="the model answers with NaN"):
        choose(network, inputs["unseen"])
