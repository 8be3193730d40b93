"""An engine on a transformers model in torch: for validation in training, and for scoring without vLLM."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedModel

from artsel_ray.config import Dtype
from artsel_ray.engines.base import Images, Prompts, Sampling, UsageCounter, check_finite, refusals
from artsel_ray.models.load import Model
from artsel_ray.models.weights import read_model
from artsel_ray.prompts.images import ImagePlaceholders

# Most tokens of a batch, with padding.
_BATCH_TOKENS = 16_384


class TorchEngine:
    """Runs a model in this process, as it is at the moment, with its adapters; never changes it."""

    def __init__(self, model: PreTrainedModel, placeholders: ImagePlaceholders | None = None) -> None:
        self._model, self._placeholders = model, placeholders
        # Padding before a prompt changes the state of models such as RecurrentGemma and RWKV.
        self._pads = not _is_recurrent(model)
        self.usage = UsageCounter()

    @torch.no_grad()
    def logprobs(self, prompts: Prompts, allowed: Sequence[list[int]], images: Images = ()) -> list[np.ndarray]:
        """See `artsel_ray.engines.base.Engine`."""
        answers: list[np.ndarray] = [np.empty(0)] * len(prompts)
        prompts = self._expanded(prompts, images)
        with self._evaluating(), self.usage.timed() as usage:
            for batch in batches_of(prompts, self._pads):
                inputs = self._inputs(prompts, images, batch, 0)
                # Some vision-language models compute the positions of images themselves.
                if self._placeholders is None:
                    inputs["position_ids"] = (inputs["attention_mask"].cumsum(1) - 1).clamp(min=0)
                with refusals():
                    logits = self._model(**inputs, logits_to_keep=1).logits[:, -1]
                logprobs = logits.float().log_softmax(-1).cpu().numpy()
                for row, index in enumerate(batch):
                    answers[index] = logprobs[row, allowed[index]].astype(np.float64)
            usage.prompt_tokens += sum(map(len, prompts))
            usage.decoded_tokens += len(prompts)
        return answers

    @torch.no_grad()
    def generate(
        self, prompts: Prompts, max_tokens: int, stop: list[int], sampling: Sampling | None = None, images: Images = ()
    ) -> list[list[int]]:
        """See `artsel_ray.engines.base.Engine`."""
        generated: list[list[int]] = [[]] * len(prompts)
        named: dict[str, Any] = {}
        if sampling and sampling.temperature > 0:
            named = {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k}
        prompts = self._expanded(prompts, images)
        # A seed belongs to one prompt, so that its sample does not depend on the rest of a batch.
        batches = [[index] for index in range(len(prompts))] if sampling else batches_of(prompts, self._pads)
        with self._evaluating(), torch.random.fork_rng(), self.usage.timed() as usage:
            for batch in batches:
                if sampling:
                    torch.manual_seed(sampling.seeds[batch[0]])
                inputs = self._inputs(prompts, images, batch, stop[0])
                output = generate(self._model, inputs, max_tokens, stop, **named)
                for index, row in zip(batch, output[:, inputs["input_ids"].shape[1] :].tolist(), strict=True):
                    generated[index] = until_stop(row, stop)
            usage.prompt_tokens += sum(map(len, prompts))
            usage.decoded_tokens += sum(map(len, generated))
        return generated

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        training = self._model.training
        self._model.eval()
        try:
            yield
        finally:
            self._model.train(training)

    def _expanded(self, prompts: Prompts, images: Images) -> Prompts:
        if self._placeholders is None:
            return prompts
        return [self._placeholders.expand(prompt, shown) for prompt, shown in zip(prompts, images, strict=True)]

    def _inputs(self, prompts: Prompts, images: Images, batch: list[int], padding: int) -> dict[str, torch.Tensor]:
        rows = [torch.from_numpy(prompts[index]).long() for index in batch]
        inputs = {"input_ids": left_padded(rows, padding)}
        inputs["attention_mask"] = left_padded([torch.ones_like(row) for row in rows], 0)
        if self._placeholders:
            inputs |= self._placeholders.inputs(inputs["input_ids"], [images[index] for index in batch])
        return model_inputs(self._model, inputs)


class _CheckFinite(LogitsProcessor):
    """Stops a generation in which the most likely token is none that the model named."""

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        check_finite(scores.amax(-1).float().cpu().numpy())
        return scores


def generate(
    model: Any, inputs: dict[str, torch.Tensor], max_tokens: int, stop: list[int], **sampling: Any
) -> torch.Tensor:
    """Returns [prompts, tokens] prompts and their continuations; greedy without `sampling`.

    transformers fills what is not set from the model's own `generation_config.json`, which could sample, penalize or
    suppress tokens. So the model has none meanwhile.

    Raises:
        InputError: if the model answers with NaN.
        RefusedError: if transformers refuses the prompts.
    """
    # PEFT's own `generate` would leave the config that it is given in the base model.
    inner = without_peft(model)
    ends: dict[str, Any] = {"eos_token_id": stop, "pad_token_id": stop[0]}
    settings = GenerationConfig(max_new_tokens=max_tokens, do_sample=bool(sampling), num_beams=1, **ends, **sampling)
    own, inner.generation_config = inner.generation_config, GenerationConfig()
    checks = LogitsProcessorList([_CheckFinite()])
    try:
        with refusals():
            return inner.generate(**inputs, generation_config=settings, logits_processor=checks)
    finally:
        inner.generation_config = own


def load_torch_engine(model: Model, dtype: Dtype, placeholders: ImagePlaceholders | None = None) -> TorchEngine:
    """Loads a model of `artsel_ray.models.load` into this process, on the GPU if there is one."""
    device, number_format = device_and_dtype(dtype)
    weights: Any = read_model(model.base, number_format)
    if model.lora:
        from peft import PeftModel

        weights = PeftModel.from_pretrained(weights, model.lora)
    return TorchEngine(weights.to(device), placeholders)


def device_and_dtype(dtype: Dtype) -> tuple[str, Dtype]:
    """Returns the device to run on, and the number format there: `auto` is float32 on CPUs, which emulate halves."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return device, "float32" if dtype == "auto" and device == "cpu" else dtype


