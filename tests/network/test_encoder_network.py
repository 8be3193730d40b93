"""The network over vectors, and the sum of both networks."""

import dataclasses
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from artsel_ray.network.encoder_network import EncoderNetwork, Fusion, is_known, mixed
from artsel_ray.network.encoding import NetworkInputs, encode, make_batch
from artsel_ray.network.example_arrays import ExampleArrays
from artsel_ray.network.text_vectors import TextVectors
from artsel_ray.network.towers import Sizes
from artsel_ray.network.vocabulary import Vocabulary, make_vocabulary
from tests.support.network_examples import sized


@pytest.fixture(scope="module")
def vectors(world: dict[str, ExampleArrays]) -> TextVectors:
    texts = pa.array(sorted({*world["train"].captions.to_pylist(), *world["train"].names.to_pylist()}))
    return TextVectors(texts, np.random.default_rng(0).normal(3, 5, (len(texts), 8)).astype(np.float32))


@pytest.fixture(scope="module")
def known(world: dict[str, ExampleArrays], vectors: TextVectors) -> Vocabulary:
    return make_vocabulary(world["train"], vectors)


@pytest.fixture(scope="module")
def encoded(world: dict[str, ExampleArrays], known: Vocabulary, vectors: TextVectors) -> dict[str, NetworkInputs]:
    return {name: encode(rows, known, name == "train", vectors) for name, rows in world.items()}


def sizes_of(vocabulary: Vocabulary) -> Sizes:
    return dataclasses.replace(sized(vocabulary).sizes, vector=8)


def drawn(network: Any) -> Any:
    torch.manual_seed(1)
    with torch.no_grad():
        for weights in network.parameters():
            weights.normal_(std=0.3)
    return network.eval()


def test_vectors_are_around_trains_mean_in_its_deviation(encoded: dict[str, NetworkInputs]) -> None:
    vector_ae = encoded["train"].vector_ae
    np.testing.assert_allclose(vector_ae.mean(axis=0), 0, atol=1e-5)
    assert vector_ae.std() == pytest.approx(1, abs=1e-5)


def test_an_untrained_network_is_a_random_draw(known: Vocabulary, encoded: dict[str, NetworkInputs]) -> None:
    network = EncoderNetwork(sizes_of(known))
    network.start_at_zero()
    batch = make_batch(encoded["unseen"], np.arange(5))
    np.testing.assert_allclose(network(batch).detach().exp(), 1 / 3, atol=1e-6)


def test_probabilities_are_those_of_the_formula(known: Vocabulary, encoded: dict[str, NetworkInputs]) -> None:
    network = drawn(EncoderNetwork(sizes_of(known)))
    split, n = encoded["unseen"], 4
    batch = make_batch(split, np.array([n]))
    with torch.no_grad():
        history = slice(split.first_history_n[n], split.first_history_n[n] + split.history_n[n])
        items = split.item_h[history]
        genres = torch.from_numpy(split.genres_i[items].toarray()) @ network.genre.weight
        item_hd = genres + 0.01 * torch.from_numpy(split.vector_ie[items]) @ network.name
        weights = network.attention(torch.from_numpy(split.history_hf[history])).softmax(dim=0)
        user_d = (weights * item_hd).sum(dim=0) + network.anyone
        artworks = split.artwork_c[split.first_candidate_n[n] :][: split.candidates_n[n]]
        caption_ce = 0.1 * torch.from_numpy(split.vector_ae[artworks])
        engagements_c = torch.from_numpy(split.engagements_a[artworks])
        popularity_c = network.popularity[0] * torch.log(engagements_c + network.popularity[1].exp())
        score_c = caption_ce @ network.caption @ user_d + caption_ce @ network.bias + popularity_c
        np.testing.assert_allclose(network(batch)[0], score_c.log_softmax(dim=0), atol=1e-5)


def test_new_titles_have_weights_of_their_own(known: Vocabulary, encoded: dict[str, NetworkInputs]) -> None:
    fusion = drawn(Fusion(sizes_of(known)))
    fusion.weights.copy_(torch.tensor([[0.0, 2.0], [1.0, 0.0]]))
    for split, is_in_train in (("validation", True), ("unseen", False)):
        batch = make_batch(encoded[split], np.arange(6))
        assert is_known(batch).tolist() == [is_in_train] * 6
        with torch.no_grad():
            words, encoder = (network(batch) for network in fusion.networks)
            expected = words if is_in_train else (2 * encoder).log_softmax(dim=1)
            np.testing.assert_allclose(fusion(batch), expected, atol=1e-5)


def test_absent_candidates_stay_absent() -> None:
    log_kbm = torch.tensor([[[-1.0, -2.0, -torch.inf]], [[-3.0, -1.0, -torch.inf]]])
    mixed_bm = mixed(log_kbm, torch.tensor([[0.0, 0.0]]))
    np.testing.assert_allclose(mixed_bm.exp(), [[0.5, 0.5, 0.0]])
