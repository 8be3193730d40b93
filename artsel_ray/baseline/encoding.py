"""What the baseline's network is fed: a vocabulary out of the train examples, and examples as numbers of it.

Suffixes: n examples, c candidates of all examples end to end, h history items of all examples end to end,
a distinct artworks, i distinct items, v entries of a vocabulary, b examples of a batch.
"""

import itertools
import re
import zlib
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch import Tensor

from artsel_ray.baseline.example_arrays import ExampleArrays, FloatArray, IntArray

BUCKETS = 1 << 15
PAST_FEATURES = 4
_GENRE_MARK = "\x1f"
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Vocabulary:
    """What the train examples know. An entry's number is its place + 1; 0 stands for all that is unknown.

    Attributes:
        engagements_v: how often each artwork is engaged with in train.
        rarity_w: `log((1 + texts) / (1 + texts with the term)) + 1` of each bucket of terms, over train's captions.
    """

    artwork_ids: pa.Array
    names: pa.Array
    genres: pa.Array
    engagements_v: IntArray
    rarity_w: FloatArray


@dataclass(frozen=True)
class Bags:
    """Weighted bags of numbers, one after another; bag k is `numbers[offsets[k]:offsets[k + 1]]`."""

    offsets: IntArray
    numbers: IntArray
    weights: FloatArray

    def take(self, places: IntArray) -> "Bags":
        """Returns the bags at these places."""
        length = np.diff(self.offsets)[places]
        chosen = ranges(self.offsets[places], length)
        return Bags(np.concatenate([[0], np.cumsum(length)]), self.numbers[chosen], self.weights[chosen])

    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """Returns numbers, offsets and weights as `EmbeddingBag` wants them."""
        return torch.from_numpy(self.numbers), torch.from_numpy(self.offsets), torch.from_numpy(self.weights)


@dataclass(frozen=True)
class NetworkInputs:
    """A split's examples as numbers of a vocabulary.

    Attributes:
        start_n: each example's first place in `artwork_c`; `past_n` its first one in `item_h`.
        past_hf: log days before the example, log minutes watched, whether these are not known, log place from newest.
        engaged_c: True at the engaged candidate, in train, whose own engagement popularity must not count; else False.
    """

    label_n: IntArray
    size_n: IntArray
    start_n: IntArray
    artwork_c: IntArray
    title_n: IntArray
    length_n: IntArray
    past_n: IntArray
    item_h: IntArray
    past_hf: FloatArray
    artwork_a: IntArray
    engagements_a: IntArray
    captions_a: Bags
    name_i: IntArray
    words_i: Bags
    genres_i: Bags
    engaged_c: NDArray[np.bool_]


def ranges(start: IntArray, length: IntArray) -> IntArray:
    """Returns the numbers of `[start, start + length)` of all ranges, one range after another."""
    ends = np.cumsum(length)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(start - ends + length, length)


def terms(text: str) -> list[int]:
    """Returns the buckets of a text's words and pairs of neighbouring words, in small letters."""
    words = _WORD.findall(text.lower())
    grams = [*words, *(f"{one} {other}" for one, other in itertools.pairwise(words))]
    return [zlib.crc32(gram.encode("utf-8", "surrogatepass")) % BUCKETS for gram in grams]


def count_terms(texts: pa.Array) -> Bags:
    """Returns each text's distinct terms, weighted by 1 + log of how often they stand in it."""
    counted = [Counter(terms(text or "")) for text in texts.to_pylist()]
    lengths = np.array([len(counts) for counts in counted], np.int64)
    numbers = np.array([term for counts in counted for term in counts], np.int64)
    times = np.array([count for counts in counted for count in counts.values()], np.float32)
    return Bags(np.concatenate([[0], np.cumsum(lengths)]), numbers, 1 + np.log(times))


def weigh(bags: Bags, rarity_w: FloatArray) -> Bags:
    """Multiplies by the terms' rarity and scales every bag to length 1."""
    weights = bags.weights * rarity_w[bags.numbers]
    owner = np.repeat(np.arange(len(bags.offsets) - 1), np.diff(bags.offsets))
    norm = np.sqrt(np.bincount(owner, weights**2, len(bags.offsets) - 1))
    return Bags(bags.offsets, bags.numbers, (weights / np.maximum(norm[owner], 1e-12)).astype(np.float32))


