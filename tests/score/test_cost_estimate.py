from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from artsel_ray import storage
from artsel_ray.errors import InputError
from artsel_ray.models.load import Model
from artsel_ray.score.job import score
from tests.support.scoring_world import score_config


def run(world: Path, **flags: Any) -> None:
    score(score_config(world, **{"decoding": "rank", **flags}))


@pytest.mark.usefixtures("ray_cluster")
def test_estimate_equals_what_a_run_then_counts(
    world: Path, smollm2: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    run(world, estimate_cost=True, tokens_per_second=1000.0, engines=2)
    plan = storage.read_json(str(world / "P/plan.json"))
    assert "1,000 tokens/s per engine (as given)" in capsys.readouterr().out
    assert plan["seconds"] == pytest.approx(plan["computed_tokens"]["title_first"] / 2000)
    assert not storage.find_files(str(world / "P"))
    run(world, engines=2)  # the same output: an estimate does not claim it
    summary = storage.read_json(str(world / "P/summary.json"))
    for name in ("pairs", "prompt_tokens", "decoded_tokens"):
        assert plan[name] == summary[name]


@pytest.mark.usefixtures("ray_cluster")
def test_speed_is_measured_on_a_sample(world: Path, smollm2: Model) -> None:
    run(world, estimate_cost=True, decoding="choose")
    plan = storage.read_json(str(world / "P/plan.json"))
    assert 0 < plan["measured_pairs"] <= 24
    assert plan["tokens_per_second"] > 0
    assert plan["predictions_bytes"] > 0
    assert not (world / "P/_calibration").exists()


@pytest.mark.usefixtures("ray_cluster")
def test_estimate_takes_the_cheaper_layout_where_it_may(world: Path, smollm2: Model) -> None:
    run(world, estimate_cost=True, layout="auto")
    plan = storage.read_json(str(world / "P/plan.json"))
    assert plan["layout"] == min(plan["computed_tokens"], key=plan["computed_tokens"].get) == "user_first"


@pytest.mark.usefixtures("ray_cluster")
def test_requests_without_a_pair_to_measure_are_an_error(
    world: Path, smollm2: Model, write_requests: Callable[..., None]
) -> None:
    for file in (world / "requests").iterdir():
        file.unlink()
    write_requests(str(world / "requests/a.parquet"), [("u", [], ["t9"])])
    with pytest.raises(InputError, match="no pair can be scored"):
        run(world, estimate_cost=True)


@pytest.mark.usefixtures("ray_cluster")
def test_speed_is_measured_on_titles_that_ask_the_model_something(
    world: Path, smollm2: Model, write_requests: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    for file in (world / "requests").iterdir():
        file.unlink()
    # Most want t2, which has one candidate: it is chosen without a question.
    write_requests(str(world / "requests/a.parquet"), [(f"u{user}", [], ["t2"]) for user in range(9)])
    run(world, estimate_cost=True)
    plan = storage.read_json(str(world / "P/plan.json"))
    assert "no title asks the model anything" in capsys.readouterr().out
    assert (plan["pairs"], plan["tokens_per_second"], plan["seconds"]) == (9, None, 0)
    write_requests(str(world / "requests/b.parquet"), [("u9", [], ["t2", "t1"])])
    run(world, estimate_cost=True)
    plan = storage.read_json(str(world / "P/plan.json"))
    assert (plan["pairs"], plan["measured_pairs"]) == (11, 1)
    assert plan["tokens_per_second"] > 0
