"""Distributions and choices of a network, and fingerprints that differ exactly where its answers may."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
import torch

from artsel_ray.network.encoding import NetworkInputs
from artsel_ray.network.example_arrays import ExampleArrays
from artsel_ray.network.prediction import choose, fingerprints, predict
from artsel_ray.network.towers import Towers
from artsel_ray.network.vocabulary import Vocabulary
from tests.support.network_examples import sized


def test_choice_is_the_most_likely_candidate_of_a_distribution(
    vocabulary: Vocabulary, inputs: dict[str, NetworkInputs]
) -> None:
    torch.manual_seed(3)
    network, asked = Towers(sized(vocabulary).sizes), inputs["unseen"]
    predicted = choose(network, asked)
    log_nm = torch.cat([log_bm for _, log_bm in predict(network, asked)]).numpy()
    probability_nm = predicted.probability_c.reshape(-1, 3)
    np.testing.assert_allclose(probability_nm, np.exp(log_nm), rtol=1e-5)
    assert (predicted.chosen_n - asked.first_candidate_n).tolist() == probability_nm.argmax(axis=1).tolist()


def changed_names(rows: ExampleArrays) -> ExampleArrays:
    return dataclasses.replace(rows, names=pa.array([f"{name} II" for name in rows.names.to_pylist()]))


def changed_captions(rows: ExampleArrays) -> ExampleArrays:
    return dataclasses.replace(rows, captions=pa.array([f"{text} again" for text in rows.captions.to_pylist()]))


@pytest.mark.parametrize("change", [changed_names, changed_captions])
def test_fingerprint_follows_all_that_the_network_sees(
    world: dict[str, ExampleArrays], inputs: dict[str, NetworkInputs], change: object
) -> None:
    rows, features = world["unseen"], inputs["unseen"].history_hf
    found = fingerprints(rows, features, "m")
    assert found == fingerprints(rows, features, "m")
    assert callable(change)
    others = [fingerprints(change(rows), features, "m"), fingerprints(rows, features, "other")]
    older = fingerprints(rows, features + np.float32(0.5), "m")
    for other in (*others, older):
        assert not set(found) & set(other)
    # Whoever asks, and what they engaged with, is not part of it.
    same = dataclasses.replace(rows, user_ids=pa.array(["x"] * len(rows.label_n)), label_n=rows.label_n * 0)
    assert fingerprints(same, features, "m") == found
