from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from artsel_ray import storage
from artsel_ray.errors import InputError
from artsel_ray.models.load import Model
from artsel_ray.score.cost_estimate import forecast
from artsel_ray.score.job import score
from artsel_ray.score.settings import ScoreConfig


def config_for(world: Path, **changes: object) -> ScoreConfig:
    requests, titles, artworks, output = (str(world / name) for name in ("requests", "titles", "artworks", "P"))
    config = ScoreConfig(requests, titles, artworks, output, "smollm2", engine="null", decoding="rank")
    return replace(config, **changes)  # type: ignore[arg-type]


@pytest.mark.usefixtures("ray_cluster")
def test_a_plan_says_what_a_run_then_counts(world: Path, smollm2: Model, capsys: pytest.CaptureFixture[str]) -> None:
    forecast(config_for(world, tokens_per_second=1000.0, engines=2))
    plan = storage.read_json(str(world / "P/plan.json"))
    assert "1,000 tokens/s an engine (as given)" in capsys.readouterr().out
    assert plan["seconds"] == pytest.approx(plan["computed_tokens"]["title_first"] / 2000)
    assert not storage.find_files(str(world / "P"))
    score(config_for(world, engines=2))  # the same output: a plan is in nobody's way
    summary = storage.read_json(str(world / "P/summary.json"))
    for name in ("pairs", "prompt_tokens", "decoded_tokens"):
        assert plan[name] == summary[name]


@pytest.mark.usefixtures("ray_cluster")
def test_speed_is_measured_on_a_sample(world: Path, smollm2: Model) -> None:
    forecast(config_for(world, decoding="choose"))
    plan = storage.read_json(str(world / "P/plan.json"))
    assert 0 < plan["measured_pairs"] <= 24
    assert plan["tokens_per_second"] > 0
    assert plan["predictions_bytes"] > 0
    assert not (world / "P/_calibration").exists()


@pytest.mark.usefixtures("ray_cluster")
def test_auto_takes_the_cheaper_layout_and_says_so(world: Path, smollm2: Model) -> None:
    score(config_for(world, layout="auto"))
    assert storage.read_json(str(world / "P/summary.json"))["layout"] == "user_first"
    with pytest.raises(InputError, match="differs in: prompt"):
        score(config_for(world))


@pytest.mark.usefixtures("ray_cluster")
def test_requests_that_nothing_can_be_measured_on_say_so(
    world: Path, smollm2: Model, write_requests: Callable[..., None]
) -> None:
    for file in (world / "requests").iterdir():
        file.unlink()
    write_requests(str(world / "requests/a.parquet"), [("u", [], ["t9"])])
    with pytest.raises(InputError, match="no pair of the sample can be scored"):
        forecast(config_for(world))
