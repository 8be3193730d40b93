import math
from pathlib import Path

import numpy as np
import torch

from artsel_ray.network.encoding import NetworkInputs, encode, make_batch
from artsel_ray.network.example_arrays import read_example_arrays
from artsel_ray.network.towers import Towers
from artsel_ray.network.vocabulary import Vocabulary, make_vocabulary
from tests.support.network_examples import Candidates, example, sized, watched, write_examples


def test_zero_towers_choose_by_popularity_without_own_engagement(
    vocabulary: Vocabulary, inputs: dict[str, NetworkInputs]
) -> None:
    network = Towers(sized(vocabulary).sizes)
    with torch.no_grad():
        for name, weights in network.named_parameters():
            weights.copy_(torch.tensor([1.0, math.log(0.5)]) if name == "popularity" else torch.zeros_like(weights))
    for split in ("train", "unseen"):
        one = make_batch(inputs[split], np.array([3]))
        engagements_c = one.engagements_a[one.artwork_c].double().numpy()
        if split == "train":
            assert engagements_c.sum() > 20
            engagements_c[int(one.label_b)] -= 1
        else:
            assert engagements_c.sum() == 0
        expected = (engagements_c + 0.5) / (engagements_c + 0.5).sum()
        np.testing.assert_allclose(network(one).detach().exp()[0], expected, rtol=1e-4)


def test_probabilities_depend_neither_on_batch_nor_on_candidate_order(tmp_path: Path) -> None:
    several: Candidates = [("a", "red rose"), ("b", "a knife"), ("c", None)]
    history = [watched("Knives", ["Thriller"], 3, 100.0)]
    rows = [
        example("u1", "t", 0, several, history=history),
        example("u2", "s", 0, [("z", "one")]),
        example("u3", "t", 2, several[::-1], history=history),
    ]
    split = read_example_arrays(write_examples(tmp_path, rows))
    vocabulary = make_vocabulary(split)
    inputs = encode(split, vocabulary)
    torch.manual_seed(0)
    network = Towers(sized(vocabulary).sizes).eval()
    together = network(make_batch(inputs, np.arange(3))).detach().exp()
    assert together.shape == (3, 3)
    np.testing.assert_allclose(together.sum(dim=1), 1, rtol=1e-5)
    assert together[1].tolist() == [1, 0, 0]
    np.testing.assert_allclose(together[0], together[2].flip(0), rtol=1e-5)
    np.testing.assert_allclose(network(make_batch(inputs, np.array([0]))).detach().exp()[0], together[0], rtol=1e-5)
    assert len(set(together[0].tolist())) == 3
