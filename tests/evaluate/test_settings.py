import dataclasses

import pytest

from artsel_ray.command_line import parse
from artsel_ray.errors import InputError
from artsel_ray.evaluate.settings import EvaluateConfig

CONFIG = EvaluateConfig(examples="data/examples/test", predictions="predictions", output="evaluation")


def test_impressions_need_a_baseline() -> None:
    with pytest.raises(InputError, match="--impressions needs --baseline"):
        dataclasses.replace(CONFIG, impressions="log")
    assert dataclasses.replace(CONFIG, impressions="log", baseline="baseline").impressions == "log"


@pytest.mark.parametrize("output", ["p", "p/", "data/examples/test/../test/report"])
def test_output_is_not_in_an_input(output: str) -> None:
    with pytest.raises(InputError, match=r"--output .* is in the folder of --(examples|predictions), "):
        parse(EvaluateConfig, ["--examples", "data/examples/test", "--predictions", "p", "--output", output])


@pytest.mark.parametrize(("name", "value"), [("resamples", 0), ("max_weight", 0.0), ("seed", -1)])
def test_bounds(name: str, value: float) -> None:
    with pytest.raises(InputError, match=f"--{name.replace('_', '-')} is {value}; it must be"):
        EvaluateConfig(**{**dataclasses.asdict(CONFIG), name: value})