def make_vocabulary(train: ExampleArrays) -> Vocabulary:
    """Returns what the train examples know; nothing else is ever used for popularity."""
    artwork_ids = pc.unique(train.artwork_ids).sort()
    place_a = pc.index_in(train.artwork_ids, value_set=artwork_ids).to_numpy().astype(np.int64)
    engaged = place_a[train.artwork_c[train.engaged_c]]
    captions = count_terms(train.captions)
    texts = len(train.captions)
    seen_w = np.bincount(captions.numbers, minlength=BUCKETS)
    return Vocabulary(
        artwork_ids,
        pc.unique(train.names).sort(),
        pc.unique(pc.list_flatten(pc.split_pattern(train.genres, _GENRE_MARK))).sort(),
        np.bincount(engaged, minlength=len(artwork_ids)),
        (np.log((1 + texts) / (1 + seen_w)) + 1).astype(np.float32),
    )


def numbers_of(values: pa.Array, vocabulary: pa.Array) -> IntArray:
    """Returns each value's place in the vocabulary + 1, and 0 for what is unknown."""
    return pc.fill_null(pc.index_in(values, value_set=vocabulary), -1).to_numpy().astype(np.int64) + 1


def encode(rows: ExampleArrays, vocabulary: Vocabulary, train: bool = False) -> NetworkInputs:
    """Returns the examples as numbers.

    Args:
        train: these are the examples that the vocabulary's engagements were counted in.
    """
    artwork_a = numbers_of(rows.artwork_ids, vocabulary.artwork_ids)
    genres = pc.split_pattern(rows.genres, _GENRE_MARK)
    genre_count = pc.list_value_length(genres).to_numpy().astype(np.int64)
    minutes_h = np.clip(np.nan_to_num(rows.watch_seconds_h, posinf=0.0, neginf=0.0), 0, None) / 60
    from_newest_h = np.repeat(rows.length_n, rows.length_n) - ranges(np.zeros_like(rows.length_n), rows.length_n)
    past = (np.log1p(rows.age_days_h), np.log1p(minutes_h), np.isnan(rows.watch_seconds_h), np.log(from_newest_h))
    return NetworkInputs(
        label_n=rows.label_n,
        size_n=rows.size_n,
        start_n=np.cumsum(rows.size_n) - rows.size_n,
        artwork_c=rows.artwork_c,
        title_n=rows.title_n,
        length_n=rows.length_n,
        past_n=np.cumsum(rows.length_n) - rows.length_n,
        item_h=rows.item_h,
        past_hf=np.stack(past, axis=1).astype(np.float32),
        artwork_a=artwork_a,
        engagements_a=np.concatenate([[0], vocabulary.engagements_v])[artwork_a],
        captions_a=weigh(count_terms(rows.captions), vocabulary.rarity_w),
        name_i=numbers_of(rows.names, vocabulary.names),
        words_i=weigh(count_terms(rows.names), np.ones(BUCKETS, np.float32)),
        genres_i=Bags(
            np.concatenate([[0], np.cumsum(genre_count)]),
            numbers_of(pc.list_flatten(genres), vocabulary.genres),
            np.repeat(1 / np.maximum(genre_count, 1), genre_count).astype(np.float32),
        ),
        engaged_c=rows.engaged_c if train else np.zeros(len(rows.artwork_c), bool),
    )


def make_batch(data: NetworkInputs, picked_b: IntArray) -> dict[str, Any]:
    """Returns tensors of the picked examples, with each artwork and item that they share once."""
    size_b, length_b = data.size_n[picked_b], data.length_n[picked_b]
    candidate_c, past_h = ranges(data.start_n[picked_b], size_b), ranges(data.past_n[picked_b], length_b)
    artwork_a, local_c = np.unique(data.artwork_c[candidate_c], return_inverse=True)
    shown = np.concatenate([data.title_n[picked_b], data.item_h[past_h]])
    item_i, local_i = np.unique(shown, return_inverse=True)
    arrays = {
        "label_b": data.label_n[picked_b],
        "owner_c": np.repeat(np.arange(len(picked_b)), size_b),
        "place_c": ranges(np.zeros_like(size_b), size_b),
        "local_c": local_c,
        "own_c": data.engaged_c[candidate_c].astype(np.float32),
        "id_a": data.artwork_a[artwork_a],
        "engagements_a": data.engagements_a[artwork_a].astype(np.float32),
        "name_i": data.name_i[item_i],
        "title_b": local_i[: len(picked_b)],
        "item_h": local_i[len(picked_b) :],
        "owner_h": np.repeat(np.arange(len(picked_b)), length_b),
        "past_hf": data.past_hf[past_h],
    }
    bags = {"captions_a": data.captions_a.take(artwork_a), "words_i": data.words_i.take(item_i)}
    bags["genres_i"] = data.genres_i.take(item_i)
    return {
        **{name: torch.from_numpy(array) for name, array in arrays.items()},
        **{name: bag.tensors() for name, bag in bags.items()},
    }
