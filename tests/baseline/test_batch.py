import numpy as np
import torch

from artsel_ray.baseline.batch import make_batch
from artsel_ray.baseline.encoding import NetworkInputs


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
