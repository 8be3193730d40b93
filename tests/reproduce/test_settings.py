import pytest

from artsel_ray.errors import InputError
from artsel_ray.reproduce.settings import ReproduceConfig


def test_at_most_two_models() -> None:
    assert ReproduceConfig(output="R", models=("a", "b")).models == ("a", "b")
    with pytest.raises(InputError, match="--models names 3 models; it must be one or two"):
        ReproduceConfig(output="R", models=("a", "b", "c"))
