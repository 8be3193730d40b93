"""What vLLM is started with on a share of a GPU or on CPUs, and its errors of memory in the words of our flags.

Imports neither vllm nor torch.
"""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from artsel_ray.config import EngineSettings
from artsel_ray.errors import sentences, without_advice

UTILIZATION = 0.92
"""vLLM 0.32's default fraction of a GPU's memory, for an engine that has its GPU alone."""
# vLLM's cache on CPUs, unless one prompt needs more.
_CACHE_GIB = 2
_FREE_SECONDS, _POLL_SECONDS = 120, 5
_CACHE_SPACE = "VLLM_CPU_KVCACHE_SPACE"
# vLLM's names of what this package has flags for.
_OUR_NAMES = {
    "gpu_memory_utilization": "--gpu-memory-utilization",
    "max_model_len": "--max-model-length",
    "max seq len": "--max-model-length",
    "tensor_parallel_size": "--tensor-parallel",
    "max_num_seqs": "--max-num-seqs",
    "kv_cache_dtype": "--kv-cache-dtype",
    "--dtype=half": "--dtype float16",
}
_NUMBER_BYTES = 4  # float32, which CPUs compute with


def placement_arguments(pool: EngineSettings) -> dict[str, Any]:
    """Returns the arguments of `vllm.LLM` for an engine's devices and precision; unset ones keep vLLM's defaults."""
    arguments = {
        "tensor_parallel_size": pool.tensor_parallel,
        "gpu_memory_utilization": gpu_memory_utilization(pool),
        "max_num_seqs": pool.max_num_seqs,
        "kv_cache_dtype": None if pool.kv_cache_dtype == "auto" else pool.kv_cache_dtype,
        "quantization": pool.quantization,
    }
    return {name: value for name, value in arguments.items() if value is not None}


def gpu_memory_utilization(pool: EngineSettings) -> float | None:
    """Returns the fraction of a GPU's memory that an engine takes: what is given, or its share of the GPU."""
    if pool.gpu_memory_utilization is None and pool.gpus_per_engine and pool.gpus_per_engine < 1:
        return UTILIZATION * pool.gpus_per_engine
    return pool.gpu_memory_utilization


def cpu_cache_gib(config: Mapping[str, Any], length: int, available_gib: float) -> int:
    """Returns the GiB of vLLM's cache on CPUs: for one prompt of the maximum length, if half of the memory allows it.

    Args:
        config: the model's config.json.
        length: longest prompt and answer together, in tokens.
        available_gib: memory that is free on this machine.
    """
    text = config.get("text_config", config)
    heads = text.get("num_attention_heads") or 1
    head_size = text.get("head_dim") or (text.get("hidden_size") or 0) // heads
    numbers = 2 * (text.get("num_hidden_layers") or 0) * (text.get("num_key_value_heads") or heads) * head_size
    needed = math.ceil(numbers * _NUMBER_BYTES * (length + 128) / 2**30)  # whole blocks, of 128 tokens
    return max(_CACHE_GIB, needed) if needed <= available_gib / 2 else _CACHE_GIB


def in_our_words(error: ValueError | RuntimeError, on_cpu: bool) -> ValueError | RuntimeError:
    """Returns vLLM's error in one line, without advice that names what this command does not have.

    Memory that another process holds is a RuntimeError, after which an engine is started again.
    """
    text = " ".join(str(error).split())
    for name, ours in _OUR_NAMES.items():
        text = text.replace(f"`{name}`", ours).replace(name, ours)
    first = sentences(text)[0]
    found = without_advice(text, {*_OUR_NAMES.values(), "--dtype", _CACHE_SPACE})
    if text.startswith("Free memory on device"):
        return RuntimeError(f"{first} End what uses it, or lower --gpu-memory-utilization")
    if "out of memory" in text:
        return RuntimeError(f"{first} Lower --max-num-seqs, --max-model-length or --gpu-memory-utilization")
    if "KV cache" in text or "cache blocks" in text:
        found = " ".join(each for each in sentences(found) if not each.startswith("Try "))
        more = f"set {_CACHE_SPACE} to more GiB" if on_cpu else "raise --gpu-memory-utilization"
        found = f"{found} Lower --max-model-length, or {more}"
    return RuntimeError(found) if isinstance(error, RuntimeError) else ValueError(found)


def wait_for_free_memory(
    free: Callable[[], float], wanted: float, seconds: float = _FREE_SECONDS, poll: float = _POLL_SECONDS
) -> None:
    """Waits until a fraction of a GPU's memory is free: what an engine held that has just ended is freed a bit later.

    Args:
        free: returns the fraction that is free now.

    Raises:
        RuntimeError: if it is not free within the limit.
    """
    deadline = time.monotonic() + seconds
    while (now := free()) < wanted:
        if time.monotonic() >= deadline:
            raise RuntimeError(  # after which the engine is started again, elsewhere if there is room
                f"only {now:.0%} of the GPU's memory is free, and the engine takes {wanted:.0%}; end what uses it, or "
                "lower --gpu-memory-utilization"
            )
        time.sleep(poll)
