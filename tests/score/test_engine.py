from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import ray

from artsel_ray.engines.fake import FakeEngine
from artsel_ray.engines.torch import TorchEngine
from artsel_ray.errors import InputError
from artsel_ray.models.load import Model
from artsel_ray.prompts.spec import PromptSpec
from artsel_ray.runtime.engine_pool import EngineActor, EngineStage, Item, Starts
from artsel_ray.runtime.task_result import unwrap, wrap
from artsel_ray.score.engine import EngineLoader
from artsel_ray.score.scoring_settings import ScoringSettings

SETTINGS = ScoringSettings("smollm2", "smollm2@x", PromptSpec(), 2048, "choose")
LOADER = EngineLoader(SETTINGS, "fake", "auto", 1, 4, None)


@pytest.mark.usefixtures("ray_cluster")
def test_loader_travels_to_the_actor(smollm2: Model) -> None:
    assert ray.get(ray.put(LOADER)) == LOADER
    assert isinstance(LOADER(), FakeEngine)


def test_fake_engine_simulates_a_speed(smollm2: Model) -> None:
    engine = replace(LOADER, fake_tokens_per_second=1000.0)()
    engine.logprobs([np.arange(50, dtype=np.int32)], [[1, 2]])
    assert engine.usage.take().seconds >= 0.05


def test_transformers_engine_loads_the_model(smollm2: Model) -> None:
    engine = replace(LOADER, kind="transformers")()
    assert isinstance(engine, TorchEngine)
    (logprobs,) = engine.logprobs([np.array([1, 2, 3], dtype=np.int32)], [[5, 6]])
    assert (logprobs < 0).all()


@pytest.mark.parametrize(
    ("model", "kind", "message"),
    [
        ("/nowhere", "fake", "the engine does not start: .*/nowhere"),
        # Twice what the model was made for: vLLM refuses when it starts.
        ("smollm2", "vllm", "the engine does not start: .*max_model_len"),
    ],
)
def test_engine_that_does_not_start_reports_why(
    smollm2: Model, ray_cluster: None, model: str, kind: Any, message: str
) -> None:
    settings = replace(SETTINGS, model=model, max_model_length=16_384)
    stage = EngineStage("score", lambda: lambda shard, get_engine: shard, replace(LOADER, settings=settings, kind=kind))
    actor = EngineActor(stage, Starts.remote(), 4, None, "P")
    with pytest.raises(InputError, match=message):
        raise unwrap(actor(wrap(Item(0, None, {}))))
