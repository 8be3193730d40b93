"""From tables to token ids and loss masks.

Text from data and from the template is always tokenized as plain text: only this module's own code places the
ids of `<option>`, `</option>`, chat markers and end tokens. Histories are tokenized by column: each distinct
date, title and watch time once, then joined with Arrow's `take`.
"""

import datetime
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from artsel_ray.data.images import ArtworkImage
from artsel_ray.errors import InputError
from artsel_ray.prompts import chat
from artsel_ray.prompts import text as render
from artsel_ray.prompts.escaping import OPTION, OPTION_END
from artsel_ray.prompts.images import ImagePlaceholders
from artsel_ray.prompts.spec import PromptSpec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# A whole prompt's ids: [tokens]. It has thousands, and joining lists of them cost more than all else beside a model.
Ids = NDArray[np.int32]

_CONTENT = "\u241fcontent\u241f"
_SEPARATOR = "\x1f"
_MAX_SECONDS = 1e9
_DAYS = (pa.scalar(datetime.date.min), pa.scalar(datetime.date.max))
_CACHED_TITLES = 2**18


@dataclass(frozen=True)
class Options:
    """A title's tokenized part of the prompt, and the answer that stands for each candidate."""

    prefix: list[int]
    """Ids of the title's line and all its options."""
    answers: list[list[int]]
    """For each candidate, the ids between `<option>` and `</option>` of the answer."""
    captions_cut: int
    """Captions that lost tokens to the budget."""
    length: int
    """Tokens of `prefix`, with those that stand for pictures."""
    images: Sequence[ArtworkImage] = ()
    """Of the candidates, where these are pictures: `prefix` has a mark for each."""


@dataclass(frozen=True)
class Histories:
    """Tokenized histories, one list of ids for each row."""

    ids: pa.ListArray
    items_cut: np.ndarray
    """Interactions of each row that the budget left out, beyond those that `history_length` does."""


@dataclass(frozen=True)
class TokenizedExample:
    """A training example: `ids[i]` is supervised where `supervised[i]`."""

    ids: list[int]
    supervised: list[bool]
    images: Sequence[ArtworkImage] = ()


