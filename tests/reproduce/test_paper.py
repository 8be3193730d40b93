import pytest

from artsel_ray.config import from_flags
from artsel_ray.distill.settings import DistillConfig
from artsel_ray.reproduce.paper import FEW, FIGURE1, MANY, ROWS, SCALES, Experiment, Scale, experiments, zero_shot
from artsel_ray.simulate.settings import SimulateConfig
from artsel_ray.train.settings import SweepConfig, TrainConfig


def test_each_table_has_the_papers_numbers() -> None:
    numbers = {table: [(row.accuracy, row.ips) for row in ROWS if row.table == table] for table in ("1", "2", "3", "4")}
    assert numbers == {
        "1": [(-74.96, -4.59), (-4.22, -0.19), (-2.55, 2.45), (0.91, 2.82), (1.41, 5.21)],
        "2": [(-11.55, -6.81), (-12.76, -8.15), (-7.06, -1.73), (-6.52, -0.19)],
        "3": [(6.71, 5.76), (8.38, 8.06), (10.53, 10.60), (-0.40, 0.67), (1.14, 1.52), (3.05, 3.02), (1.64, -0.96),
              (1.67, 3.02), (5.63, 5.40)],
        "4": [(-4.26, 1.42), (-3.73, 0.0), (-5.38, -0.19), (-3.21, 2.82)],
    }  # fmt: skip


def test_only_table_3_is_relative_to_the_model_before_training() -> None:
    assert {row.table for row in ROWS if row.against == "zero-shot"} == {"3"}
    assert {row.table for row in ROWS if row.against == "production"} == {"1", "2", "4"}


def test_experiments_that_tables_share_run_once_and_after_what_they_need() -> None:
    plan = experiments(ROWS, FIGURE1)
    assert len(plan) == len(set(plan)) == 17
    assert {row.experiment for row in ROWS if row.experiment} <= set(plan)
    for experiment in plan:
        assert experiment.start is None or plan.index(experiment.start) < plan.index(experiment)
        assert plan.index(zero_shot(experiment)) <= plan.index(experiment)
        assert (experiment.method == "zero-shot") == (experiment.examples == 0)
        assert experiment.examples in (0, FEW, MANY)
    assert [experiment.method for experiment in plan[:4]] == ["zero-shot"] * 4
    assert set(experiments([row for row in ROWS if row.table == "2"], [])) == set(plan[:4])


def test_a_table_alone_includes_its_references() -> None:
    alone = experiments([row for row in ROWS if row.label == "3B, 10K, number"], [])
    assert alone == [Experiment("3B", "number"), Experiment("3B", "number", "sft", FEW)]


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
