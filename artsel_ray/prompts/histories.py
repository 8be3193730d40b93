"""Watch histories to token ids, by column.

A line of history has three segments: date, title and watch time. Of each column every distinct segment is tokenized
once; the lines are then joined with Arrow's `take`. Arrays: R rows (users), I items of all rows, S distinct segments.
"""

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from artsel_ray.prompts import text as render
from artsel_ray.prompts.spec import PromptSpec

_SEPARATOR = "\x1f"
_SHORT = 256  # letters of a title that is worth a place in a cache
_MAX_SECONDS = 1e9
# Letters and ids that a cache holds before it begins again, and most texts.
_MAX_CACHED, _MAX_CACHED_TITLES = 2**24, 2**18


@dataclass(frozen=True)
class Histories:
    """Tokenized histories of R rows."""

    ids: pa.ListArray
    items_cut: np.ndarray
    """[R] interactions that the token budget dropped, in addition to those beyond `history_length`."""


class HistoryTokenizer:
    """Tokenizes histories for one spec with `encode`, which gives no special token; caches the ids of all segments."""

    def __init__(self, encode: Callable[[Sequence[str]], list[list[int]]], spec: PromptSpec) -> None:
        self._encode, self._spec = encode, spec
        self.head, self._empty = encode([render.HISTORY_HEAD, render.HISTORY_EMPTY])
        self.min_tokens = len(self.head) + len(self._empty)
        """Length of a history that shows no item."""
        self._segments: dict[str, np.ndarray] = {}
        self._cached = 0  # letters and ids of the segments

    def tokenize(self, history: pa.Array | pa.ChunkedArray, budgets: np.ndarray) -> Histories:
        """Tokenizes each row's newest `history_length` items, and of these the newest that fit its budget.

        Args:
            history: [R] lists of the schema's history structs, newest last; null counts as empty.
            budgets: [R] most tokens of each row's history, including its head; at most `history_tokens` are used.
        """
        rows = history.combine_chunks() if isinstance(history, pa.ChunkedArray) else history
        rows = newest(rows, self._spec.history_length)
        ends_r = np.cumsum(pc.fill_null(pc.list_value_length(rows), 0).to_numpy(zero_copy_only=False), dtype=np.int64)
        begins_r = np.concatenate([[0], ends_r[:-1]]) if len(ends_r) else ends_r
        segments, codes = self._item_segments(rows.flatten())
        # before[i]: tokens of all items before item i.
        lengths_i = pc.list_value_length(segments).to_numpy()[codes].sum(axis=1)
        before = np.concatenate([[0], np.cumsum(lengths_i, dtype=np.int64)])
        # The first item that fits: everything from it to the row's end has at most `budget` tokens.
        budget_r = np.maximum(np.minimum(budgets, self._spec.history_tokens) - len(self.head), 0)
        fitting_r = np.minimum(np.searchsorted(before, before[ends_r] - budget_r), ends_r)
        starts_r = np.maximum(begins_r, fitting_r)
        flat = segments.take(pa.array(codes.ravel())).flatten().to_numpy()
        ids = self._join(flat, before[starts_r], before[ends_r], is_empty=begins_r == ends_r)
        return Histories(ids, starts_r - begins_r)

    def _join(self, flat: np.ndarray, starts: np.ndarray, ends: np.ndarray, is_empty: np.ndarray) -> pa.ListArray:
        """Returns each row's head, followed by its slice [start, end) of all items' tokens; an empty row says so."""
        head, empty = np.array(self.head, dtype=np.int32), np.array(self._empty, dtype=np.int32)
        parts = []
        for start, end, nothing in zip(starts, ends, is_empty, strict=True):
            parts += [head, empty if nothing else flat[start:end]]
        return _lists(parts, parts_per_list=2)

    def _item_segments(self, items: pa.StructArray) -> tuple[pa.ListArray, np.ndarray]:
        """Returns the distinct segments' ids, [S] lists, and the indices of each item's three segments, [I, 3]."""
        columns = [_dates(items.field("timestamp")), _titles(items), _watches(items.field("watch_seconds"))]
        texts = [text for column_texts, _ in columns for text in column_texts]
        firsts = np.cumsum([0] + [len(column_texts) for column_texts, _ in columns[:-1]])
        codes = np.stack([first + column for first, (_, column) in zip(firsts, columns, strict=True)], axis=1)
        if self._cached > _MAX_CACHED or len(self._segments) > _MAX_CACHED_TITLES:
            self._segments.clear()
            self._cached = 0
        missing = [text for text in dict.fromkeys(texts) if text not in self._segments]
        for text, ids in zip(missing, self._encode(missing), strict=True):
            self._segments[text] = np.array(ids, dtype=np.int32)
            self._cached += len(text) + len(ids)
        return _lists([self._segments[text] for text in texts]), codes


