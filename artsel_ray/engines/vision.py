"""A vision-language model in transformers, for captions by models that vLLM does not have."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, GenerationConfig

from artsel_ray.config import Dtype
from artsel_ray.data.images import ArtworkImage
from artsel_ray.engines.base import Sampling, UsageCounter
from artsel_ray.engines.torch import device_and_dtype, until_stop
from artsel_ray.prompts.tokenizer import Ids

# Prompts in a batch.
_BATCH = 8
# A processor's tensors with a value for each token: [prompts, tokens, …].
_PER_TOKEN = {"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids", "cross_attention_mask"}


class TransformersVisionEngine:
    """Generates text about images with a model in this process; slower than vLLM."""

    def __init__(self, model: Path, head: str, dtype: Dtype = "auto") -> None:
        """Loads the model, on the GPU if there is one.

        Args:
            model: a folder from `artsel_ray.models.load`.
            head: the text that every prompt begins with, up to some text after the image placeholder.
            dtype: number format of the weights; `auto` is float32 on CPUs and the model's own on a GPU.
        """
        device, number_format = device_and_dtype(dtype)
        weights: Any = AutoModelForImageTextToText.from_pretrained(
            model, dtype=number_format, use_safetensors=True, trust_remote_code=False
        )
        self._model = weights.to(device).eval()
        self._processor: Any = AutoProcessor.from_pretrained(model, trust_remote_code=False)
        self._head = head
        self._head_length = len(self._processor.tokenizer(head, add_special_tokens=False)["input_ids"])
        self.usage = UsageCounter()

    @torch.no_grad()
    def generate(
        self,
        prompts: Sequence[Ids],
        max_tokens: int,
        stop: Sequence[int],
        sampling: Sampling | None = None,
        images: Sequence[Sequence[ArtworkImage]] = (),
    ) -> list[list[int]]:
        """See `artsel_ray.engines.base.Engine`; always greedy."""
        settings = GenerationConfig(
            max_new_tokens=max_tokens, do_sample=False, eos_token_id=list(stop), pad_token_id=stop[0]
        )
        generated = []
        with self.usage.timed() as usage:
            for first in range(0, len(prompts), _BATCH):
                batch = slice(first, first + _BATCH)
                inputs = self._inputs(prompts[batch], images[batch], stop[0])
                output = self._model.generate(**inputs, generation_config=settings)
                usage.prompt_tokens += int(inputs["attention_mask"].sum())
                generated += [until_stop(row, stop) for row in output[:, inputs["input_ids"].shape[1] :].tolist()]
            usage.decoded_tokens += sum(map(len, generated))
        return generated

    def _inputs(
        self, prompts: Sequence[Ids], images: Sequence[Sequence[ArtworkImage]], padding: int
    ) -> dict[str, torch.Tensor]:
        """Returns the model's inputs: the head and the images from its processor, then the rest of each prompt's ids.

        A processor takes text, in which a title's name could spell a special token. So it sees the head alone. The ids
        after the head are text like the head's last token, and get the values of that in masks and token types.
        """
        made = self._processor(
            text=[self._head] * len(prompts),
            images=[[Image.fromarray(image.pixels) for image in shown] for shown in images],
            padding=True,
            padding_side="left",
            add_special_tokens=False,
            return_tensors="pt",
        )
        rests = [torch.from_numpy(prompt[self._head_length :]).long() for prompt in prompts]
        inputs = {}
        for name, value in made.items():
            if name == "input_ids":
                value = _extend(value, rests, padding)
            elif name in _PER_TOKEN:
                rows = zip(value, rests, strict=True)
                value = _extend(value, [row[-1:].expand(len(rest), *row.shape[1:]) for row, rest in rows], 0)
            inputs[name] = value.to(self._model.device, self._model.dtype if value.is_floating_point() else value.dtype)
        return inputs


def _extend(heads: torch.Tensor, rests: Sequence[torch.Tensor], padding: int) -> torch.Tensor:
    """Returns the rows of a processor's tensor, each with its prompt's rest appended, padded on the left.

    Args:
        heads: [prompts, tokens of the head, …].
        rests: [prompts] tensors to append, [tokens of the rest, …].
        padding: the value to the left of shorter rows.
    """
    longest = max(map(len, rests))
    rows = [
        torch.cat([torch.full_like(head[:1], padding).expand(longest - len(rest), *head.shape[1:]), head, rest])
        for head, rest in zip(heads, rests, strict=True)
    ]
    return torch.stack(rows)
