"""The question that a vision-language model is asked about an artwork's image, and how its answer is cleaned.

A question is the chat's head with the image and the instruction, the title's name, and the chat's tail. Each is
tokenized by itself: the name is data, and cannot spell the chat's markers.
"""

import re
from typing import Any

import numpy as np

from artsel_ray.errors import InputError
from artsel_ray.prompts.chat_template import chat_turn
from artsel_ray.prompts.escaping import escape
from artsel_ray.prompts.markers import DataTokenizer
from artsel_ray.prompts.tokenizer import Ids

WORDING = "caption-1"
"""Version of the wording; changes whenever a token of any question would."""

_NAME = "\u241fname\u241f"
_BEFORE = "This picture is one of several artworks that present the same movie or show to viewers"
_AFTER = (
    ". Describe it so that a reader can tell it from the others: who and what is shown and what happens, the mood and "
    "the kind of story that it promises, the composition, and the colours. Say only what can be seen. Write one "
    "paragraph of at most 120 words, in English, without any introduction."
)
_SENTENCE_END = re.compile(r"[.!?…。！？][\"'”’)\]]*(?=\s|$)")


class CaptionPrompts:
    """The captioner's questions as token ids, each with an image placeholder that is not yet expanded."""

    def __init__(self, processor: Any) -> None:
        """Tokenizes what all questions share, with the model's processor from transformers.

        Raises:
            InputError: if it has no chat template, or one that leaves out the image or the question.
        """
        self._tokenizer = processor.tokenizer
        if not processor.chat_template:
            raise InputError("the model has no chat template, so it cannot be prompted; take an instruct model")
        content = [{"type": "image"}, {"type": "text", "text": f"{_BEFORE}{_NAME}{_AFTER}"}]
        self.head, found, tail = chat_turn(processor, content).partition(_NAME)
        if not found:
            raise InputError("the model's chat template leaves out the question; take another model")
        self._head, self._tail = (
            self._tokenizer(text, add_special_tokens=False)["input_ids"] for text in (self.head, tail)
        )
        self._names = DataTokenizer(self._tokenizer, [self.head.replace(_BEFORE, " "), tail.replace(_AFTER, " ")])

    def frame(self) -> list[list[int]]:
        """Returns the ids that all questions share: template, image placeholder and wording."""
        return [self._head, self._tail]

    def question(self, title_name: str | None) -> Ids:
        """Returns the ids of the question about an image of a title, with its name unless that is None."""
        name = f', called "{escape(title_name)}"' if title_name else ""
        ids = self._names.encode([name])[0] if name else []
        return np.array([*self._head, *ids, *self._tail], dtype=np.int32)

    def caption(self, ids: list[int], finished: bool) -> str:
        """Returns the generated text as one clean line; an unfinished one is cut to its complete sentences, if any."""
        text = escape(str(self._tokenizer.decode(ids, skip_special_tokens=True)))
        ends = [match.end() for match in _SENTENCE_END.finditer(text)]
        return text if finished or not ends else text[: ends[-1]]
