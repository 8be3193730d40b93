from typing import get_args

from artsel_ray.train.methods import METHODS
from artsel_ray.train.settings import Method


def test_flag_and_table_name_the_same_methods() -> None:
    assert set(METHODS) == set(get_args(Method))
