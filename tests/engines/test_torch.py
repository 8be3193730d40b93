"""The engine on transformers models: a prompt's answer does not depend on the rest of its batch."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import RwkvConfig, RwkvForCausalLM

from artsel_ray.engines.base import Sampling
from artsel_ray.engines.torch import TorchEngine, device_and_dtype, load_torch_engine, until_stop
from artsel_ray.errors import InputError
from artsel_ray.models.load import Model, load
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


def test_prompts_of_a_recurrent_model_are_not_padded() -> None:
    torch.manual_seed(0)
    config = RwkvConfig(
        vocab_size=300, hidden_size=32, num_hidden_layers=2, context_length=64, attention_hidden_size=32
    )
    engine = TorchEngine(RwkvForCausalLM(config))
    together = engine.logprobs(PROMPTS, [[7, 8]] * 3)
    for prompt, got in zip(PROMPTS, together, strict=True):
        np.testing.assert_allclose(engine.logprobs([prompt], [[7, 8]])[0], got, atol=1e-5)
    assert engine.generate(PROMPTS, 4, [1]) == [engine.generate([prompt], 4, [1])[0] for prompt in PROMPTS]


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


@pytest.mark.parametrize(
    "settings",
    [
        {"do_sample": True, "temperature": 1.5, "top_p": 0.9}, {"repetition_penalty": 1.5}, {"no_repeat_ngram_size": 1},
        {"suppress_tokens": list(range(2, 200))}, {"begin_suppress_tokens": list(range(2, 200))}, {"min_length": 60},
        {"forced_eos_token_id": 7}, {"bad_words_ids": [[token] for token in range(2, 200)]}, {"stop_strings": ["a"]},
        {"num_beams": 3}, {"max_length": 3}, {"sequence_bias": [[[7], 50.0]]}, {"return_dict_in_generate": True},
    ],
)  # fmt: skip
def test_generation_config_of_a_model_changes_nothing(
    engine: TorchEngine, tiny_llama: Callable[[bool], str], tmp_path: Path, settings: dict[str, Any]
) -> None:
    folder = Path(shutil.copytree(load(tiny_llama(True)).path, tmp_path / "model"))
    (folder / "generation_config.json").write_text(json.dumps({"bos_token_id": 0, "eos_token_id": 1, **settings}))
    other = load_torch_engine(Model(folder, "tiny", None), "auto")
    before = other._model.generation_config
    assert other.generate(PROMPTS, 12, [1]) == engine.generate(PROMPTS, 12, [1])
    assert other._model.generation_config is before


def test_adapters_are_used_and_the_base_keeps_its_generation_config(tiny_llama: Callable[[bool], str]) -> None:
    model = read_model(load(tiny_llama(True)).path, torch.float32)
    own, plain = model.generation_config, TorchEngine(model).generate(PROMPTS, 8, [1])
    settings = LoraConfig(target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    adapted: Any = get_peft_model(model, settings)
    assert TorchEngine(adapted).generate(PROMPTS, 8, [1]) != plain
    assert model.generation_config is own


@pytest.mark.parametrize("sampling", [None, Sampling(1.0, 1.0, 0, [1, 2, 3])])
def test_text_of_a_model_that_answers_nan_is_refused(
    tiny_llama: Callable[[bool], str], sampling: Sampling | None
) -> None:
    model: Any = read_model(load(tiny_llama(True)).path, torch.float32)
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight.fill_(torch.nan)
    model.train()
    with pytest.raises(InputError, match="the model answers with NaN"):
        TorchEngine(model).generate(PROMPTS, 4, [1], sampling)
    assert model.training


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
