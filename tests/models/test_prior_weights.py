from pathlib import Path

import pytest

from artsel_ray import storage
from artsel_ray.errors import InputError
from artsel_ray.models.prior_weights import PriorWeights, read_prior_weights, write_prior_weights


def test_weights_are_read_back_and_belong_to_kinds_of_titles(tmp_path: Path) -> None:
    assert read_prior_weights(str(tmp_path)) is None
    weights = PriorWeights((0.5, 0.9), (1.2, 0.3), frozenset({"t1", "t2"}), ("net@1",))
    write_prior_weights(str(tmp_path), weights)
    found = read_prior_weights(str(tmp_path))
    assert found == weights
    assert (found.of("t1"), found.of("t3")) == ((0.5, 0.9), (1.2, 0.3))


@pytest.mark.parametrize("content", [[], {"known": [1]}, {"known": ["x", 1], "new": [1, 1], "known_titles": []}])
def test_other_file_is_refused(content: object, tmp_path: Path) -> None:
    storage.write_json(str(tmp_path / "prior.json"), content)
    with pytest.raises(InputError, match=r"prior\.json is not what a training with --prior writes; train again"):
        read_prior_weights(str(tmp_path))
