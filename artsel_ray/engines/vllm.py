"""The one vLLM class: captions, rationales and scores go through it."""

import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from artsel_ray.config import Dtype
from artsel_ray.data.images import ArtworkImage
from artsel_ray.engines.base import Sampling, UsageCounter
from artsel_ray.prompts.tokenizer import Ids

# What vLLM keeps of pictures that it has made its inputs of, and pictures that it is given at once.
_PICTURES_GIB, _PICTURES_AT_ONCE = 2, 256


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
            seeded: whether `generate` will be given seeds.
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
        self.usage = UsageCounter()

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

    def generate(
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
        tokens = [TokensPrompt(prompt_token_ids=ids.tolist()) for ids in prompts]
        outputs: list[Any] = []
        with self.usage.timed() as usage:
            for part in _parts(images) if images else [slice(None)]:
                pil_images: dict[str, Image.Image] = {}  # one for all prompts that show it
                for prompt, shown in zip(tokens[part], images[part], strict=bool(images)):
                    pil_images |= {
                        each.digest: Image.fromarray(each.pixels) for each in shown if each.digest not in pil_images
                    }
                    prompt["multi_modal_data"] = {"image": [pil_images[each.digest] for each in shown]}
                    # Else vLLM would hash all pixels of every prompt.
                    prompt["multi_modal_uuids"] = {"image": [each.digest for each in shown]}
                outputs += self._llm.generate(tokens[part], params[part], use_tqdm=False)
                for prompt in tokens[part]:
                    prompt.pop("multi_modal_data", None)
            for output in outputs:
                usage.prompt_tokens += len(output.prompt_token_ids or ())
                usage.cached_tokens += output.num_cached_tokens or 0
                usage.decoded_tokens += len(output.outputs[0].token_ids)
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
