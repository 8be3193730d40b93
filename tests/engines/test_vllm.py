import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from artsel_ray.config import EngineSettings
from artsel_ray.data.images import ArtworkImage
from artsel_ray.engines import vllm
from artsel_ray.engines.base import Sampling
from artsel_ray.engines.torch import load_torch_engine
from artsel_ray.errors import InputError
from artsel_ray.models.load import Model, load
from artsel_ray.models.weights import copy_processor, read_model
from tests.support.training import write_half_base, write_random_adapter

PROMPTS = [np.arange(start, start + length, dtype=np.int32) % 250 for start, length in ((5, 3), (40, 40), (300, 6))]


@pytest.fixture
def small_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets vLLM share the tests' own process: bound to a core each, its threads would hold what others do here."""
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")


def image(number: int) -> ArtworkImage:
    return ArtworkImage(np.zeros((1, 1, 3), dtype=np.uint8), str(number))


@given(st.lists(st.lists(st.integers(0, 600), min_size=1, max_size=200), max_size=60))
def test_a_batch_shows_no_more_images_than_vllm_may_hold(shown: list[list[int]]) -> None:
    images = [[image(number) for number in each] for each in shown]
    batches = [shown[batch] for batch in vllm._batches(images)]
    assert [each for batch in batches for each in batch] == shown
    for batch in batches:
        assert len(batch) == 1 or len({number for each in batch for number in each}) <= vllm._IMAGES_AT_ONCE


def test_prompts_that_show_the_same_image_share_it() -> None:
    inputs: list[dict[str, Any]] = [{}, {}]
    vllm._attach(inputs, [[image(1), image(2)], [image(2), image(1)]])
    first, second = (each["multi_modal_data"]["image"] for each in inputs)
    assert first[0] is second[1]
    assert first[1] is second[0]
    assert [each["multi_modal_uuids"]["image"] for each in inputs] == [["1", "2"], ["2", "1"]]


def test_lora_is_merged_in_float32_alone() -> None:
    model = Model(Path("base"), "t@1", None, Path("lora"))
    model.__dict__["path"] = Path("merged")
    assert vllm.weights_of(model, "float32") == (Path("merged"), None)
    assert vllm.weights_of(model, "bfloat16") == vllm.weights_of(model, "auto") == (Path("base"), Path("lora"))


@pytest.mark.parametrize(("rank", "fitting"), [(1, 1), (4, 8), (16, 16), (17, 32), (512, 512)])
def test_rank_of_lora_is_rounded_up_to_one_that_vllm_has(rank: int, fitting: int, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": rank}))
    assert vllm._lora_arguments(tmp_path)["max_lora_rank"] == fitting


def test_rank_that_vllm_does_not_have_is_named(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 513}))
    with pytest.raises(InputError, match="rank is 513, and vLLM takes at most 512; score with --dtype float32"):
        vllm._lora_arguments(tmp_path)


@pytest.mark.slow
@pytest.mark.usefixtures("small_vllm")
def test_vllm_serves_an_adapter_of_a_bfloat16_base_as_transformers_does(
    tiny_llama: Callable[[bool], str], tmp_path: Path
) -> None:
    base = write_half_base(tmp_path / "base", tiny_llama(True))
    trained, plain = load(write_random_adapter(tmp_path / "T", base)), load(base)
    option = len(PreTrainedTokenizerFast.from_pretrained(plain.base)) - 1
    prompts = [np.append(prompt, option).astype(np.int32) for prompt in PROMPTS]
    allowed = [list(range(100))] * len(prompts)
    got = np.stack(vllm.VllmEngine(trained, 512, 128, EngineSettings(dtype="bfloat16")).logprobs(prompts, allowed))
    expected = np.stack(load_torch_engine(trained, "float32").logprobs(prompts, allowed))
    untrained = np.stack(load_torch_engine(plain, "float32").logprobs(prompts, allowed))
    assert np.linalg.norm(got - expected) <= 0.05 * np.linalg.norm(expected - untrained)


@pytest.mark.slow
@pytest.mark.usefixtures("small_vllm")
def test_vllm_answers_as_transformers_does_whatever_the_generation_config_says(
    tiny_llama: Callable[[bool], str], tmp_path: Path
) -> None:
    model = load(tiny_llama(True))
    sampling = Path(shutil.copytree(model.path, tmp_path / "sampling"))
    settings = {"do_sample": True, "temperature": 1.5, "top_k": 3, "repetition_penalty": 1.5, "eos_token_id": [1, 7]}
    (sampling / "generation_config.json").write_text(json.dumps({**settings, "min_new_tokens": 6, "max_new_tokens": 3}))
    engine, expected = (
        vllm.VllmEngine(Model(sampling, "tiny", None), 512, 300, seeded=True),
        load_torch_engine(model, "float32"),
    )
    allowed = [[7, 8], [9], list(range(300))]  # vLLM takes 128 at once
    for got, known in zip(engine.logprobs(PROMPTS, allowed), expected.logprobs(PROMPTS, allowed), strict=True):
        np.testing.assert_allclose(got, known, atol=1e-3)
    usage, known_usage = engine.usage.take(), expected.usage.take()
    assert usage.decoded_tokens == known_usage.decoded_tokens + 2  # for the other 172
    assert engine.generate(PROMPTS, 6, [1]) == expected.generate(PROMPTS, 6, [1])
    # The second time, a prompt's complete blocks come from the cache: of 128 tokens on CPUs, of 16 on GPUs.
    for _ in range(2):
        engine.usage.take()
        engine.logprobs([np.arange(300, dtype=np.int32) % 250], [[7, 8]])
    assert engine.usage.take().cached_tokens >= 256
    # vLLM answers 128 tokens at most in one request; a branch may have more children.
    many = [list(range(299, 0, -1)), [7], list(range(128)), list(range(129))]
    asked = [PROMPTS[n] for n in (0, 1, 2, 0)]
    for got, known in zip(engine.logprobs(asked, many), expected.logprobs(asked, many), strict=True):
        np.testing.assert_allclose(got, known, atol=1e-3)
    # Nothing is asked for nothing.
    assert engine.logprobs([], []) == engine.generate([], 6, [1]) == []
    together = engine.generate(PROMPTS, 6, [1], Sampling(1.0, 1.0, 0, [1, 2, 3]))
    assert together == [engine.generate([PROMPTS[n]], 6, [1], Sampling(1.0, 1.0, 0, [n + 1]))[0] for n in range(3)]
    assert together != engine.generate(PROMPTS, 6, [1], Sampling(1.0, 1.0, 0, [4, 5, 6]))


@pytest.mark.slow
@pytest.mark.usefixtures("small_vllm")
def test_answers_of_nan_are_refused(tiny_llama: Callable[[bool], str], tmp_path: Path) -> None:
    model: Any = read_model(load(tiny_llama(True)).path, torch.float32)
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight.fill_(torch.nan)
    model.save_pretrained(tmp_path / "nan")
    copy_processor(load(tiny_llama(True)).path, tmp_path / "nan")
    engine = vllm.VllmEngine(Model(tmp_path / "nan", "nan", None), 512, 3)
    with pytest.raises(InputError, match="the model answers with NaN"):
        engine.generate(PROMPTS, 6, [1])
