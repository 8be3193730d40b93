"""The engine in torch: what stands beside a prompt in a batch changes nothing."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from artsel_ray.engines.base import Sampling
from artsel_ray.engines.torch import TorchEngine
from artsel_ray.models import adapter
from artsel_ray.models.load import load

PROMPTS = [np.arange(start, start + length, dtype=np.int32) % 250 for start, length in ((5, 3), (40, 9), (300, 6))]


@pytest.fixture(scope="module")
def model(tiny_llama: Callable[[bool], str]) -> Any:
    return adapter.read_model(load(tiny_llama(True)).path, torch.float32)


@pytest.fixture(scope="module")
def engine(model: Any) -> TorchEngine:
    return TorchEngine(model)


def test_log_probabilities_are_those_of_the_prompt_alone(engine: TorchEngine, model: Any) -> None:
    allowed = [[7, 8], [9], [1, 2, 3]]
    together = engine.logprobs(PROMPTS, allowed)
    for prompt, ids, got in zip(PROMPTS, allowed, together, strict=True):
        np.testing.assert_allclose(engine.logprobs([prompt], [ids])[0], got, atol=1e-4)
        whole = engine.logprobs([prompt], [list(range(model.config.vocab_size))])[0]
        assert np.exp(whole).sum() == pytest.approx(1, abs=1e-4)
        np.testing.assert_allclose(whole[ids], got, atol=1e-4)


def test_what_is_written_is_what_is_written_alone_up_to_the_stop(engine: TorchEngine, model: Any) -> None:
    last = model.config.vocab_size - 1
    free = engine.write(PROMPTS, 8, [last])
    assert free == [engine.write([prompt], 8, [last])[0] for prompt in PROMPTS]
    stop = free[0][3]
    for cut, whole in zip(engine.write(PROMPTS, 8, [stop]), free, strict=True):
        assert cut == (whole[: whole.index(stop)] if stop in whole else whole)


def test_a_seed_draws_the_same_in_any_company(engine: TorchEngine) -> None:
    together = engine.write(PROMPTS, 6, [249], Sampling(1.0, 1.0, 0, [1, 2, 3]))
    alone = [engine.write([PROMPTS[n]], 6, [249], Sampling(1.0, 1.0, 0, [n + 1]))[0] for n in range(3)]
    assert together == alone
    assert together != engine.write(PROMPTS, 6, [249], Sampling(1.0, 1.0, 0, [4, 5, 6]))
