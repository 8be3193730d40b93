"""From segments of a prompt to token ids and loss masks.

Text from data and wording alike are tokenized as plain text: only this module's own code places the ids of `<option>`,
`</option>`, chat markers and end tokens. Each segment is tokenized by itself, so it has the same ids in every prompt.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from artsel_ray.data.images import ArtworkImage
from artsel_ray.errors import InputError
from artsel_ray.prompts import chat
from artsel_ray.prompts import text as render
from artsel_ray.prompts.escaping import OPTION, OPTION_END
from artsel_ray.prompts.histories import Histories, HistoryTokenizer
from artsel_ray.prompts.images import ImagePlaceholders
from artsel_ray.prompts.spec import PromptSpec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# [tokens] of a prompt. Prompts have thousands, and joining lists of them cost more than everything but the model.
Ids = NDArray[np.int32]

_CONTENT = "\u241fcontent\u241f"


@dataclass(frozen=True)
class Options:
    """A title's tokenized segments, and the answer that stands for each of its M candidates."""

    prefix: list[int]
    """Ids of the title's line and all its options."""
    answers: list[list[int]]
    """[M] ids between `<option>` and `</option>` of the answer."""
    captions_cut: int
    """Number of captions longer than `caption_tokens`."""
    length: int
    """Tokens of `prefix` after its image placeholders are expanded."""
    images: Sequence[ArtworkImage] = ()
    """[M] the candidates' images, if they are images; `prefix` has a placeholder for each."""


@dataclass(frozen=True)
class TokenizedExample:
    """A training example."""

    ids: list[int]
    supervised: list[bool]
    """Whether the loss counts the token at this position."""
    images: Sequence[ArtworkImage] = ()


