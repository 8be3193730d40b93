"""A vision-language model in transformers, for those that vLLM does not have."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from artsel_ray.config import Dtype
from artsel_ray.data.images import ArtworkImage
from artsel_ray.engines.base import Sampling, UsageCounter
from artsel_ray.prompts.tokenizer import Ids

# Pictures asked about together.
_BATCH = 8
# Of a processor's tensors, those with a place for each token: [prompts, tokens, …].
_OF_TOKENS = {"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids", "cross_attention_mask"}


class TransformersVisionEngine:
    """Runs a vision-language model in transformers inside this process; slower than vLLM."""

    def __init__(self, model: Path, head: str, dtype: Dtype = "auto") -> None:
        """Loads the model, on the GPU if there is one.

        Args:
            model: a folder from `artsel_ray.models.load`.
            head: the text that every prompt will begin with, to some text after the picture's mark.
            dtype: of the weights; `auto` is float32 on CPUs and the model's own on a GPU.
        """
        from transformers import AutoModelForImageTextToText, AutoProcessor

        device = "cuda" if torch.cuda.is_available() else "cpu"
        chosen = "float32" if dtype == "auto" and device == "cpu" else dtype
        weights: Any = AutoModelForImageTextToText.from_pretrained(
            model, dtype=chosen, use_safetensors=True, trust_remote_code=False
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
        from transformers import GenerationConfig

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
                for row in output[:, inputs["input_ids"].shape[1] :].tolist():
                    end = next((position for position, token in enumerate(row) if token in stop), len(row))
                    generated.append(row[:end])
            usage.decoded_tokens += sum(map(len, generated))
        return generated

    def _inputs(
        self, prompts: Sequence[Ids], images: Sequence[Sequence[ArtworkImage]], padding: int
    ) -> dict[str, torch.Tensor]:
        """Returns the model's inputs: the head and the pictures as its processor makes them, then the prompts' rest.

        A processor takes text, in which a title's name could spell a special token; so it sees the head alone. What is
        after the head is text like the head's end, and is masked as that is.
        """
        made = self._processor(
            text=[self._head] * len(prompts),
            images=[[Image.fromarray(image.pixels) for image in seen] for seen in images],
            padding=True,
            padding_side="left",
            add_special_tokens=False,
            return_tensors="pt",
        )
        rests = [torch.from_numpy(prompt[self._head_length :]).long() for prompt in prompts]
        longest = max(map(len, rests))
        inputs = {}
        for name, value in made.items():
            if name in _OF_TOKENS:
                blank = padding if name == "input_ids" else 0
                value = torch.stack(
                    [
                        torch.cat(
                            [
                                row[:1].expand(longest - len(rest), *row.shape[1:]) * 0 + blank,
                                row,
                                rest if name == "input_ids" else row[-1:].expand(len(rest), *row.shape[1:]),
                            ]
                        )
                        for row, rest in zip(value, rests, strict=True)
                    ]
                )
            inputs[name] = value.to(self._model.device, self._model.dtype if value.is_floating_point() else value.dtype)
        return inputs
