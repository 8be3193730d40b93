"""From segments of a prompt to token ids and loss masks.

Text from data and wording alike are tokenized as plain text: only this module's own code places the ids of `<option>`,
`</option>`, chat markers and end tokens. Text from data cannot spell a template's markers either (`markers`). Each
segment is tokenized by itself, so it has the same ids in every prompt.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from artsel_ray.data.images import ArtworkImage, UnusableError, read_all
from artsel_ray.errors import InputError
from artsel_ray.prompts import text as render
from artsel_ray.prompts.chat_template import chat_of_all_roles, chat_turn
from artsel_ray.prompts.escaping import OPTION, OPTION_END
from artsel_ray.prompts.histories import Histories, HistoryTokenizer
from artsel_ray.prompts.images import ImagePlaceholders
from artsel_ray.prompts.markers import DataTokenizer
from artsel_ray.prompts.spec import PromptSpec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    # It validates images on Ray, which prompts know nothing of.
    from artsel_ray.data.catalog import Catalog

# [tokens] of a prompt. Prompts have thousands, and joining lists of them cost more than everything but the model.
Ids = NDArray[np.int32]

_CONTENT = "\u241fcontent\u241f"
_LETTERS_PER_TOKEN = 64  # more than tokens have on average in any text that means something


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
    """A training example; the loss counts only tokens at `supervised` positions."""

    ids: list[int]
    supervised: list[bool]
    images: Sequence[ArtworkImage] = ()


class PromptTokenizer:
    """Tokenizes prompts of one spec; caches the segments of histories. Placeholders are for candidates that are images.

    Raises:
        InputError: if the tokenizer lacks the option tokens or an end token, or its chat template cannot be used.
    """

    def __init__(
        self, tokenizer: "PreTrainedTokenizerBase", spec: PromptSpec, placeholders: ImagePlaceholders | None = None
    ) -> None:
        self.tokenizer, self.spec, self.placeholders = tokenizer, spec, placeholders
        added = tokenizer.get_added_vocab()
        if OPTION not in added or OPTION_END not in added:
            raise InputError(f"the model's tokenizer has no {OPTION} and {OPTION_END}; load it with artsel_ray.models")
        self.option, self.option_end = added[OPTION], added[OPTION_END]
        chat = self._chat()
        self._data = DataTokenizer(tokenizer, chat)
        self._histories = HistoryTokenizer(self.encode_data, spec)
        self.history_head, self.min_history_tokens = self._histories.head, self._histories.min_tokens
        head, self.turn = self._frame(chat)
        """Ids between the user's message and the model's: the chat template's, or a blank line."""
        segments = [render.instruction(spec.asset_kind), render.question(spec), render.REASON, render.PREDICTION, "\n"]
        instruction, question, reason, prediction, line_break = self.encode(segments)
        self.head = head + instruction
        self.prediction = [*prediction, self.option]
        """Ids of `Prediction: <option>`."""
        self.after_rationale = line_break + self.prediction
        """Ids between a rationale and the answer."""
        self.tail = question + self.turn + (reason if spec.reason else self.prediction)
        """Ids that every prompt ends with, up to the answer or the rationale."""
        if tokenizer.eos_token_id is None:
            raise InputError("the model's tokenizer has no end token; add eos_token to its tokenizer_config.json")
        self.end = [self.option_end, int(tokenizer.eos_token_id)]
        """Ids that end an answer: `</option>` and the model's end of turn."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the ids of each text, which is wording of ours; what looks like a special token stays text."""
        return self._ids(texts, split_special_tokens=True) if texts else []

    def encode_data(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the ids of each text, in which text from data is escaped; see `DataTokenizer`."""
        return self._data.encode(texts)

    def _ids(self, texts: Sequence[str], split_special_tokens: bool) -> list[list[int]]:
        encoded = self.tokenizer(list(texts), add_special_tokens=False, split_special_tokens=split_special_tokens)
        return list(encoded["input_ids"])

    def _chat(self) -> list[str]:
        """Returns what a chat template writes: before and after a user's message, then around all roles' messages."""
        if self.tokenizer.chat_template is None and not self.placeholders:
            return []
        renderer = self.placeholders.processor if self.placeholders else self.tokenizer
        content: Any = [{"type": "text", "text": _CONTENT}] if self.placeholders else _CONTENT
        turn = chat_turn(renderer, content).split(_CONTENT)
        if len(turn) != 2:
            raise InputError("the model's chat template does not show a message once and as it is; take another model")
        return [*turn, *chat_of_all_roles(renderer, content).split(_CONTENT)]

    def _frame(self, chat: Sequence[str]) -> list[list[int]]:
        """Returns the ids around the user's message: the chat template's, or a begin token and a blank line."""
        if chat:
            return self._ids(chat[:2], split_special_tokens=False)
        bos = self.tokenizer.bos_token_id
        return [[] if bos is None else [bos], *self.encode(["\n\n"])]

    def options(self, name: str, genres: Sequence[str], captions: Sequence[str]) -> Options:
        """Tokenizes a title with its candidates' captions."""
        limit = self.spec.caption_tokens
        # A caption of which little is kept is not tokenized as a whole.
        texts = self.encode_data([render.option_text(caption[: limit * _LETTERS_PER_TOKEN]) for caption in captions])
        contents = [ids[:limit] for ids in texts]
        prefix = self._prefix(name, genres, contents)
        answers = self._numbers(len(captions)) if self.spec.output == "number" else contents
        return Options(prefix, answers, sum(len(ids) > limit for ids in texts), len(prefix))

    def image_options(self, name: str, genres: Sequence[str], images: Sequence[ArtworkImage]) -> Options:
        """Tokenizes a title whose candidates are images; the answers are their numbers."""
        assert self.placeholders is not None
        prefix = self._prefix(name, genres, [self.placeholders.ids] * len(images))
        added = sum(len(self.placeholders.ids_of(image)) - len(self.placeholders.ids) for image in images)
        return Options(prefix, self._numbers(len(images)), 0, len(prefix) + added, images)

    def _prefix(self, name: str, genres: Sequence[str], contents: list[list[int]]) -> list[int]:
        prefix = self.encode_data([render.new_title(name, genres, self.spec.asset_kind)])[0]
        heads = self.encode([render.option_head(index, self.spec.output) for index in range(len(contents))])
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

    def frame(self) -> list[list[int]]:
        """Returns the ids of all that is the same in every prompt and answer: template, instruction, question, ends.

        Chat template, wording and pinned date decide them, so a change of one is a change of these.
        """
        fixed = [self.head, self.history_head, self.tail, self.after_rationale, self.end]
        return [*fixed, self.placeholders.ids] if self.placeholders else fixed

    @property
    def writes_time(self) -> bool:
        """Whether the chat template writes the time, which is pinned; earlier versions wrote that of their clock."""
        renderer = self.placeholders.processor if self.placeholders else self.tokenizer
        return "strftime_now" in str(renderer.chat_template)

    def fixed_tokens(self) -> int:
        """Returns the length of a prompt without options and history."""
        return len(self.head) + len(self.tail)

    def history_budget(self, options: Options, max_model_length: int) -> int:
        """Returns a history's most tokens next to options and the longest answer; -1 if not even an empty one fits."""
        rationale = self.spec.reason_tokens + len(self.after_rationale) if self.spec.reason else 0
        answer = rationale + max(map(len, options.answers)) + len(self.end)
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
        target = [] if rationale is None else self.rationale(rationale) + self.after_rationale
        target += answer + self.end
        return TokenizedExample(prompt + target, [False] * len(prompt) + [True] * len(target), options.images)

    def with_rationale(self, prompt: Ids, generated: list[int]) -> tuple[Ids, str]:
        """Returns the prompt with the rationale in what a model generated, up to the prediction, and the rationale."""
        rationale = str(self.tokenizer.decode(generated)).partition(render.PREDICTION.strip())[0].strip()
        following = self.rationale(rationale) + self.after_rationale
        return np.concatenate((prompt, np.array(following, dtype=np.int32))), rationale

    def rationale(self, text: str) -> list[int]:
        """Returns the ids of a rationale, cut to `reason_tokens`."""
        shown = text[: self.spec.reason_tokens * _LETTERS_PER_TOKEN]
        return self.encode_data([render.option_text(shown)])[0][: self.spec.reason_tokens]


def tokenize_title(tokenizer: PromptTokenizer, catalog: "Catalog", title: int) -> Options:
    """Tokenizes a title, given by its index in the catalog, with its candidates.

    Raises:
        InputError: if an image that was valid when the catalog was read is not now.
    """
    name, genres = catalog.names[title].as_py(), catalog.genres[title].as_py()
    contents = catalog.contents[slice(*catalog.offsets[title : title + 2].tolist())].to_pylist()
    if tokenizer.placeholders is None:
        return tokenizer.options(name, genres, contents)
    try:
        return tokenizer.image_options(name, genres, read_all(contents, tokenizer.spec.resize_to_pixels))
    except UnusableError as error:
        problem = f"an image of title {catalog.title_ids[title].as_py()} was valid when the run started and is not now"
        raise InputError(f"{problem}: {error}") from None
