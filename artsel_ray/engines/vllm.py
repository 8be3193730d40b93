"""An engine on a model in vLLM: generates captions and rationales, and scores."""

import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import psutil
from PIL import Image

from artsel_ray.config import EngineSettings
from artsel_ray.engines.base import NOT_A_NUMBER, Images, Prompts, Sampling, UsageCounter, refusals
from artsel_ray.engines.vllm_arguments import (
    UTILIZATION,
    cpu_cache_gib,
    in_our_words,
    placement_arguments,
    wait_for_free_memory,
)
from artsel_ray.errors import InputError
from artsel_ray.models.files import ADAPTER_CONFIG, read_object
from artsel_ray.models.load import Model

# vLLM's cache of processed images, in GiB, and the most distinct images in one call.
_IMAGE_CACHE_GIB, _IMAGES_AT_ONCE = 2, 256
_LOGPROB_IDS = 128  # most that vLLM takes of `logprob_token_ids`


class VllmEngine:
    """Runs a model in vLLM, in this process; on a CPU loading takes about a minute.

    Args:
        model: from `artsel_ray.models.load`.
        max_model_length: longest prompt and answer together, in tokens.
        max_allowed: most allowed tokens of one question about log-probabilities.
        pool: its devices and precision; dtype `auto` is float32 on CPUs, where half precision is emulated.
        seeded: whether `generate` will be given seeds.
        images: most images of a prompt, for a vision-language model; 0 for text.
    """

    def __init__(
        self,
        model: Model,
        max_model_length: int,
        max_allowed: int,
        pool: EngineSettings | None = None,
        seeded: bool = False,
        images: int = 0,
    ) -> None:
        pool = pool or EngineSettings()
        # In this process: one process to watch and to kill, and no copy of each prompt between two.
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
        # Nothing is reported to anybody.
        os.environ |= {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
        os.environ["VLLM_RAISE_ON_LOGIT_NANS"] = "1"
        import torch
        from vllm import LLM
        from vllm.lora.request import LoRARequest

        self._on_cpu = on_cpu = not torch.cuda.is_available()
        placement = placement_arguments(pool)
        number_format = "float32" if on_cpu and pool.dtype == "auto" else pool.dtype
        weights, lora = weights_of(model, number_format)
        if on_cpu:
            free_gib = psutil.virtual_memory().available / 2**30
            cache_gib = cpu_cache_gib(read_object(weights / "config.json"), max_model_length, free_gib)
            os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(cache_gib))
        else:
            wait_for_free_memory(_free_memory, placement.get("gpu_memory_utilization", UTILIZATION))
        # A title's images are shown to all its users; the single image of a caption's prompt is shown once.
        cache = _IMAGE_CACHE_GIB if images > 1 else 0
        vision: dict[str, Any] = {"limit_mm_per_prompt": {"image": images, "video": 0}, "mm_processor_cache_gb": cache}
        start = partial(
            LLM,
            str(weights),
            dtype=number_format,
            max_model_len=max_model_length,
            max_logprobs=min(max_allowed, _LOGPROB_IDS),
            # After a chunk of a prompt vLLM rewinds the seeded generator, which a CPU's generator does not support.
            enable_chunked_prefill=False if seeded and on_cpu else None,
            enforce_eager=on_cpu,
            enable_prefix_caching=True,
            load_format="safetensors",
            trust_remote_code=False,
            seed=0,
            **(vision if images else {}),
            **placement,
            **(_lora_arguments(lora) if lora else {}),
        )
        try:
            self._llm = start()
        except (ValueError, RuntimeError) as error:
            raise in_our_words(error, on_cpu).with_traceback(error.__traceback__) from None
        self._lora = LoRARequest(model.model_id, 1, str(lora)) if lora else None
        self.usage = UsageCounter()

    def logprobs(self, prompts: Prompts, allowed: Sequence[list[int]], images: Images = ()) -> list[np.ndarray]:
        """See `artsel_ray.engines.base.Engine`."""
        from vllm.sampling_params import MAX_LOGPROB_TOKEN_IDS, SamplingParams

        params = partial(SamplingParams, temperature=0.0, max_tokens=1, detokenize=False)
        # A question about more tokens than vLLM answers in one request is asked in parts.
        parts = [(n, part) for n, ids in enumerate(allowed) for part in _parts(ids, MAX_LOGPROB_TOKEN_IDS)]
        params_n = [params(logprob_token_ids=part, allowed_token_ids=part) for _, part in parts]
        asked, shown = [prompts[n] for n, _ in parts], [images[n] for n, _ in parts] if images else ()
        found: list[list[float]] = [[] for _ in allowed]
        for (n, part), output in zip(parts, self._generate(asked, params_n, shown), strict=True):
            step = output.outputs[0].logprobs[0]
            found[n] += [step[token].logprob for token in part]
        return [np.array(values) for values in found]

    def generate(
        self, prompts: Prompts, max_tokens: int, stop: list[int], sampling: Sampling | None = None, images: Images = ()
    ) -> list[list[int]]:
        """See `artsel_ray.engines.base.Engine`."""
        from vllm import SamplingParams

        ends: dict[str, Any] = {"max_tokens": max_tokens, "stop_token_ids": stop, "ignore_eos": True}
        params = partial(SamplingParams, **ends, detokenize=False)
        if sampling is None:
            params_n = [params(temperature=0.0)] * len(prompts)
        else:
            sampled = partial(params, temperature=sampling.temperature, top_p=sampling.top_p, top_k=sampling.top_k)
            params_n = [sampled(seed=seed) for seed in sampling.seeds]
        generated = [list(output.outputs[0].token_ids) for output in self._generate(prompts, params_n, images)]
        return [ids[:-1] if ids and ids[-1] in stop else ids for ids in generated]

    def _generate(self, prompts: Prompts, params: list[Any], images: Images) -> list[Any]:
        from vllm.inputs import TokensPrompt

        if not prompts:
            return []
        inputs = [TokensPrompt(prompt_token_ids=ids.tolist()) for ids in prompts]
        outputs: list[Any] = []
        with self.usage.timed() as usage:
            for batch in _batches(images) if images else [slice(None)]:
                if images:
                    _attach(inputs[batch], images[batch])
                outputs += self._answers(inputs[batch], params[batch])
                for each in inputs[batch]:
                    each.pop("multi_modal_data", None)
            for output in outputs:
                usage.prompt_tokens += len(output.prompt_token_ids or ())
                usage.cached_tokens += output.num_cached_tokens or 0
                usage.decoded_tokens += len(output.outputs[0].token_ids)
        return outputs

    def _answers(self, inputs: list[Any], params: list[Any]) -> list[Any]:
        """Returns vLLM's outputs; the parameters are complete, so that a model's generation config changes nothing."""
        try:
            with refusals():
                return self._llm.generate(inputs, params, use_tqdm=False, lora_request=self._lora)
        except RuntimeError as error:
            if "NaNs detected in logits" in str(error):
                raise InputError(NOT_A_NUMBER) from None
            raise in_our_words(error, self._on_cpu).with_traceback(error.__traceback__) from None


