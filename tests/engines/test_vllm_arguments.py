"""What vLLM is started with, without a GPU and without vLLM's engine."""

import typing
from collections.abc import Iterator

import pytest

from artsel_ray.config import EngineSettings
from artsel_ray.engines.vllm_arguments import (
    UTILIZATION,
    cpu_cache_gib,
    in_our_words,
    placement_arguments,
    wait_for_free_memory,
)


def test_unset_flags_leave_vllms_defaults() -> None:
    assert placement_arguments(EngineSettings()) == {"tensor_parallel_size": 1}
    assert placement_arguments(EngineSettings(gpus_per_engine=1)) == {"tensor_parallel_size": 1}
    assert placement_arguments(EngineSettings(gpus_per_engine=0)) == {"tensor_parallel_size": 1}


def test_all_flags_reach_vllm() -> None:
    pool = EngineSettings(
        tensor_parallel=2, gpu_memory_utilization=0.8, max_num_seqs=64, quantization="fp8", kv_cache_dtype="fp8"
    )
    assert placement_arguments(pool) == {
        "tensor_parallel_size": 2, "gpu_memory_utilization": 0.8, "max_num_seqs": 64, "quantization": "fp8",
        "kv_cache_dtype": "fp8",
    }  # fmt: skip


def test_share_of_a_gpu_takes_that_share_of_its_memory_unless_it_is_given() -> None:
    half = placement_arguments(EngineSettings(gpus_per_engine=0.5))
    assert half["gpu_memory_utilization"] == pytest.approx(UTILIZATION / 2)
    given = placement_arguments(EngineSettings(gpus_per_engine=0.5, gpu_memory_utilization=0.4))
    assert given["gpu_memory_utilization"] == 0.4


def test_names_and_values_are_vllms() -> None:
    from vllm.config.cache import CacheConfig, CacheDType
    from vllm.engine.arg_utils import EngineArgs
    from vllm.model_executor.layers.quantization import QUANTIZATION_METHODS

    every = EngineSettings(gpu_memory_utilization=0.5, max_num_seqs=1, quantization="fp8", kv_cache_dtype="fp8")
    assert placement_arguments(every).keys() <= EngineArgs.__dataclass_fields__.keys()
    hints = typing.get_type_hints(EngineSettings)
    assert set(typing.get_args(hints["kv_cache_dtype"])) <= set(typing.get_args(CacheDType))
    assert "fp8" in QUANTIZATION_METHODS
    assert CacheConfig().gpu_memory_utilization == UTILIZATION


GEMMA = {"num_hidden_layers": 6, "num_attention_heads": 32, "num_key_value_heads": 32, "head_dim": 256}


def test_cache_on_cpus_holds_one_prompt_if_the_memory_allows_it() -> None:
    # 2 · 6 layers · 32 heads · 256 · 4 bytes are 393,216 bytes a token; 8,192 tokens and a block are 3.05 GiB.
    assert cpu_cache_gib(GEMMA, 8192, 16) == 4
    assert cpu_cache_gib({"text_config": GEMMA}, 8192, 16) == 4
    assert cpu_cache_gib(GEMMA, 8192, 7) == 2
    assert cpu_cache_gib({"num_hidden_layers": 30, "num_attention_heads": 9, "hidden_size": 576}, 2048, 16) == 2
    assert cpu_cache_gib({}, 2048, 16) == 2


def test_error_of_a_small_cache_names_flags_that_exist() -> None:
    error = ValueError(
        "To serve at least one request with the model's max seq len (8192), (3.0 GiB KV cache is needed, which is "
        "larger than the available KV cache memory (1.95 GiB). Based on the available memory, the estimated maximum "
        "model length is 5248. Try increasing `gpu_memory_utilization` or decreasing `max_model_len`."
    )
    assert str(in_our_words(error, on_cpu=True)) == (
        "To serve at least one request with the model's --max-model-length (8192), (3.0 GiB KV cache is needed, which "
        "is larger than the available KV cache memory (1.95 GiB). Based on the available memory, the estimated maximum "
        "model length is 5248. Lower --max-model-length, or set VLLM_CPU_KVCACHE_SPACE to more GiB"
    )
    assert str(in_our_words(error, on_cpu=False)).endswith("or raise --gpu-memory-utilization")
    held = in_our_words(ValueError("Free memory on device cuda:0 (1.0/80.0 GiB) on startup is less than"), on_cpu=False)
    assert isinstance(held, RuntimeError)  # an engine may start again


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("Model architectures ['X'] are not supported for now."), None),
        (ValueError("Total number of attention heads (9) must be divisible by tensor parallel size (2)."), None),
        (
            ValueError("Bfloat16 is only supported on GPUs with compute capability of at least 8.0. You can use "
                       "float16 instead by explicitly setting the `dtype` flag in CLI, for example: --dtype=half."),
            "Bfloat16 is only supported on GPUs with compute capability of at least 8.0. You can use float16 "
            "instead by explicitly setting the `dtype` flag in CLI, for example: --dtype float16.",
        ),
        (
            ValueError("User-specified max_model_len (9) is greater than the derived max_model_len (8). To allow "
                       "greater maximum length, set the env var VLLM_ALLOW_LONG_MAX_MODEL_LEN=1."),
            "User-specified --max-model-length (9) is greater than the derived --max-model-length (8).",
        ),
        (
            ValueError("The model needs its own code. Please pass the argument `trust_remote_code=True` to run it."),
            "The model needs its own code.",
        ),
        (
            RuntimeError("CUDA out of memory occurred when warming up. Please try lowering `max_num_seqs` or "
                         "`gpu_memory_utilization` when initializing the engine."),
            "CUDA out of memory occurred when warming up. Lower --max-num-seqs, --max-model-length or "
            "--gpu-memory-utilization",
        ),
        (
            RuntimeError("CUDA out of memory. Tried to allocate 2 GiB. If memory is large try setting "
                         "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid fragmentation."),
            "CUDA out of memory. Lower --max-num-seqs, --max-model-length or --gpu-memory-utilization",
        ),
    ],
)  # fmt: skip
def test_errors_of_vllm_advise_only_what_the_command_has(
    error: ValueError | RuntimeError, expected: str | None
) -> None:
    found = in_our_words(error, on_cpu=False)
    assert (type(found), str(found)) == (type(error), expected or str(error))


def test_memory_that_is_not_free_yet_is_waited_for_with_a_limit() -> None:
    free: Iterator[float] = iter([0.1, 0.5, 0.95])
    wait_for_free_memory(lambda: next(free), 0.92, seconds=10, poll=0)
    with pytest.raises(RuntimeError, match="only 30% of the GPU's memory is free, and the engine takes 92%"):
        wait_for_free_memory(lambda: 0.3, 0.92, seconds=0, poll=0)
