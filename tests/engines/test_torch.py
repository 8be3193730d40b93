"""The engine on transformers models: a prompt's answer does not depend on the rest of its batch."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from artsel_ray.engines.base import Sampling
from artsel_ray.engines.torch import TorchEngine, device_and_dtype, load_torch_engine, until_stop
from artsel_ray.models.load import load
from artsel_ray.models.weights import read_model

PROMPTS = [np.arange(start, start + length, dtype=np.int32) % 250 for start, length in ((5, 3), (40, 9), (300, 6))]


@pytest.fixture(scope="module")
def model(tiny_llama: Callable[[bool], str]) -> Any:
    return read_model(load(tiny_llama(True)).path, torch.float32)


@pytest.fixture(scope="module")
def engine(model: Any) -> TorchEngine:
    return TorchEngine(model)


def test_log_probabilities_are_those_of_the_prompt_alone(engine: TorchEngine, model: Any) -> None:
    allowed = [[7, 8], [9], [1, 2, 3]]
    together = engine.logprobs(PROMPTS, allowed)
    for prompt, ids, got in zip(PROMPTS, allowed, together, strict=True):
        np.testing.assert_allclose(engine.logprobs([prompt], [ids])[0], got, atol=1e-4)
        complete = engine.logprobs([prompt], [list(range(model.config.vocab_size))])[0]
        assert np.exp(complete).sum() == pytest.approx(1, abs=1e-4)
        np.testing.assert_allclose(complete[ids], got, atol=1e-4)


def test_generated_text_is_that_of_the_prompt_alone_up_to_the_stop(engine: TorchEngine, model: Any) -> None:
    last = model.config.vocab_size - 1
    free = engine.generate(PROMPTS, 8, [last])
    assert free == [engine.generate([prompt], 8, [last])[0] for prompt in PROMPTS]
    stop = free[0][3]
    for cut, complete in zip(engine.generate(PROMPTS, 8, [stop]), free, strict=True):
        assert cut == (complete[: complete.index(stop)] if stop in complete else complete)


def test_a_seed_samples_the_same_text_in_any_batch(engine: TorchEngine) -> None:
    together = engine.generate(PROMPTS, 6, [249], Sampling(1.0, 1.0, 0, [1, 2, 3]))
    alone = [engine.generate([PROMPTS[n]], 6, [249], Sampling(1.0, 1.0, 0, [n + 1]))[0] for n in range(3)]
    assert together == alone
    assert together != engine.generate(PROMPTS, 6, [249], Sampling(1.0, 1.0, 0, [4, 5, 6]))


def test_usage_counts_prompts_and_generated_tokens(engine: TorchEngine, model: Any) -> None:
    engine.usage.take()
    engine.logprobs(PROMPTS, [[1]] * 3)
    generated = engine.generate(PROMPTS, 4, [model.config.vocab_size - 1])
    usage = engine.usage.take()
    assert usage.prompt_tokens == 2 * sum(map(len, PROMPTS))
    assert usage.decoded_tokens == 3 + sum(map(len, generated))
    assert usage.seconds > 0


def test_the_model_is_left_in_its_mode(engine: TorchEngine, model: Any) -> None:
    for training in (True, False):
        model.train(training)
        first = engine.logprobs(PROMPTS, [[7]] * 3)
        assert model.training is training
        np.testing.assert_array_equal(engine.logprobs(PROMPTS, [[7]] * 3), first)


def test_a_loaded_engine_answers_as_one_on_the_same_weights(engine: TorchEngine, tiny_llama: Any) -> None:
    loaded = load_torch_engine(load(tiny_llama(True)), "auto")
    np.testing.assert_allclose(loaded.logprobs(PROMPTS, [[7]] * 3), engine.logprobs(PROMPTS, [[7]] * 3), atol=1e-4)


def test_auto_is_float32_on_cpus_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert (device_and_dtype("auto"), device_and_dtype("float16")) == (("cpu", "float32"), ("cpu", "float16"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert (device_and_dtype("auto"), device_and_dtype("float32")) == (("cuda", "auto"), ("cuda", "float32"))


def test_ids_are_cut_at_the_first_stop_token() -> None:
    assert until_stop([5, 1, 6, 2], [2, 1]) == [5]
    assert until_stop([5, 6], [2, 1]) == [5, 6]
    assert until_stop([], [1]) == []
