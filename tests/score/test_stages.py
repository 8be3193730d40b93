import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from artsel_ray.errors import InputError
from artsel_ray.models.load import Model
from artsel_ray.prompts.spec import PromptSpec
from artsel_ray.score.rendering import RenderedShard
from artsel_ray.score.resolve import ScoringSettings
from artsel_ray.score.settings import ScoreConfig
from artsel_ray.score.stages import Scorer, Starts, Writer, boxed, unboxed

RENDERING = ScoringSettings("smollm2", "smollm2@x", PromptSpec(), 2048, "choose")
CONFIG = ScoreConfig("R", "T", "A", "P", "smollm2", engine="null")


def batch(shard: RenderedShard | InputError) -> dict[str, Any]:
    return {"shard": boxed(shard), "render_seconds": [0.5]}


def test_ray_cannot_log_what_goes_from_actor_to_actor() -> None:
    box = boxed("what a user watched")
    with pytest.raises(pa.ArrowInvalid) as caught:  # its message is logged
        pa.infer_type(box)
    assert "watched" not in str(caught.value)
    assert unboxed(box) == "what a user watched"


@pytest.fixture
def starts(ray_cluster: None) -> Any:
    """A count of the engines' starts."""
    return Starts.remote()


def test_a_shard_goes_through_scorer_and_writer(
    world: Path, smollm2: Model, render: Callable[[Path, ScoringSettings], RenderedShard], starts: Any
) -> None:
    shard = render(world, RENDERING)
    scored = Scorer(CONFIG, RENDERING, 4, starts)(batch(shard))
    written = Writer(replace(CONFIG, output=str(world / "P")))(scored)
    statistics = json.loads(written["answer"][0])
    assert (statistics["pairs"], statistics["render_seconds"]) == (24, 0.5)
    assert statistics["engine_memory_gib"] > 0.01
    assert (world / "P/part-000000.parquet").exists()


def test_what_a_stage_could_not_do_comes_out_as_one_line(world: Path, smollm2: Model, starts: Any) -> None:
    scored = Scorer(CONFIG, RENDERING, 4, starts)(batch(InputError("no such file")))
    assert Writer(CONFIG)(scored)["error"] == ["no such file"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "/nowhere"}, "the engine does not start: .*/nowhere"),
        # Twice what the model was made for: vLLM refuses at its start.
        ({"engine": "vllm"}, "the engine does not start: .*max_model_len"),
    ],
)
def test_an_engine_that_does_not_start_says_why(
    world: Path,
    smollm2: Model,
    render: Callable[[Path, ScoringSettings], RenderedShard],
    starts: Any,
    changes: dict[str, Any],
    message: str,
) -> None:
    shard = render(world, RENDERING)
    config = replace(CONFIG, **changes)
    scored = Scorer(config, replace(RENDERING, model=config.model, max_model_length=16_384), 4, starts)(batch(shard))
    with pytest.raises(InputError, match=message):
        raise unboxed(scored["scored"])


def test_engines_that_only_die_are_not_started_for_ever(world: Path, smollm2: Model, starts: Any) -> None:
    shard = InputError("nothing to score")
    refused = [str(unboxed(Scorer(CONFIG, RENDERING, 4, starts)(batch(shard))["scored"])) for _ in range(5)]
    assert refused[:4] == ["nothing to score"] * 4
    assert "it dies with no shard done" in refused[4]


def test_a_shard_that_is_done_makes_the_count_begin_anew(
    world: Path, smollm2: Model, render: Callable[[Path, ScoringSettings], RenderedShard], starts: Any
) -> None:
    shard = render(world, RENDERING)
    for _ in range(8):
        scored = Scorer(CONFIG, RENDERING, 4, starts)(batch(shard))
        assert not isinstance(unboxed(scored["scored"]), InputError)
