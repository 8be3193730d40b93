from typing import Any

import pytest

from artsel_ray.baseline.settings import BaselineConfig
from artsel_ray.errors import InputError


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"epochs": 0}, "--epochs is 0; it must be at least 1"),
        ({"batch_size": 0}, "--batch-size is 0; it must be at least 1"),
        ({"width": -1}, "--width is -1; it must be at least 1"),
        ({"workers": 0}, "--workers is 0; it must be at least 1"),
        ({"batch_size": 2, "workers": 3}, "--batch-size is 2; it must be at least --workers, 3"),
        ({"id_dropout": 1.5}, "--id-dropout is 1.5; it must be at most 1"),
        ({"learning_rates": ()}, "--learning-rates is empty"),
        ({"learning_rates": (1e-3, 0.0)}, "--learning-rates is 0.0; it must be more than 0"),
        ({"learning_rates": (float("nan"),)}, "--learning-rates is nan"),
        ({"learning_rates": (100.0,)}, "--learning-rates is 100.0; it must be less than 100"),
        ({"max_weight": 5.0}, "--max-weight is 5.0 and --weight-by-propensity is not given; add it"),
        ({"max_weight": 0.0, "weight_by_propensity": True}, "--max-weight is 0.0; it must be more than 0"),
        ({"weight_decays": (-1.0,)}, "--weight-decays is -1.0; it must be at least 0"),
    ],
)
def test_wrong_flags_are_named(changes: dict[str, Any], named: str) -> None:
    BaselineConfig(examples="D", output="B")
    with pytest.raises(InputError, match=named):
        BaselineConfig(examples="D", output="B", **changes)
