from pathlib import Path
from typing import Any

import pytest

from artsel_ray.errors import InputError
from tests.support.scoring_world import score_config


@pytest.mark.parametrize(
    "flags",
    [
        {"tensor_parallel": 0},
        {"engine_memory": 0.0},
        {"epsilon": 1.5},
        {"temperature": 0.0},
        {"permutation": -1},
        {"gpus_per_engine": -0.5},
        {"tokens_per_second": 0.0},
        {"engines": 0},
        {"shard_pairs": 0},
        {"max_reject_rate": 2.0},
        {"history_length": -1},
        {"max_model_length": 1},
    ],
)
def test_value_out_of_bounds_names_its_flag(flags: dict[str, Any]) -> None:
    (name,) = flags
    with pytest.raises(InputError, match=f"--{name.replace('_', '-')} is "):
        score_config(Path("W"), **flags)


def test_exploration_needs_every_candidates_probability() -> None:
    with pytest.raises(InputError, match="--explore softmax needs every candidate's probability; add --decoding rank"):
        score_config(Path("W"), explore="softmax")
    assert score_config(Path("W"), explore="softmax", decoding="labels").serving.explore == "softmax"


def test_label_prior_needs_labels() -> None:
    with pytest.raises(InputError, match="add --decoding labels"):
        score_config(Path("W"), label_prior=("a",), decoding="rank")
