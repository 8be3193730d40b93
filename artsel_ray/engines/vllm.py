"""The one vLLM class: captions, reasons and scores go through it. Transformers in its place, and a null engine."""

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from artsel_ray.data.pil_images import ArtworkImage
from artsel_ray.engines.base import Sampling
from artsel_ray.prompts.pil_images import ImagePlaceholders
from artsel_ray.prompts.tokenizer import Ids

_BLOCK = 16
# What vLLM keeps of pictures that it has made its inputs of, and pictures that it is given at once.
_PICTURES_GIB, _PICTURES_AT_ONCE = 2, 256
Dtype = Literal["auto", "float32", "bfloat16", "float16"]


@dataclass
class Usage:
    """What an engine has done since it was last asked."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    decoded_tokens: int = 0
    seconds: float = 0.0


class VllmEngine:
    """Runs a model in vLLM inside this process."""

    def __init__(
        self,
        model: Path,
        max_model_length: int,
        max_allowed: int,
        dtype: Dtype = "auto",
        tensor_parallel: int = 1,
        seeded: bool = False,
        images: int = 0,
    ) -> None:
        """Loads the model; on a CPU that takes about a minute.

        Args:
            model: a folder from `artsel_ray.models.load`.
            max_model_length: longest prompt and answer together, in tokens.
            max_allowed: most allowed tokens of one question.
            dtype: of the weights; `auto` is float32 on CPUs, where half precision is emulated.
            tensor_parallel: GPUs that share the model.
            seeded: whether `write` will be given seeds.
            pictures: most of a prompt, for a vision-language model.
        """
        # In-process: one process to watch and to kill, and no copy of each prompt between two.
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
        import torch
        from vllm import LLM

        on_cpu = not torch.cuda.is_available()
        # A prompt's only picture is to be described, and none twice; those of a title are shown to all its users.
        kept = _PICTURES_GIB if images > 1 else 0
        about: dict[str, Any] = {"limit_mm_per_prompt": {"image": images, "video": 0}, "mm_processor_cache_gb": kept}
        self._llm = LLM(
            str(model),
            dtype="float32" if on_cpu and dtype == "auto" else dtype,
            max_model_len=max_model_length,
            max_logprobs=max_allowed,
            tensor_parallel_size=tensor_parallel,
            # After a part of a prompt vLLM sets a seeded generator back, which a CPU's generator cannot be.
            enable_chunked_prefill=False if seeded and on_cpu else None,
            enforce_eager=on_cpu,
            enable_prefix_caching=True,
            load_format="safetensors",
            trust_remote_code=False,
            seed=0,
            **(about if images else {}),
        )
        self.usage = Usage()

    def take_usage(self) -> Usage:
        """Returns what was used since the last call."""
        used, self.usage = self.usage, Usage()
        return used

    def logprobs(
        self, prompts: Sequence[Ids], allowed: Sequence[list[int]], images: Sequence[Sequence[ArtworkImage]] = ()
    ) -> list[np.ndarray]:
        """See `artsel_ray.engines.base.Engine`."""
        from vllm import SamplingParams

        params = [
            SamplingParams(
                temperature=0.0, max_tokens=1, logprob_token_ids=ids, allowed_token_ids=ids, detokenize=False
            )
            for ids in allowed
        ]
        outputs = self._generate(prompts, params, images)
        first_steps = [output.outputs[0].logprobs[0] for output in outputs]
        return [
            np.array([step[token].logprob for token in ids]) for step, ids in zip(first_steps, allowed, strict=True)
        ]

    def write(
        self,
        prompts: Sequence[Ids],
        max_tokens: int,
        stop: Sequence[int],
        sampling: Sampling | None = None,
        images: Sequence[Sequence[ArtworkImage]] = (),
    ) -> list[list[int]]:
        """See `artsel_ray.engines.base.Engine`."""
        from vllm import SamplingParams

        params = partial(
            SamplingParams, max_tokens=max_tokens, stop_token_ids=list(stop), ignore_eos=True, detokenize=False
        )
        if sampling is None:
            of_prompts = [params(temperature=0.0)] * len(prompts)
        else:
            drawn = partial(params, temperature=sampling.temperature, top_p=sampling.top_p, top_k=sampling.top_k)
            of_prompts = [drawn(seed=seed) for seed in sampling.seeds]
        outputs = self._generate(prompts, of_prompts, images)
        written = [list(output.outputs[0].token_ids) for output in outputs]
        return [ids[:-1] if ids and ids[-1] in stop else ids for ids in written]

    def _generate(
        self, prompts: Sequence[Ids], params: list[Any], images: Sequence[Sequence[ArtworkImage]]
    ) -> list[Any]:
        from vllm.inputs import TokensPrompt

        if not prompts:
            return []
        begun = time.perf_counter()
        tokens = [TokensPrompt(prompt_token_ids=ids.tolist()) for ids in prompts]
        outputs: list[Any] = []
        for part in _parts(images) if images else [slice(None)]:
            pil_images: dict[str, Image.Image] = {}  # one for all prompts that show it
            for prompt, seen in zip(tokens[part], images[part], strict=bool(images)):
                pil_images |= {
                    each.digest: Image.fromarray(each.pixels) for each in seen if each.digest not in pil_images
                }
                prompt["multi_modal_data"] = {"image": [pil_images[each.digest] for each in seen]}
                # Else vLLM would hash all pixels of every prompt.
                prompt["multi_modal_uuids"] = {"image": [each.digest for each in seen]}
            outputs += self._llm.generate(tokens[part], params[part], use_tqdm=False)
            for prompt in tokens[part]:
                prompt.pop("multi_modal_data", None)
        self.usage.seconds += time.perf_counter() - begun
        for output in outputs:
            self.usage.prompt_tokens += len(output.prompt_token_ids or ())
            self.usage.cached_tokens += output.num_cached_tokens or 0
            self.usage.decoded_tokens += len(output.outputs[0].token_ids)
        return outputs


def _parts(images: Sequence[Sequence[ArtworkImage]]) -> Iterator[slice]:
    """Yields slices of prompts with not too many different pictures: vLLM holds all that it is asked at once."""
    start, shown = 0, set[str]()
    for place, seen in enumerate(images):
        digests = {image.digest for image in seen}
        if len(shown | digests) > _PICTURES_AT_ONCE and place > start:
            yield slice(start, place)
            start, shown = place, set()
        shown |= digests
    yield slice(start, len(images))


class TransformersEngine:
    """Runs a model in transformers inside this process: slower than vLLM, for machines that vLLM does not know."""

    def __init__(self, model: Path, dtype: Dtype = "auto", placeholders: ImagePlaceholders | None = None) -> None:
        """Loads the model, on the GPU if there is one.

        Args:
            model: a folder from `artsel_ray.models.load`.
            dtype: of the weights; `auto` is float32 on CPUs and the model's own on a GPU.
            marks: what marks pictures, where prompts have any.
        """
        import torch

        from artsel_ray.engines.torch import TorchEngine
        from artsel_ray.models.weights import read_model

        device = "cuda" if torch.cuda.is_available() else "cpu"
        chosen = "float32" if dtype == "auto" and device == "cpu" else dtype
        weights: Any = read_model(model, chosen)
        self._engine = TorchEngine(weights.to(device), placeholders)
        self.usage = Usage()

    def take_usage(self) -> Usage:
        """Returns what was used since the last call."""
        used, self.usage = self.usage, Usage()
        return used

    def logprobs(
        self, prompts: Sequence[Ids], allowed: Sequence[list[int]], images: Sequence[Sequence[ArtworkImage]] = ()
    ) -> list[np.ndarray]:
        """See `artsel_ray.engines.base.Engine`."""
        begun = time.perf_counter()
        answers = self._engine.logprobs(prompts, allowed, images)
        self._count(prompts, images, len(prompts), begun)
        return answers

    def write(
        self,
        prompts: Sequence[Ids],
        max_tokens: int,
        stop: Sequence[int],
        sampling: Sampling | None = None,
        images: Sequence[Sequence[ArtworkImage]] = (),
    ) -> list[list[int]]:
        """See `artsel_ray.engines.base.Engine`."""
        begun = time.perf_counter()
        written = self._engine.write(prompts, max_tokens, stop, sampling, images)
        self._count(prompts, images, sum(map(len, written)), begun)
        return written

    def _count(
        self, prompts: Sequence[Ids], images: Sequence[Sequence[ArtworkImage]], decoded: int, begun: float
    ) -> None:
        self.usage.prompt_tokens += sum(map(len, self._engine.expanded(prompts, images)))
        self.usage.decoded_tokens += decoded
        self.usage.seconds += time.perf_counter() - begun


class FakeEngine:
    """Answers with numbers that depend on the prompt's length and the allowed tokens only.

    At once, or after the time that an engine would take that computes what a prompt does not share with the last one.
    """

    def __init__(self, tokens_per_second: float | None = None) -> None:
        """Takes the speed to pretend."""
        self._seconds_per_token = 1 / tokens_per_second if tokens_per_second else 0.0
        self._last: Ids = np.empty(0, dtype=np.int32)
        self.usage = Usage()

    def take_usage(self) -> Usage:
        """Returns what was used since the last call."""
        used, self.usage = self.usage, Usage()
        return used

    def logprobs(
        self, prompts: Sequence[Ids], allowed: Sequence[list[int]], images: Sequence[Sequence[ArtworkImage]] = ()
    ) -> list[np.ndarray]:
        """See `artsel_ray.engines.base.Engine`."""
        self._count(prompts)
        return [
            -np.abs(np.sin(np.array(ids, dtype=np.float64) * (len(prompt) + 1))) - 0.1
            for prompt, ids in zip(prompts, allowed, strict=True)
        ]

    def write(
        self,
        prompts: Sequence[Ids],
        max_tokens: int,
        stop: Sequence[int],
        sampling: Sampling | None = None,
        images: Sequence[Sequence[ArtworkImage]] = (),
    ) -> list[list[int]]:
        """See `artsel_ray.engines.base.Engine`."""
        self._count(prompts)
        return [prompt[-max_tokens:].tolist() for prompt in prompts]

    def _count(self, prompts: Sequence[Ids]) -> None:
        asked = sum(map(len, prompts))
        if self._seconds_per_token:
            begun = time.perf_counter()
            shared = sum(self._shared(prompt) for prompt in prompts)
            self.usage.cached_tokens += shared
            time.sleep((asked - shared) * self._seconds_per_token)
            self.usage.seconds += time.perf_counter() - begun
        self.usage.prompt_tokens += asked
        self.usage.decoded_tokens += len(prompts)

    def _shared(self, prompt: Ids) -> int:
        """Returns how many tokens a prompt begins with as the last one did, in whole blocks."""
        length = min(len(prompt), len(self._last))
        different = np.flatnonzero(prompt[:length] != self._last[:length])
        self._last = prompt
        return int(different[0] if len(different) else length) // _BLOCK * _BLOCK