class PromptTokenizer:
    """Tokenizes prompts of one spec with one tokenizer; caches the segments of histories."""

    def __init__(
        self, tokenizer: "PreTrainedTokenizerBase", spec: PromptSpec, placeholders: ImagePlaceholders | None = None
    ) -> None:
        """Looks the option tokens up.

        Args:
            tokenizer: has `<option>` and `</option>` as added tokens.
            spec: how prompts are rendered.
            placeholders: the model's image placeholders, if candidates are images.

        Raises:
            InputError: if the tokenizer lacks the option tokens.
        """
        self.tokenizer = tokenizer
        self.spec = spec
        self.placeholders = placeholders
        added = tokenizer.get_added_vocab()
        if OPTION not in added or OPTION_END not in added:
            raise InputError(f"the model's tokenizer has no {OPTION} and {OPTION_END}; load it with artsel_ray.models")
        self.option, self.option_end = added[OPTION], added[OPTION_END]

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the ids of each text; what looks like a special token stays text."""
        if not texts:
            return []
        return self._ids(texts, split_special_tokens=True)

    def _ids(self, texts: Sequence[str], split_special_tokens: bool) -> list[list[int]]:
        encoded = self.tokenizer(list(texts), add_special_tokens=False, split_special_tokens=split_special_tokens)
        return list(encoded["input_ids"])

    @cached_property
    def _frame(self) -> tuple[list[int], list[int]]:
        """Ids before and after the user's message: the chat template's, or just a begin token."""
        if self.placeholders:
            rendered = self.placeholders.turn([{"type": "text", "text": _CONTENT}])
        elif self.tokenizer.chat_template is None:
            bos = self.tokenizer.bos_token_id
            return ([] if bos is None else [bos]), self.encode(["\n\n"])[0]
        else:
            rendered = chat.turn(self.tokenizer, _CONTENT)
        before, _, after = rendered.partition(_CONTENT)
        head, tail = self._ids([before, after], split_special_tokens=False)
        return head, tail

    @cached_property
    def head(self) -> list[int]:
        """Ids that every prompt begins with: chat head and instruction."""
        return self._frame[0] + self.encode([render.instruction(self.spec.asset_kind)])[0]

    @cached_property
    def turn(self) -> list[int]:
        """Ids between the user's message and the model's: the chat template's, or a blank line."""
        return self._frame[1]

    @cached_property
    def tail(self) -> list[int]:
        """Ids that every prompt ends with: question, chat tail and the start of the answer."""
        question = self.encode([render.question(self.spec)])[0] + self.turn
        return question + (self.encode([render.REASON])[0] if self.spec.reason else self.prediction)

    @cached_property
    def prediction(self) -> list[int]:
        """Ids of `Prediction: <option>`."""
        return [*self.encode([render.PREDICTION])[0], self.option]

    @cached_property
    def after_rationale(self) -> list[int]:
        """Ids between a rationale and its prediction."""
        return self.encode(["\n"])[0] + self.prediction

    @cached_property
    def end(self) -> list[int]:
        """Ids that end an answer: `</option>` and the model's end of turn."""
        return [self.option_end, int(self.tokenizer.eos_token_id)]

    @cached_property
    def _histories(self) -> HistoryTokenizer:
        return HistoryTokenizer(self.encode, self.spec)

    @property
    def history_head(self) -> list[int]:
        """Ids that every history begins with."""
        return self._histories.head

    @property
    def min_history_tokens(self) -> int:
        """Length of a history that shows no item."""
        return self._histories.min_tokens

    def options(self, name: str, genres: Sequence[str], captions: Sequence[str]) -> Options:
        """Tokenizes a title with its candidates' captions."""
        limit = self.spec.caption_tokens
        texts = self.encode([render.option_text(caption) for caption in captions])
        contents = [ids[:limit] for ids in texts]
        prefix = self._prefix(name, genres, contents)
        answers = self._numbers(len(captions)) if self.spec.output == "number" else contents
        return Options(prefix, answers, sum(len(ids) > limit for ids in texts), len(prefix))

    def image_options(self, name: str, genres: Sequence[str], images: Sequence[ArtworkImage]) -> Options:
        """Tokenizes a title whose candidates are images; the answers are their numbers."""
        assert self.placeholders is not None
        prefix = self._prefix(name, genres, [self.placeholders.ids] * len(images))
        added = sum(self.placeholders.length(image) - len(self.placeholders.ids) for image in images)
        return Options(prefix, self._numbers(len(images)), 0, len(prefix) + added, images)

    def _prefix(self, name: str, genres: Sequence[str], contents: list[list[int]]) -> list[int]:
        """Returns the ids of a title's line and of its options with these contents."""
        spec = self.spec
        prefix = self.encode([render.new_title(name, list(genres), spec.asset_kind)])[0]
        heads = self.encode([render.option_head(index, spec.output) for index in range(len(contents))])
        for head, ids in zip(heads, contents, strict=True):
            prefix += [*head, self.option, *ids, self.option_end]
        return prefix

    def _numbers(self, count: int) -> list[list[int]]:
        return self.encode([render.answer_text(index, "", "number") for index in range(count)])

    def texts(self, prefix: list[int]) -> list[str]:
        """Returns the texts in a title's options prefix: the title's line, then each option."""
        ends = [index for index, token in enumerate(prefix) if token == self.option_end]
        begins = [index for index, token in enumerate(prefix) if token == self.option]
        parts = [prefix[: begins[0]], *(prefix[begin + 1 : end] for begin, end in zip(begins, ends, strict=True))]
        return [str(text) for text in self.tokenizer.batch_decode(parts)]

    def prompt(self, prefix: Sequence[int], history: Sequence[int] | Ids) -> Ids:
        """Joins a prompt from a title's options prefix and a user's history, in the spec's order."""
        return self.prompts(prefix, [history])[0]

    def prompts(self, prefix: Sequence[int], histories: Iterable[Sequence[int] | Ids]) -> list[Ids]:
        """Joins the prompts of a title's users; what they share is joined once."""
        if self.spec.layout == "title_first":
            before, after = [*self.head, *prefix], self.tail
        else:
            before, after = self.head, [*prefix, *self.tail]
        first, last = np.array(before, dtype=np.int32), np.array(after, dtype=np.int32)
        return [np.concatenate((first, np.asarray(history, dtype=np.int32), last)) for history in histories]

    def fixed_tokens(self) -> int:
        """Returns the length of a prompt without options and history."""
        return len(self.head) + len(self.tail)

    def history_budget(self, options: Options, max_model_length: int) -> int:
        """Returns how many tokens a history may have next to a title's options and the longest answer.

        Returns -1 if not even an empty history fits.
        """
        answer = max(map(len, options.answers)) + len(self.end)
        if self.spec.reason:
            answer += self.spec.reason_tokens + len(self.after_rationale)
        budget = max_model_length - self.fixed_tokens() - options.length - answer
        return budget if budget >= self.min_history_tokens else -1

    def histories(self, history: pa.Array | pa.ChunkedArray, budgets: np.ndarray) -> Histories:
        """Tokenizes histories to their token budgets; see `HistoryTokenizer.tokenize`."""
        return self._histories.tokenize(history, budgets)

    def example(
        self, options: Options, history: list[int] | Ids, answer: list[int], rationale: str | None = None
    ) -> TokenizedExample:
        """Returns a training example: the prompt, image placeholders expanded, then the supervised answer and its end.

        Raises:
            ValueError: if the spec asks for a rationale and there is none, or the other way around.
        """
        if (rationale is not None) != self.spec.reason:
            has = "lacks" if rationale is None else "has"
            raise ValueError(f"spec.reason is {self.spec.reason}, the example {has} a rationale")
        ids = self.prompt(options.prefix, history)
        prompt = (self.placeholders.expand(ids, options.images) if self.placeholders else ids).tolist()
        written = [] if rationale is None else self.rationale(rationale) + self.after_rationale
        target = written + answer + self.end
        return TokenizedExample(prompt + target, [False] * len(prompt) + [True] * len(target), options.images)

    def with_rationale(self, prompt: Ids, generated: list[int]) -> tuple[Ids, str]:
        """Returns the prompt extended by the rationale in what a model generated, up to the prediction.

        Returns:
            The extended prompt, and the rationale's text.
        """
        rationale = str(self.tokenizer.decode(generated)).partition(render.PREDICTION.strip())[0].strip()
        following = self.rationale(rationale) + self.after_rationale
        return np.concatenate((prompt, np.array(following, dtype=np.int32))), rationale

    def rationale(self, text: str) -> list[int]:
        """Returns the ids of a rationale, cut to `reason_tokens`."""
        return self.encode([render.option_text(text)])[0][: self.spec.reason_tokens]