def newest(histories: pa.Array, count: int) -> pa.Array:
    """Returns lists with their last `count` items only; null and empty lists stay."""
    lengths = pc.fill_null(pc.list_value_length(histories), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    kept = np.minimum(lengths, count)
    if (kept == lengths).all():
        return histories
    offsets = np.concatenate([[0], np.cumsum(kept)])
    skipped = np.cumsum(lengths - kept)  # of this list and those before it
    values = histories.flatten().take(pa.array(np.arange(offsets[-1]) + np.repeat(skipped, kept)))
    mask = histories.is_null() if histories.null_count else None
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values, mask=mask)


def _lists(parts: list[np.ndarray], parts_per_list: int = 1) -> pa.ListArray:
    offsets = np.cumsum([0, *map(len, parts)], dtype=np.int32)[::parts_per_list]
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.concatenate([np.empty(0, np.int32), *parts])))


def _distinct(values: pa.Array) -> tuple[list, np.ndarray]:
    """Returns the distinct values, null as None, and the index into them of each value; so do the functions below."""
    encoded = pc.dictionary_encode(values, null_encoding="encode")
    return encoded.dictionary.to_pylist(), encoded.indices.to_numpy().astype(np.int64)


def _dates(timestamps: pa.Array) -> tuple[list[str], np.ndarray]:
    days = timestamps.cast(pa.timestamp("us")).cast(pa.date32(), safe=False)
    # A day outside Python's calendar is shown as an unknown one.
    known = pc.and_(pc.greater_equal(days, datetime.date.min), pc.less_equal(days, datetime.date.max))
    distinct_days, codes = _distinct(pc.if_else(known, days, None))
    return [render.history_date(day) for day in distinct_days], codes


def _titles(items: pa.StructArray) -> tuple[list[str], np.ndarray]:
    names = pc.fill_null(items.field("title_name"), "")
    lists = items.field("genres")
    # One null in a list makes its join null: nulls are emptied first, and `_described` leaves empty genres out.
    filled = pa.ListArray.from_arrays(lists.offsets, pc.fill_null(lists.values, ""))
    genres = pc.if_else(lists.is_valid(), pc.binary_join(filled, _SEPARATOR), "")
    joined, codes = _distinct(pc.binary_join_element_wise(names, genres, _SEPARATOR * 2))
    return [_described(text) if len(text) <= _SHORT else _described.__wrapped__(text) for text in joined], codes


@lru_cache(maxsize=_MAX_CACHED_TITLES)
def _described(joined: str) -> str:
    name, _, genres = joined.partition(_SEPARATOR * 2)
    return render.described_title(name, list(filter(None, genres.split(_SEPARATOR))))


def _watches(seconds: pa.Array) -> tuple[list[str], np.ndarray]:
    known = pc.and_(pc.is_finite(seconds), pc.and_(pc.greater_equal(seconds, 0), pc.less(seconds, _MAX_SECONDS)))
    minutes, codes = _distinct(pc.round(pc.divide(pc.if_else(known, seconds, None), 60.0)).cast(pa.int64()))
    return [render.history_watch(value) for value in minutes], codes
