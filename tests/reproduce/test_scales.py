import pytest

from artsel_ray.config import from_flags
from artsel_ray.distill.settings import DistillConfig
from artsel_ray.reproduce.paper import FEW, MANY
from artsel_ray.reproduce.scales import SCALES, Scale
from artsel_ray.simulate.settings import SimulateConfig
from artsel_ray.train.settings import SweepConfig, TrainConfig


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
def test_flags_are_those_of_the_jobs(scale: Scale) -> None:
    from_flags(SimulateConfig, output="W", **scale.world)
    from_flags(DistillConfig, examples="E", teacher="t", output="O", **scale.distilling)
    flags = {"method": "sft", "examples": "E", "model": "m", "output": "O", **scale.training}
    from_flags(TrainConfig, learning_rate=scale.learning_rates[0], **flags)
    if len(scale.learning_rates) > 1:
        from_flags(SweepConfig, learning_rates=scale.learning_rates, **flags)


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
def test_every_size_of_the_paper_has_examples_and_a_model(scale: Scale) -> None:
    assert scale.examples.keys() == {FEW, MANY}
    assert scale.examples[FEW] <= scale.examples[MANY]
    assert len(scale.models) in (1, 2)
