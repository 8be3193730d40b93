"""Which pairs of user and title are for training, validation and test.

Every pair has a key: a salted 64-bit hash of its ids, or, in a split by time, its timestamp, newest first, and then the
hash. Pairs in the order of their keys fill test, then validation, then train; the rest is not selected. So each pair is
in exactly one split.

A pair's key depends on the pair only, so new pairs never change the order of the others. Sizes are counts, so a new
pair can move others across a boundary, but only in one direction: from test to validation, from validation to train,
from train to not selected; never from train to test. (With fewer pairs than the sizes ask for, the sizes grow with the
pairs, and the boundaries move with them.)
"""

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

SPLITS = ("test", "validation", "train")


@dataclass(frozen=True)
class Keys:
    """Keys of n pairs, ordered by `primary` and then by `hash`."""

    primary_n: np.ndarray
    """int64: 0 in a split by hash; minus the time in microseconds in a split by time."""
    hash_n: np.ndarray
    """uint64."""

    def smallest(self, count: int) -> "Keys":
        """Returns the smallest `count` keys in order, or all if there are fewer."""
        order = np.lexsort((self.hash_n, self.primary_n))[:count]
        return Keys(self.primary_n[order], self.hash_n[order])


def concatenate(parts: list[Keys]) -> Keys:
    """Returns the keys of several groups of pairs together."""
    parts = [Keys(np.empty(0, np.int64), np.empty(0, np.uint64)), *parts]
    return Keys(np.concatenate([part.primary_n for part in parts]), np.concatenate([part.hash_n for part in parts]))


def pair_keys(
    user_ids: pa.Array, title_ids: pa.Array, times_n: np.ndarray, split: Literal["hash", "time"], seed: int
) -> Keys:
    """Returns the keys of n pairs; times, used only in a split by time, are int64 microseconds since 1970."""
    pairs = pc.binary_join_element_wise(user_ids, title_ids, "\x1f")
    hash_n = hash_texts(pairs, hash_key=hashlib.blake2b(str(seed).encode(), digest_size=8).hexdigest())
    return Keys(-times_n if split == "time" else np.zeros(len(hash_n), np.int64), hash_n)


def hash_texts(texts: pa.Array, **options: str) -> np.ndarray:
    """Returns hashes, uint64, that depend on the texts and on nothing else."""
    return pd.util.hash_array(texts.to_numpy(zero_copy_only=False).astype(object), categorize=False, **options)


def allot(pairs: int, train_size: int, validation_size: int, test_size: int) -> dict[str, int]:
    """Returns the number of pairs in each split.

    Test and validation get exactly their sizes, and train gets the rest, at most its own size. Only with fewer pairs
    than the three sizes together, of which test and validation would take more than half, these two share that half in
    proportion, each at least one pair if there are three.
    """
    held_out, half = validation_size + test_size, pairs // 2
    test, validation = test_size, validation_size
    if pairs < train_size + held_out and held_out > half:
        minimum = int(pairs >= len(SPLITS))
        test = max(half * test_size // held_out, min(test_size, minimum))
        validation = max(half * validation_size // held_out, min(validation_size, minimum))
    return {"test": test, "validation": validation, "train": min(train_size, pairs - test - validation)}


def last_keys(keys: Keys, sizes: dict[str, int]) -> list[tuple[int, int]]:
    """Returns the last key of test, validation and train; `keys` holds at least the smallest of all pairs."""
    ordered = keys.smallest(sum(sizes.values()))
    ends = np.cumsum([sizes[split] for split in SPLITS])
    nothing = (np.iinfo(np.int64).min, 0)
    return [(int(ordered.primary_n[end - 1]), int(ordered.hash_n[end - 1])) if end else nothing for end in ends]


def assign(keys: Keys, last: list[tuple[int, int]]) -> np.ndarray:
    """Returns each pair's split as an index into `SPLITS`; `len(SPLITS)` if it is not selected."""
    split_n = np.zeros(len(keys.hash_n), dtype=np.int64)
    for primary, hash_ in last:
        later = (keys.primary_n == primary) & (keys.hash_n > np.uint64(hash_))
        split_n += (keys.primary_n > primary) | later
    return split_n
