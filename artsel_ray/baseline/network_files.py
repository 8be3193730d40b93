"""A network's files on storage, and networks by what their files say."""

import dataclasses

import pyarrow as pa
import torch
from safetensors.torch import load, save
from torch import Tensor

from artsel_ray import storage
from artsel_ray.baseline.encoder_network import Fusion
from artsel_ray.baseline.towers import Sizes, Towers
from artsel_ray.baseline.vocabulary import Vocabulary

Weights = dict[str, Tensor]
AnyNetwork = Towers | Fusion
_STRINGS = ("artwork_ids", "names", "genres")
_NUMBERS = ("engagements_v", "idf_w", "vector_mean_e", "vector_scale")
# Models of earlier versions have no temperature, and no language model.
_ABSENT = {"vector_mean_e": torch.zeros(0), "vector_scale": torch.ones(1)}


def make_network(sizes: Sizes) -> AnyNetwork:
    """Returns an untrained network: of words, or with a language model's vectors both networks' sum."""
    return Fusion(sizes) if sizes.vector else Towers(sizes)


def write_model(uri: str, sizes: Sizes, weights: Weights, vocabulary: Vocabulary, encoder: str | None = None) -> str:
    """Writes model.safetensors, vocabulary.json and config.json; returns the model's id, which depends on all three.

    Args:
        encoder: the language model's name.
    """
    strings = {name: getattr(vocabulary, name).to_pylist() for name in _STRINGS}
    content = save({**weights, **{name: torch.from_numpy(getattr(vocabulary, name)) for name in _NUMBERS}})
    shape = dataclasses.asdict(sizes)
    model_id = f"baseline@{storage.fingerprint(content.hex(), strings, shape)[:12]}"
    storage.write_object(storage.join(uri, "model.safetensors"), content)
    storage.write_json(storage.join(uri, "vocabulary.json"), strings)
    storage.write_json(storage.join(uri, "config.json"), {"model_id": model_id, "sizes": shape, "encoder": encoder})
    return model_id


def read_model(uri: str) -> tuple[AnyNetwork, Vocabulary]:
    """Reads a model that `write_model` wrote, ready to predict.

    Raises:
        InputError: if a file is absent.
    """
    network = make_network(Sizes(**storage.read_json(storage.join(uri, "config.json"))["sizes"]))
    weights = _ABSENT | load(storage.read_object(storage.join(uri, "model.safetensors")))
    numbers = {name: weights.pop(name).numpy() for name in _NUMBERS}
    if isinstance(network, Towers):
        weights = {"sharpness": torch.tensor(1.0), **weights}
    network.load_state_dict(weights)
    strings = storage.read_json(storage.join(uri, "vocabulary.json"))
    return network.eval(), Vocabulary(**{name: pa.array(strings[name], pa.string()) for name in _STRINGS}, **numbers)
