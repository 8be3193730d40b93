"""Which user-title pairs are for training, for validation and for the test.

Every pair has a key: in a split by hash a salted 64-bit hash of its ids, in a split by time its timestamp,
newest first, and then the hash. Pairs in the order of their keys fill test, then validation, then train; the
rest is not selected. So a pair is in exactly one split.

What stays the same when pairs are added: a pair's key depends on nothing but the pair, so the order of the
others never changes. As sizes are counts, a new pair can push others over a boundary, but only one way: out of
test into validation, out of validation into train, out of train to the unselected; never from train into test.
(Where there are fewer pairs than the sizes ask for, the sizes grow with the pairs, and the boundaries with them.)
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
    """Keys of n pairs, compared by `primary` and then by `hash`."""

    primary_n: np.ndarray
    """int64, n: 0 in a split by hash; minus the time in microseconds in a split by time."""
    hash_n: np.ndarray
    """uint64, n."""

    def smallest(self, count: int) -> "Keys":
        """Returns the first `count` keys in their order, or all if there are fewer."""
        order = np.lexsort((self.hash_n, self.primary_n))[:count]
        return Keys(self.primary_n[order], self.hash_n[order])

    def to_bytes(self) -> bytes:
        """Returns the keys as bytes, to travel between processes."""
        return self.primary_n.tobytes() + self.hash_n.tobytes()

    @staticmethod
    def from_bytes(content: bytes) -> "Keys":
        """Returns the keys that `to_bytes` wrote."""
        half = len(content) // 2
        return Keys(np.frombuffer(content[:half], np.int64), np.frombuffer(content[half:], np.uint64))


def concatenate(parts: list[Keys]) -> Keys:
    """Returns all keys of several groups of pairs."""
    return Keys(
        np.concatenate([part.primary_n for part in parts] or [np.empty(0, np.int64)]),
        np.concatenate([part.hash_n for part in parts] or [np.empty(0, np.uint64)]),
    )


def pair_keys(
    user_ids: pa.Array, title_ids: pa.Array, times_n: np.ndarray, split: Literal["hash", "time"], seed: int
) -> Keys:
    """Returns every pair's key.

    Args:
        times_n: microseconds since 1970, int64; only looked at in a split by time.
        seed: the hash's salt.
    """
    pairs = pc.binary_join_element_wise(user_ids, title_ids, "\x1f")
    salt = hashlib.blake2b(str(seed).encode(), digest_size=8).hexdigest()
    names = pairs.to_numpy(zero_copy_only=False).astype(object)
    hash_n = pd.util.hash_array(names, hash_key=salt, categorize=False)
    return Keys(-times_n if split == "time" else np.zeros(len(hash_n), np.int64), hash_n)


def allot(pairs: int, train_size: int, validation_size: int, test_size: int) -> dict[str, int]:
    """Returns how many of the pairs each split gets.

    Test and validation get exactly their sizes, and train what is left, at most its own. Only where there are
    fewer pairs than the three sizes ask for, and the two would take more than half of them, they share that half in
    proportion, each at least one pair if there are three.
    """
    held_out, half = validation_size + test_size, pairs // 2
    test, validation = test_size, validation_size
    if pairs < train_size + held_out and held_out > half:
        least = int(pairs >= len(SPLITS))
        test = max(half * test_size // held_out, min(test_size, least))
        validation = max(half * validation_size // held_out, min(validation_size, least))
    return {"test": test, "validation": validation, "train": min(train_size, pairs - test - validation)}


def last_keys(keys: Keys, sizes: dict[str, int]) -> list[tuple[int, int]]:
    """Returns the last key of test, of validation and of train; `keys` holds at least the smallest of all pairs."""
    ordered = keys.smallest(sum(sizes.values()))
    ends = np.cumsum([sizes[split] for split in SPLITS])
    nothing = (np.iinfo(np.int64).min, 0)
    return [(int(ordered.primary_n[end - 1]), int(ordered.hash_n[end - 1])) if end else nothing for end in ends]


def assign(keys: Keys, last: list[tuple[int, int]]) -> np.ndarray:
    """Returns each pair's split as an index into `SPLITS`; one past the end for a pair that is not selected."""
    split_n = np.zeros(len(keys.hash_n), dtype=np.int64)
    for primary, hash_ in last:
        later = (keys.primary_n == primary) & (keys.hash_n > np.uint64(hash_))
        split_n += (keys.primary_n > primary) | later
    return split_n
