"""Images in prompts. Each is a placeholder in the ids, which a model's processor expands to as many ids as it needs.

vLLM expands placeholders itself. For torch they are expanded here, image by image: an image is a segment like all
others, and a processor never sees text from data, which could spell a placeholder.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from artsel_ray.data.images import ArtworkImage
from artsel_ray.errors import InputError
from artsel_ray.prompts.chat_template import chat_turn

if TYPE_CHECKING:
    from torch import Tensor

_BEFORE, _AFTER = "\u241fbefore\u241f", "\u241fafter\u241f"
_TOKEN_TYPES = ("token_type_ids", "mm_token_type_ids")
# A processor's tensors with a value for each token, [prompts, tokens, …]; the others describe images.
PER_TOKEN = {"input_ids", "attention_mask", "cross_attention_mask", *_TOKEN_TYPES}
_MAX_CACHED_IMAGES = 4096
_BLANK = ArtworkImage(np.full((64, 64, 3), 255, dtype=np.uint8), "blank")


class ImagePlaceholders:
    """A vision-language model's image placeholders, found in the chat template of its processor from transformers.

    Raises:
        InputError: if the model has no chat template, or one that moves images, or sees one image at a time.
    """

    def __init__(self, processor: Any) -> None:
        self.processor = processor
        if not processor.chat_template:
            raise InputError("the model has no chat template, which says where images go; take an instruct model")
        parts = [{"type": "text", "text": _BEFORE}, {"type": "image"}, {"type": "text", "text": _AFTER}]
        self._placeholder = chat_turn(processor, parts).partition(_BEFORE)[2].partition(_AFTER)[0]
        self.ids: list[int] = processor.tokenizer(self._placeholder, add_special_tokens=False)["input_ids"]
        """Ids of one placeholder, not expanded."""
        if not self.ids:
            raise InputError("the model's chat template does not leave images in their position; take another model")
        self._expanded: dict[str, NDArray[np.int32]] = {}
        made = self._process([[_BLANK]])
        if "cross_attention_mask" in made:
            raise InputError(
                "the model sees one image at a time, but must see all candidates to choose; take another model"
            )
        blank_ids = made["input_ids"][0].tolist()
        # The ids that a processor flags as an image's, in the tensors of token types that some models need.
        self._image_ids: dict[str, set[int]] = {
            name: {token for token, kind in zip(blank_ids, made[name][0].tolist(), strict=True) if kind}
            for name in _TOKEN_TYPES
            if name in made
        }

    def expand(self, prompt: NDArray[np.int32], images: Sequence[ArtworkImage]) -> NDArray[np.int32]:
        """Returns a prompt's ids with each placeholder replaced by the ids of its image.

        Raises:
            ValueError: if it has more or fewer placeholders than images.
        """
        windows = np.lib.stride_tricks.sliding_window_view(prompt, len(self.ids))
        positions = np.flatnonzero((windows == self.ids).all(axis=1))
        parts, start = [], 0
        for position, image in zip(positions.tolist(), images, strict=True):
            parts += [prompt[start:position], self.ids_of(image)]
            start = position + len(self.ids)
        return np.concatenate([*parts, prompt[start:]])

    def inputs(self, ids: "Tensor", images: Sequence[Sequence[ArtworkImage]]) -> dict[str, "Tensor"]:
        """Returns a model's inputs other than the expanded ids and their mask.

        Args:
            ids: [prompts, tokens of the longest] expanded ids.
            images: [prompts] each prompt's images, in the order of their placeholders.
        """
        import torch

        inputs = {name: value for name, value in self._process(images).items() if name not in PER_TOKEN}
        for name, image_ids in self._image_ids.items():
            inputs[name] = torch.isin(ids.cpu(), torch.tensor(sorted(image_ids))).to(ids.dtype)
        return inputs

    def ids_of(self, image: ArtworkImage) -> NDArray[np.int32]:
        """Returns the ids that stand for an image."""
        if image.digest not in self._expanded:
            if len(self._expanded) == _MAX_CACHED_IMAGES:
                self._expanded.clear()
            self._expanded[image.digest] = self._process([[image]])["input_ids"][0].numpy().astype(np.int32)
        return self._expanded[image.digest]

    def _process(self, images: Sequence[Sequence[ArtworkImage]]) -> dict[str, "Tensor"]:
        """Returns the processor's tensors for prompts of nothing but these images' placeholders."""
        shown = [[Image.fromarray(image.pixels) for image in row] for row in images]
        text = [self._placeholder * len(row) for row in shown]
        made = self.processor(text=text, images=shown, padding=True, add_special_tokens=False, return_tensors="pt")
        return dict(made)
