import math
from pathlib import Path

import numpy as np
import torch

from artsel_ray.network.encoding import NetworkInputs, encode, make_batch, ranges
from artsel_ray.network.example_arrays import read_example_arrays
from artsel_ray.network.vocabulary import make_vocabulary
from tests.support.network_examples import example, watched, write_examples


def test_history_features_and_genre_shares_by_hand(tmp_path: Path) -> None:
    history = [watched("A", ["x", "y"], 3, 120.0), watched("B", ["y"], 1, None)]
    rows = read_example_arrays(write_examples(tmp_path, [example("u", "t", 0, [("a", "one")], history=history)]))
    inputs = encode(rows, make_vocabulary(rows))
    expected: list[list[float]] = [[math.log(3), math.log(3), 0, math.log(2)], [0, 0, 1, 0]]
    np.testing.assert_allclose(inputs.history_hf, expected, rtol=1e-6)
    # The genres are Drama (the title's), x and y; column 0 stands for unknown ones.
    genres = inputs.genres_i.toarray()[[*inputs.item_h, *inputs.title_n]]
    assert genres.tolist() == [[0, 0, 0.5, 0.5], [0, 0, 0, 1], [0, 1, 0, 0]]


def test_ranges_follow_one_another() -> None:
    assert ranges(np.array([5, 9, 0]), np.array([2, 0, 3])).tolist() == [5, 6, 0, 1, 2]
    assert ranges(np.zeros(0, np.int64), np.zeros(0, np.int64)).tolist() == []


def test_batch_holds_picked_examples_with_shared_artworks_once(inputs: dict[str, NetworkInputs]) -> None:
    train, picked = inputs["train"], np.array([7, 3, 7])
    batch = make_batch(train, picked)
    assert batch.label_b.tolist() == train.label_n[picked].tolist()
    assert batch.example_c.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert batch.position_c.tolist() == [0, 1, 2] * 3
    assert batch.own_engagement_c.reshape(3, 3).argmax(dim=1).tolist() == batch.label_b.tolist()
    assert torch.equal(batch.artwork_c[:3], batch.artwork_c[6:])
    assert len(batch.id_a) == len(batch.artwork_c.unique()) < 9
    assert len(batch.name_i) == len(torch.cat([batch.title_b, batch.item_h]).unique())

    first = train.first_candidate_n[3]
    artworks = train.artwork_c[first : first + 3]
    assert batch.id_a[batch.artwork_c[3:6]].tolist() == train.id_a[artworks].tolist()
    indices, offsets, weights = batch.captions_a
    caption = slice(*offsets[batch.artwork_c[4] : batch.artwork_c[4] + 2].tolist())
    expected = train.captions_a[artworks[1]]
    assert indices[caption].tolist() == expected.indices.tolist()
    assert weights[caption].tolist() == expected.data.tolist()
