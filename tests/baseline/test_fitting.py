"""What is made of the trials' results: the best network, or the weighted sum of two. test_job.py trains on Ray."""

import dataclasses

import torch

from artsel_ray.baseline.fitting import Task, network_of
from artsel_ray.baseline.trials import Fitted, Recipe, Trial, encoder_recipe
from artsel_ray.network.encoder_network import EncoderNetwork, Fusion
from artsel_ray.network.encoding import NetworkInputs
from artsel_ray.network.towers import Towers
from artsel_ray.network.vocabulary import Vocabulary
from tests.support.network_examples import sized


def fitted(recipe: Recipe) -> Fitted:
    torch.manual_seed(len(recipe.learning_rates))
    return Fitted(recipe.network(recipe.sizes).state_dict(), Trial(0.1, 0.1, 1), [])


def test_network_of_words_has_the_best_weights(vocabulary: Vocabulary, inputs: dict[str, NetworkInputs]) -> None:
    recipe = sized(vocabulary)
    found, task = fitted(recipe), Task(inputs["train"], inputs["validation"], [recipe])
    network = network_of(task, [found])
    assert isinstance(network, Towers)
    assert all(torch.equal(value, found.weights[name]) for name, value in network.state_dict().items())


def test_with_vectors_both_networks_are_added_with_weights_of_validation(
    vocabulary: Vocabulary, inputs: dict[str, NetworkInputs]
) -> None:
    recipe = sized(vocabulary)
    words = dataclasses.replace(recipe, sizes=dataclasses.replace(recipe.sizes, vector=2))
    with_vectors = {
        name: dataclasses.replace(
            split,
            vector_ae=torch.randn(len(split.id_a), 2).numpy(),
            vector_ie=torch.randn(len(split.name_i), 2).numpy(),
        )
        for name, split in inputs.items()
    }
    task = Task(with_vectors["train"], with_vectors["validation"], [words, encoder_recipe(words)])
    parts = [fitted(each) for each in task.recipes]
    network = network_of(task, parts)
    assert isinstance(network, Fusion)
    assert isinstance(network.networks[1], EncoderNetwork)
    for part, found in zip(network.networks, parts, strict=True):
        assert all(torch.equal(value, found.weights[name]) for name, value in part.state_dict().items())
    # All of validation's titles are known: the weights of new ones stay.
    assert network.weights[0].tolist() == [0, 1]
    assert network.weights[1].tolist() != [0.5, 0.5]
