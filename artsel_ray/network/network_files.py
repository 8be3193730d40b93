"""A network's files on storage, and networks by what their files say."""

import dataclasses
from dataclasses import dataclass

import pyarrow as pa
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from artsel_ray import storage
from artsel_ray.errors import InputError, one_line
from artsel_ray.models.load import load as load_model
from artsel_ray.network.encoder_network import Fusion
from artsel_ray.network.towers import Sizes, Towers
from artsel_ray.network.vocabulary import Vocabulary

MODEL = "model"
"""The network's folder in the output of a baseline."""

_WEIGHTS, _VOCABULARY, _CONFIG = "model.safetensors", "vocabulary.json", "config.json"

Weights = dict[str, Tensor]
AnyNetwork = Towers | Fusion
_STRINGS = ("artwork_ids", "names", "genres")
_NUMBERS = ("engagements_v", "idf_w", "vector_mean_e", "vector_scale")
# Models of earlier versions have no temperature, and no language model.
_ABSENT = {"vector_mean_e": torch.zeros(0), "vector_scale": torch.ones(1)}


def make_network(sizes: Sizes) -> AnyNetwork:
    """Returns an untrained network: of words, or with a language model's vectors both networks' sum."""
    return Fusion(sizes) if sizes.vector else Towers(sizes)


@dataclass(frozen=True)
class NetworkConfig:
    """What config.json says of a network."""

    model_id: str
    sizes: Sizes
    history_length: int | None
    """Items of the longest history in train; None if an earlier version wrote it, with ages of another beginning."""
    encoder: str | None
    """Name of the language model."""
    encoder_id: str | None
    """Id of the language model's weights; None also if an earlier version wrote it."""


def write_model(
    uri: str, sizes: Sizes, weights: Weights, vocabulary: Vocabulary, history_length: int, encoder: str | None = None
) -> str:
    """Writes model.safetensors, vocabulary.json and config.json; returns the model's id, which depends on all three.

    Args:
        history_length: items of the longest history in train.
        encoder: the language model's name.
    """
    strings = {name: getattr(vocabulary, name).to_pylist() for name in _STRINGS}
    content = save({**weights, **{name: torch.from_numpy(getattr(vocabulary, name)) for name in _NUMBERS}})
    encoder_id = load_model(encoder, options=False).model_id if encoder else None
    described = {"sizes": dataclasses.asdict(sizes), "history_length": history_length, "encoder_id": encoder_id}
    model_id = f"baseline@{storage.fingerprint(content.hex(), strings, described)[:12]}"
    storage.write_object(storage.join(uri, _WEIGHTS), content)
    storage.write_json(storage.join(uri, _VOCABULARY), strings)
    storage.write_json(storage.join(uri, _CONFIG), {"model_id": model_id, **described, "encoder": encoder})
    return model_id


def find_network(uri: str) -> str | None:
    """Returns the folder of the network that is there or in the output of a baseline, None if there is none."""
    return next((each for each in (uri, storage.join(uri, MODEL)) if _exists(storage.join(each, _VOCABULARY))), None)


def _exists(uri: str) -> bool:
    """Tells whether a file is there; a hub id or another name of a model is no place of files."""
    try:
        return storage.exists(uri)
    except InputError:
        return False


def read_config(uri: str) -> NetworkConfig:
    """Reads what a network is.

    Raises:
        InputError: if its config.json is absent, or is none of a network.
    """
    config = storage.read_json(storage.join(uri, _CONFIG))
    try:
        optional = {name: config.get(name) for name in ("history_length", "encoder", "encoder_id")}
        return NetworkConfig(config["model_id"], Sizes(**config["sizes"]), **optional)
    except (AttributeError, KeyError, TypeError):
        raise InputError(f"{storage.join(uri, _CONFIG)} is not the config of a network; train it again") from None


def read_model(uri: str) -> tuple[AnyNetwork, Vocabulary]:
    """Reads a model that `write_model` wrote, ready to predict.

    Raises:
        InputError: if a file is absent, or the files are not of one network.
    """
    config, content = read_config(uri), storage.read_object(storage.join(uri, _WEIGHTS))
    strings = storage.read_json(storage.join(uri, _VOCABULARY))
    try:
        return _model(config, content, {name: pa.array(strings[name], pa.string()) for name in _STRINGS})
    except (SafetensorError, pa.ArrowException, KeyError, TypeError, ValueError, RuntimeError) as error:
        problem = f"its files are damaged, or of several networks ({one_line(error)})"
        raise InputError(f"{uri}: {problem}; copy the complete folder, or train it again") from None


def _model(config: NetworkConfig, content: bytes, strings: dict[str, pa.Array]) -> tuple[AnyNetwork, Vocabulary]:
    weights = _ABSENT | load(content)
    vocabulary = Vocabulary(**strings, **{name: weights.pop(name).numpy() for name in _NUMBERS})
    with torch.device("meta"):  # takes no memory, whatever the config says
        network = make_network(config.sizes)
    if isinstance(network, Towers):
        weights = {"sharpness": torch.tensor(1.0), **weights}
    expected = {name: value.shape for name, value in network.state_dict().items()}
    if {name: value.shape for name, value in weights.items()} != expected:
        raise ValueError("the weights have other shapes than config.json says")
    sizes, counts = config.sizes, [len(strings[name]) for name in _STRINGS]
    if counts != [sizes.artworks, sizes.names, sizes.genres] or len(vocabulary.engagements_v) != sizes.artworks:
        raise ValueError("the vocabulary has another size than config.json says")
    network.load_state_dict(weights, assign=True)
    return network.eval(), vocabulary