def until_stop(ids: list[int], stop: Sequence[int]) -> list[int]:
    """Returns the ids before the first stop token, all if there is none."""
    end = next((position for position, token in enumerate(ids) if token in stop), len(ids))
    return ids[:end]


def left_padded(rows: Sequence[torch.Tensor], padding: int) -> torch.Tensor:
    """Returns rows of [tokens, …] as one tensor, padded on the left, so that next tokens are at the last position."""
    return pad_sequence(list(rows), batch_first=True, padding_value=padding, padding_side="left")


def model_inputs(model: Any, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Returns inputs on the model's device, floating-point ones in the model's number format."""
    return {
        name: value.to(model.device, model.dtype if value.is_floating_point() else value.dtype)
        for name, value in inputs.items()
    }


def _is_recurrent(model: Any) -> bool:
    return bool(getattr(without_peft(model), "_is_stateful", False))


def without_peft(model: Any) -> Any:
    """Returns the model in PEFT's wrapper, its LoRA layers included; one without a wrapper as it is."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def batches_of(prompts: Prompts, may_pad: bool) -> list[list[int]]:
    """Returns the prompts' indices in batches, the longest first; without padding all of a batch are of one length."""
    batches: list[list[int]] = []
    for index in sorted(range(len(prompts)), key=lambda index: -len(prompts[index])):
        # The first prompt of a batch is its longest.
        longest = len(prompts[batches[-1][0]]) if batches else 0
        is_full = not batches or (len(batches[-1]) + 1) * longest > _BATCH_TOKENS
        if is_full or not (may_pad or len(prompts[index]) == longest):
            batches.append([])
        batches[-1].append(index)
    return batches
