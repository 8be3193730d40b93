"""Pictures in prompts: each stands as a mark in the ids, which the model's processor makes into as many as it needs.

vLLM does that itself. For torch the marks are expanded here, picture by picture: a picture is a piece as all others
are, and no text from data is ever seen by a processor, in which it could spell a mark.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from artsel_ray.data.images import ArtworkImage
from artsel_ray.errors import InputError
from artsel_ray.prompts import chat

if TYPE_CHECKING:
    from torch import Tensor

_BEFORE, _AFTER = "\u241fbefore\u241f", "\u241fafter\u241f"
# Of a processor's tensors, those with a place for each token.
_OF_TOKENS = {"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids"}
# Pictures whose ids are kept.
_CACHED_IMAGES = 4096
_BLANK = ArtworkImage(np.full((64, 64, 3), 255, dtype=np.uint8), "blank")


class ImagePlaceholders:
    """What a vision-language model's processor makes of pictures."""

    def __init__(self, processor: Any) -> None:
        """Takes a processor of transformers.

        Raises:
            InputError: if it has no chat template, or one that moves pictures, or sees only one picture at a time.
        """
        self._processor = processor
        if not processor.chat_template:
            raise InputError("the model has no chat template, which says where pictures stand; take an instruct model")
        parts = [{"type": "text", "text": _BEFORE}, {"type": "image"}, {"type": "text", "text": _AFTER}]
        self._placeholder = self.turn(parts).partition(_BEFORE)[2].partition(_AFTER)[0]
        self.ids: list[int] = processor.tokenizer(self._placeholder, add_special_tokens=False)["input_ids"]
        """Of the mark."""
        if not self.ids:
            raise InputError("the model's chat template does not leave pictures where they stand; take another model")
        self._expanded: dict[str, NDArray[np.int32]] = {}
        made = self._process([[_BLANK]])
        if "cross_attention_mask" in made:
            raise InputError("the model looks at one picture at a time; to choose among pictures it must see them all")
        of_image = made["input_ids"][0].tolist()
        # Which ids a processor marks as a picture's, in tensors that some models want.
        self._kinds: dict[str, set[int]] = {
            name: {token for token, kind in zip(of_image, made[name][0].tolist(), strict=True) if kind}
            for name in ("token_type_ids", "mm_token_type_ids")
            if name in made
        }

    def turn(self, parts: list[dict[str, str]]) -> str:
        """Returns a user's turn with these parts, `{"type": "text", "text": …}` or `{"type": "image"}`."""
        return chat.turn(self._processor, parts)

    def length(self, image: ArtworkImage) -> int:
        """Returns how many tokens stand for a picture."""
        return len(self._ids_of(image))

    def expand(self, prompt: NDArray[np.int32], images: Sequence[ArtworkImage]) -> NDArray[np.int32]:
        """Returns a prompt's ids with as many in each mark's place as its picture needs.

        Raises:
            ValueError: if it has more or fewer marks than pictures.
        """
        windows = np.lib.stride_tricks.sliding_window_view(prompt, len(self.ids))
        places = np.flatnonzero((windows == self.ids).all(axis=1))
        pieces, start = [], 0
        for place, image in zip(places.tolist(), images, strict=True):
            pieces += [prompt[start:place], self._ids_of(image)]
            start = place + len(self.ids)
        return np.concatenate([*pieces, prompt[start:]])

    def inputs(self, ids: "Tensor", images: Sequence[Sequence[ArtworkImage]]) -> dict[str, "Tensor"]:
        """Returns what a model takes beside expanded ids and their mask.

        Args:
            ids: [prompts, longest].
            pictures: of each prompt, in the order of their marks.
        """
        import torch

        of_images = {name: value for name, value in self._process(images).items() if name not in _OF_TOKENS}
        of_tokens: dict[str, Tensor] = {
            name: torch.isin(ids.cpu(), torch.tensor(sorted(kinds))).to(ids.dtype)
            for name, kinds in self._kinds.items()
        }
        return {**of_images, **of_tokens}

    def _ids_of(self, image: ArtworkImage) -> NDArray[np.int32]:
        if image.digest not in self._expanded:
            if len(self._expanded) == _CACHED_IMAGES:
                self._expanded.clear()
            self._expanded[image.digest] = self._process([[image]])["input_ids"][0].numpy().astype(np.int32)
        return self._expanded[image.digest]

    def _process(self, images: Sequence[Sequence[ArtworkImage]]) -> dict[str, "Tensor"]:
        pil_images = [[Image.fromarray(image.pixels) for image in row] for row in images]
        text = [self._placeholder * len(row) for row in pil_images]
        made = self._processor(
            text=text, images=pil_images, padding=True, add_special_tokens=False, return_tensors="pt"
        )
        return dict(made)