def _parts(ids: list[int], size: int) -> list[list[int]]:
    return [ids[start : start + size] for start in range(0, len(ids), size)]


def weights_of(model: Model, number_format: str) -> tuple[Path, Path | None]:
    """Returns the folders of the weights, and of a LoRA to apply to them, to compute in a number format.

    float32 keeps a merged LoRA, and is faster (benchmarks/results/adapter.md). A half format would lose most of what a
    low learning rate has learned: there LoRA is applied next to the weights, as it was trained.
    """
    return (model.path, None) if number_format == "float32" else (model.base, model.lora)


def _lora_arguments(lora: Path) -> dict[str, Any]:
    """Returns vLLM's arguments for one LoRA, whose rank is rounded up to one that vLLM has.

    Raises:
        InputError: if the rank is larger than any of them.
    """
    from vllm.config.lora import MaxLoRARanks

    rank = read_object(lora / ADAPTER_CONFIG)["r"]
    fitting = [each for each in get_args(MaxLoRARanks) if each >= rank]
    if not fitting:
        raise InputError(f"the adapter's rank is {rank}, and vLLM takes at most {max(get_args(MaxLoRARanks))}; "
                         "score with --dtype float32, which merges it")  # fmt: skip
    return {"enable_lora": True, "max_loras": 1, "max_lora_rank": min(fitting)}


def _free_memory() -> float:
    """Returns the free fraction of the fullest of this process's GPUs."""
    import torch

    found = [torch.cuda.mem_get_info(device) for device in range(torch.cuda.device_count())]
    return min(free / total for free, total in found)


def _attach(inputs: Sequence[Any], images: Images) -> None:
    distinct = {image.digest: image for shown in images for image in shown}
    pil_images = {digest: Image.fromarray(image.pixels) for digest, image in distinct.items()}
    for each, shown in zip(inputs, images, strict=True):
        each["multi_modal_data"] = {"image": [pil_images[image.digest] for image in shown]}
        # Without ids of our own vLLM would hash all pixels of every prompt.
        each["multi_modal_uuids"] = {"image": [image.digest for image in shown]}


def _batches(images: Images) -> Iterator[slice]:
    """Yields slices of prompts with few enough distinct images: vLLM holds all images of a call at once."""
    start, digests = 0, set[str]()
    for index, shown in enumerate(images):
        added = {image.digest for image in shown}
        if len(digests | added) > _IMAGES_AT_ONCE and index > start:
            yield slice(start, index)
            start, digests = index, set()
        digests |= added
    yield slice(start, len(images))