class PromptTokenizer:
    """Tokenizes prompts of one spec with one tokenizer; keeps what it has tokenized of histories."""

    def __init__(
        self, tokenizer: "PreTrainedTokenizerBase", spec: PromptSpec, placeholders: ImagePlaceholders | None = None
    ) -> None:
        """Takes a tokenizer that has the two option tokens, and where candidates are pictures what marks them.

        Raises:
            InputError: if it lacks the tokens.
        """
        self.tokenizer = tokenizer
        self.spec = spec
        self.placeholders = placeholders
        added = tokenizer.get_added_vocab()
        if OPTION not in added or OPTION_END not in added:
            raise InputError(f"the model's tokenizer has no {OPTION} and {OPTION_END}; load it with artsel_ray.models")
        self.option, self.option_end = added[OPTION], added[OPTION_END]
        self._pieces: dict[str, np.ndarray] = {}

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
        """The ids before and after the user's message: the chat template's, or just a begin token."""
        if self.placeholders:
            asked = self.placeholders.turn([{"type": "text", "text": _CONTENT}])
        elif self.tokenizer.chat_template is None:
            bos = self.tokenizer.bos_token_id
            return ([] if bos is None else [bos]), self.encode(["\n\n"])[0]
        else:
            asked = chat.turn(self.tokenizer, _CONTENT)
        before, _, after = asked.partition(_CONTENT)
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
        asked = self.encode([render.question(self.spec)])[0] + self.turn
        return asked + (self.encode([render.REASON])[0] if self.spec.reason else self.prediction)

    @cached_property
    def prediction(self) -> list[int]:
        """Ids of `Prediction: <option>`."""
        return [*self.encode([render.PREDICTION])[0], self.option]

    @cached_property
    def after_rationale(self) -> list[int]:
        """Ids that lead from a written reason to its prediction."""
        return self.encode(["\n"])[0] + self.prediction

    @cached_property
    def end(self) -> list[int]:
        """Ids that end an answer: `</option>` and the model's end of turn."""
        return [self.option_end, int(self.tokenizer.eos_token_id)]

    @cached_property
    def history_head(self) -> list[int]:
        """Ids that every history begins with."""
        return self.encode([render.HISTORY_HEAD])[0]

    @cached_property
    def min_history_tokens(self) -> int:
        """Length of a history of which nothing is shown."""
        return len(self.history_head) + len(self.encode([render.HISTORY_EMPTY])[0])

    def options(self, name: str, genres: Sequence[str], captions: Sequence[str]) -> Options:
        """Tokenizes a title with its candidates' captions."""
        limit = self.spec.caption_tokens
        texts = self.encode([render.option_text(caption) for caption in captions])
        contents = [ids[:limit] for ids in texts]
        prefix = self._prefix(name, genres, contents)
        answers = self._numbers(len(captions)) if self.spec.output == "number" else contents
        return Options(prefix, answers, sum(len(ids) > limit for ids in texts), len(prefix))

    def image_options(self, name: str, genres: Sequence[str], images: Sequence[ArtworkImage]) -> Options:
        """Tokenizes a title whose candidates are pictures; the answers are their numbers."""
        assert self.placeholders is not None
        prefix = self._prefix(name, genres, [self.placeholders.ids] * len(images))
        more = sum(self.placeholders.length(image) - len(self.placeholders.ids) for image in images)
        return Options(prefix, self._numbers(len(images)), 0, len(prefix) + more, images)

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
        """Returns the texts of a title's tokenized part: its line, then each option's."""
        ends = [place for place, token in enumerate(prefix) if token == self.option_end]
        begins = [place for place, token in enumerate(prefix) if token == self.option]
        parts = [prefix[: begins[0]], *(prefix[begin + 1 : end] for begin, end in zip(begins, ends, strict=True))]
        return [str(text) for text in self.tokenizer.batch_decode(parts)]

    def prompt(self, prefix: Sequence[int], history: Sequence[int] | Ids) -> Ids:
        """Joins a prompt from a title's options and a user's history, in the spec's order."""
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
        """Returns how many tokens of history fit beside a title's options and the longest answer; -1 if none do."""
        answer = max(map(len, options.answers)) + len(self.end)
        if self.spec.reason:
            answer += self.spec.reason_tokens + len(self.after_rationale)
        budget = max_model_length - self.fixed_tokens() - options.length - answer
        return budget if budget >= self.min_history_tokens else -1

    def example(
        self, options: Options, history: list[int] | Ids, answer: list[int], rationale: str | None = None
    ) -> TokenizedExample:
        """Returns a training example: the prompt, and supervised behind it the answer with its end.

        Marks of pictures are expanded.

        Raises:
            ValueError: if the spec asks for a rationale and there is none, or the other way round.
        """
        if (rationale is not None) != self.spec.reason:
            has = "has" if rationale else "lacks"
            raise ValueError(f"spec.reason is {self.spec.reason}, the example {has} a rationale")
        ids = self.prompt(options.prefix, history)
        prompt = (self.placeholders.expand(ids, options.images) if self.placeholders else ids).tolist()
        written = [] if rationale is None else self.rationale(rationale) + self.after_rationale
        target = written + answer + self.end
        return TokenizedExample(prompt + target, [False] * len(prompt) + [True] * len(target), options.images)

    def with_rationale(self, prompt: Ids, written: list[int]) -> tuple[Ids, str]:
        """Returns the prompt that goes on to the prediction after what a model wrote, and the reason in that."""
        rationale = str(self.tokenizer.decode(written)).partition(render.PREDICTION.strip())[0].strip()
        following = self.rationale(rationale) + self.after_rationale
        return np.concatenate((prompt, np.array(following, dtype=np.int32))), rationale

    def rationale(self, text: str) -> list[int]:
        """Tokenizes a reason, cut to its budget."""
        return self.encode([render.option_text(text)])[0][: self.spec.reason_tokens]

    def histories(self, history: pa.Array | pa.ChunkedArray, budgets: np.ndarray) -> Histories:
        """Tokenizes histories: the newest `history_length` items, then of these the newest that fit.

        Args:
            history: [N] lists of the schema's history structs, newest last; a null counts as empty.
            budgets: [N] most tokens for each row's history, its head included; `spec.history_tokens` holds too.
        """
        rows = history.combine_chunks() if isinstance(history, pa.ChunkedArray) else history
        ends = np.cumsum(pc.fill_null(pc.list_value_length(rows), 0).to_numpy(zero_copy_only=False), dtype=np.int64)
        begins = np.concatenate([[0], ends[:-1]]) if len(ends) else ends
        pieces, codes = self._item_pieces(rows.flatten())
        lengths = pc.list_value_length(pieces).to_numpy()[codes].sum(axis=1)
        before = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        head = np.array(self.history_head, dtype=np.int32)
        empty = np.array(self.encode([render.HISTORY_EMPTY])[0], dtype=np.int32)
        budget = np.maximum(np.minimum(budgets, self.spec.history_tokens) - len(head), 0)
        newest = np.maximum(begins, ends - self.spec.history_length)
        # The first item that fits: everything from it to the row's end has at most `budget` tokens.
        starts = np.maximum(newest, np.minimum(np.searchsorted(before, before[ends] - budget), ends))
        flat = pieces.take(pa.array(codes.ravel())).flatten().to_numpy()
        parts = []
        for begin, start, end in zip(begins, starts, ends, strict=True):
            body = empty if begin == end else flat[before[start] : before[end]]
            parts += [head, body]
        part_lengths = np.array([len(part) for part in parts], dtype=np.int64).reshape(-1, 2).sum(axis=1)
        offsets = np.concatenate([[0], np.cumsum(part_lengths)]).astype(np.int32)
        values = np.concatenate(parts) if parts else np.empty(0, np.int32)
        return Histories(pa.ListArray.from_arrays(pa.array(offsets), pa.array(values)), starts - newest)

    def _item_pieces(self, items: pa.StructArray) -> tuple[pa.ListArray, np.ndarray]:
        """Returns the distinct pieces' ids, and for each item the indices of its three pieces: [items, 3]."""
        columns = [_dates(items.field("timestamp")), _titles(items), _watches(items.field("watch_seconds"))]
        texts = [text for column_texts, _ in columns for text in column_texts]
        firsts = np.cumsum([0] + [len(column_texts) for column_texts, _ in columns[:-1]])
        codes = np.stack([first + column for first, (_, column) in zip(firsts, columns, strict=True)], axis=1)
        missing = [text for text in dict.fromkeys(texts) if text not in self._pieces]
        for text, ids in zip(missing, self.encode(missing), strict=True):
            self._pieces[text] = np.array(ids, dtype=np.int32)
        pieces = [self._pieces[text] for text in texts]
        offsets = np.cumsum([0] + [len(piece) for piece in pieces], dtype=np.int32)
        values = np.concatenate(pieces) if pieces else np.empty(0, np.int32)
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values, pa.int32())), codes


