"""The decoders' engine on a model in torch: what training validates with, by the decoding that scores."""

from collections.abc import Sequence

import numpy as np
import torch
from transformers import GenerationConfig, PreTrainedModel

from artsel_ray.data.images import ArtworkImage
from artsel_ray.engines.base import Sampling
from artsel_ray.prompts.images import ImagePlaceholders
from artsel_ray.prompts.tokenizer import Ids

# Tokens of a batch, padding included.
_BATCH_TOKENS = 16_384


class TorchEngine:
    """Asks a causal model as it is at the moment, adapters included; never changes it."""

    def __init__(self, model: PreTrainedModel, placeholders: ImagePlaceholders | None = None) -> None:
        """Takes a model in the memory of this process, and where prompts have pictures what marks them."""
        self._model, self._placeholders = model, placeholders

    @torch.no_grad()
    def logprobs(
        self, prompts: Sequence[Ids], allowed: Sequence[list[int]], images: Sequence[Sequence[ArtworkImage]] = ()
    ) -> list[np.ndarray]:
        """See `artsel_ray.engines.base.Engine`."""
        training = self._model.training
        self._model.eval()
        answers: list[np.ndarray] = [np.empty(0)] * len(prompts)
        prompts = self.expanded(prompts, images)
        for batch in _batches(prompts):
            inputs = self._inputs(prompts, images, batch, 0)
            if self._placeholders is None:  # where a picture's tokens stand, some models number for themselves
                inputs["position_ids"] = (inputs["attention_mask"].cumsum(1) - 1).clamp(min=0)
            outputs = self._model(**inputs, logits_to_keep=1)
            logits = outputs.logits[:, -1].float().log_softmax(-1).cpu().numpy()
            for row, index in enumerate(batch):
                answers[index] = logits[row, allowed[index]].astype(np.float64)
        self._model.train(training)
        return answers

    @torch.no_grad()
    def write(
        self,
        prompts: Sequence[Ids],
        max_tokens: int,
        stop: Sequence[int],
        sampling: Sampling | None = None,
        images: Sequence[Sequence[ArtworkImage]] = (),
    ) -> list[list[int]]:
        """See `artsel_ray.engines.base.Engine`."""
        training = self._model.training
        written: list[list[int]] = [[]] * len(prompts)
        self._model.eval()
        settings = GenerationConfig(max_new_tokens=max_tokens, eos_token_id=list(stop), pad_token_id=stop[0])
        if sampling and sampling.temperature > 0:
            settings.update(
                do_sample=True, temperature=sampling.temperature, top_p=sampling.top_p, top_k=sampling.top_k
            )
        prompts = self.expanded(prompts, images)
        # A seed is a prompt's own: what is drawn must not depend on what else is in a batch.
        batches = [[index] for index in range(len(prompts))] if sampling else _batches(prompts)
        with torch.random.fork_rng():
            for batch in batches:
                if sampling:
                    torch.manual_seed(sampling.seeds[batch[0]])
                inputs = self._inputs(prompts, images, batch, stop[0])
                output = self._model.generate(**inputs, generation_config=settings)  # type: ignore[operator]
                for index, row in zip(batch, output[:, inputs["input_ids"].shape[1] :].tolist(), strict=True):
                    ends = [place for place, token in enumerate(row) if token in stop]
                    written[index] = row[: ends[0]] if ends else row
        self._model.train(training)
        return written

    def expanded(self, prompts: Sequence[Ids], images: Sequence[Sequence[ArtworkImage]]) -> Sequence[Ids]:
        """Returns prompts with what stands for their pictures in the place of the marks."""
        if self._placeholders is None:
            return prompts
        return [self._placeholders.expand(prompt, seen) for prompt, seen in zip(prompts, images, strict=True)]

    def _inputs(
        self, prompts: Sequence[Ids], images: Sequence[Sequence[ArtworkImage]], batch: list[int], padding: int
    ) -> dict[str, torch.Tensor]:
        """Returns a batch's inputs of the model, prompts padded on the left."""
        ids, mask = _pad([prompts[index] for index in batch], padding)
        inputs = {"input_ids": ids, "attention_mask": mask}
        if self._placeholders:
            inputs |= self._placeholders.inputs(ids, [images[index] for index in batch])
        return {
            name: value.to(self._model.device, self._model.dtype if value.is_floating_point() else value.dtype)
            for name, value in inputs.items()
        }


def _pad(prompts: Sequence[Ids], padding: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns ids and mask, padded on the left, so that every prompt's next token is the last place's."""
    width = max(map(len, prompts))
    ids = torch.full((len(prompts), width), padding, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.from_numpy(prompt).long()
        mask[row, width - len(prompt) :] = 1
    return ids, mask


def _batches(prompts: Sequence[Ids]) -> list[list[int]]:
    """Returns the prompts' indices in batches of similar length."""
    batches: list[list[int]] = []
    for index in sorted(range(len(prompts)), key=lambda index: -len(prompts[index])):
        # The first of a batch is its longest.
        if not batches or (len(batches[-1]) + 1) * len(prompts[batches[-1][0]]) > _BATCH_TOKENS:
            batches.append([])
        batches[-1].append(index)
    return batches
