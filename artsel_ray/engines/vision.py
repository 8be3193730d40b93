"""A vision-language model in transformers, for captions by models that vLLM does not have."""

from pathlib import Path
from typing import Any

import torch
from PIL import Image

from artsel_ray.config import Dtype
from artsel_ray.engines.base import Images, Prompts, Sampling, UsageCounter, refusals
from artsel_ray.engines.torch import device_and_dtype, generate, left_padded, model_inputs, until_stop
from artsel_ray.models.weights import read_model, read_processor
from artsel_ray.prompts.images import PER_TOKEN

# Prompts in a batch.
_BATCH = 8


class TransformersVisionEngine:
    """Generates text about images with a model in this process, on the GPU if there is one; slower than vLLM.

    Args:
        model: a folder from `artsel_ray.models.load`.
        head: the text that every prompt begins with, up to some text after the image placeholder.
    """

    def __init__(self, model: Path, head: str, dtype: Dtype = "auto") -> None:
        device, number_format = device_and_dtype(dtype)
        weights: Any = read_model(model, number_format)
        self._model = weights.to(device).eval()
        self._processor: Any = read_processor(model)
        self._head = head
        self._head_length = len(self._processor.tokenizer(head, add_special_tokens=False)["input_ids"])
        self.usage = UsageCounter()

    @torch.no_grad()
    def generate(
        self, prompts: Prompts, max_tokens: int, stop: list[int], sampling: Sampling | None = None, images: Images = ()
    ) -> list[list[int]]:
        """See `artsel_ray.engines.base.Engine`; always greedy."""
        generated = []
        with self.usage.timed() as usage:
            for first in range(0, len(prompts), _BATCH):
                batch = slice(first, first + _BATCH)
                inputs = self._inputs(prompts[batch], images[batch], stop[0])
                output = generate(self._model, inputs, max_tokens, stop)
                usage.prompt_tokens += int(inputs["attention_mask"].sum())
                generated += [until_stop(row, stop) for row in output[:, inputs["input_ids"].shape[1] :].tolist()]
            usage.decoded_tokens += sum(map(len, generated))
        return generated

    def _inputs(self, prompts: Prompts, images: Images, padding: int) -> dict[str, torch.Tensor]:
        """Returns the model's inputs: the head and the images from its processor, then the rest of each prompt's ids.

        A processor takes text, in which a title's name could spell a special token. So it sees the head alone. The ids
        after the head are text like the head's last token, and get the values of that in masks and token types.
        """
        with refusals():
            made = self._processor(
                text=[self._head] * len(prompts),
                images=[[Image.fromarray(image.pixels) for image in shown] for shown in images],
                padding=True,
                padding_side="left",
                add_special_tokens=False,
                return_tensors="pt",
            )
        rests = [torch.from_numpy(prompt[self._head_length :]).long() for prompt in prompts]
        inputs = dict(made)
        for name in PER_TOKEN & inputs.keys():
            tails = rests
            if name != "input_ids":
                pairs = zip(made[name], rests, strict=True)
                tails = [head[-1:].expand(len(rest), *head.shape[1:]) for head, rest in pairs]
            rows = [torch.cat(parts) for parts in zip(made[name], tails, strict=True)]
            inputs[name] = left_padded(rows, padding if name == "input_ids" else 0)
        return model_inputs(self._model, inputs)