def _distinct(values: pa.Array) -> tuple[list, np.ndarray]:
    """Returns the distinct values (null as None) and the index of each value's own."""
    encoded = pc.dictionary_encode(values, null_encoding="encode")
    return encoded.dictionary.to_pylist(), encoded.indices.to_numpy().astype(np.int64)


def _dates(timestamps: pa.Array) -> tuple[list[str], np.ndarray]:
    days = timestamps.cast(pa.timestamp("us")).cast(pa.date32(), safe=False)
    # A day that the calendar of Python does not have is shown as an unknown one.
    known = pc.and_(pc.greater_equal(days, _DAYS[0]), pc.less_equal(days, _DAYS[1]))
    days, codes = _distinct(pc.if_else(known, days, None))
    return [render.history_date(day) for day in days], codes


def _titles(items: pa.StructArray) -> tuple[list[str], np.ndarray]:
    names = pc.fill_null(items.field("title_name"), "")
    lists = items.field("genres")
    # One null in a list makes its join null: the nulls are emptied first, and `_described` leaves empty genres out.
    filled = pa.ListArray.from_arrays(lists.offsets, pc.fill_null(lists.values, ""))
    genres = pc.if_else(lists.is_valid(), pc.binary_join(filled, _SEPARATOR), "")
    joined, codes = _distinct(pc.binary_join_element_wise(names, genres, _SEPARATOR * 2))
    return [_described(text) for text in joined], codes


@lru_cache(maxsize=_CACHED_TITLES)
def _described(joined: str) -> str:
    name, _, genres = joined.partition(_SEPARATOR * 2)
    return render.described_title(name, [genre for genre in genres.split(_SEPARATOR) if genre])


def _watches(seconds: pa.Array) -> tuple[list[str], np.ndarray]:
    known = pc.and_(pc.is_finite(seconds), pc.and_(pc.greater_equal(seconds, 0), pc.less(seconds, _MAX_SECONDS)))
    minutes, codes = _distinct(pc.round(pc.divide(pc.if_else(known, seconds, None), 60.0)).cast(pa.int64()))
    return [render.history_watch(value) for value in minutes], codes
