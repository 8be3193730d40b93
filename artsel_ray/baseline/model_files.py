"""A trained network and its vocabulary on storage: model.safetensors, vocabulary.json and config.json."""

import dataclasses

import pyarrow as pa
import torch
from safetensors.torch import load, save

from artsel_ray import storage
from artsel_ray.baseline.towers import Sizes, Towers
from artsel_ray.baseline.trials import Weights
from artsel_ray.baseline.vocabulary import Vocabulary

_STRINGS = ("artwork_ids", "names", "genres")
_NUMBERS = ("engagements_v", "idf_w")


def write_model(uri: str, sizes: Sizes, weights: Weights, vocabulary: Vocabulary) -> str:
    """Writes the model's files; returns its id, which depends on all three."""
    strings = {name: getattr(vocabulary, name).to_pylist() for name in _STRINGS}
    content = save({**weights, **{name: torch.from_numpy(getattr(vocabulary, name)) for name in _NUMBERS}})
    shape = dataclasses.asdict(sizes)
    model_id = f"baseline@{storage.fingerprint(content.hex(), strings, shape)[:12]}"
    storage.write_object(storage.join(uri, "model.safetensors"), content)
    storage.write_json(storage.join(uri, "vocabulary.json"), strings)
    storage.write_json(storage.join(uri, "config.json"), {"model_id": model_id, "sizes": shape})
    return model_id


def read_model(uri: str) -> tuple[Towers, Vocabulary]:
    """Reads a model that `write_model` wrote, ready to predict.

    Raises:
        InputError: if a file is absent.
    """
    network = Towers(Sizes(**storage.read_json(storage.join(uri, "config.json"))["sizes"]))
    weights = load(storage.read_object(storage.join(uri, "model.safetensors")))
    numbers = {name: weights.pop(name).numpy() for name in _NUMBERS}
    network.load_state_dict(weights)
    strings = storage.read_json(storage.join(uri, "vocabulary.json"))
    return network.eval(), Vocabulary(**{name: pa.array(strings[name], pa.string()) for name in _STRINGS}, **numbers)
