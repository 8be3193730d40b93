"""Which pairs of user and title are for training, validation and test.

Every pair has a key: a salted 64-bit hash of its ids, or, in a split by time, its timestamp, newest first, and then the
hash. Pairs in the order of their keys fill test, then validation, then train; the rest is not selected. So each pair is
in exactly one split.

A pair's key depends on the pair only, so new pairs never change the order of the others. Sizes are counts, so a new
pair can move others across a boundary, but only in one direction: from test to validation, from validation to train,
from train to not selected; never from train to test. (With fewer pairs than the sizes ask for, the sizes grow with the
pairs, and the boundaries move with them.)

In a split by title, titles have a group each: known ones, new ones for validation and new ones for test. The pairs of
each group are assigned by themselves: those of known titles to all three splits, those of new titles only to theirs.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from artsel_ray.errors import InputError
from artsel_ray.prepare.settings import Split

SPLITS = ("test", "validation", "train")
KNOWN, NEW_IN_VALIDATION, NEW_IN_TEST = GROUPS = range(3)
"""Groups of titles."""
HELD_OUT = {NEW_IN_VALIDATION: "validation", NEW_IN_TEST: "test"}
"""The only split of each group of new titles."""
NEVER = np.iinfo(np.int64).max
"""Time of the first impression of a title without any."""
_TEST_SHARE = 0.75


@dataclass(frozen=True)
class Keys:
    """Keys of n pairs, ordered by `primary` and then by `hash`."""

    primary_n: np.ndarray
    """int64: 0 in a split by hash; minus the time in microseconds in a split by time."""
    hash_n: np.ndarray
    """uint64."""

    def where(self, is_kept_n: np.ndarray) -> "Keys":
        """Returns the keys of some of the pairs."""
        return Keys(self.primary_n[is_kept_n], self.hash_n[is_kept_n])

    def smallest(self, count: int) -> "Keys":
        """Returns the smallest `count` keys in order, or all if there are fewer."""
        order = np.lexsort((self.hash_n, self.primary_n))[:count]
        return Keys(self.primary_n[order], self.hash_n[order])


def concatenate(parts: list[Keys]) -> Keys:
    """Returns the keys of several groups of pairs together."""
    parts = [Keys(np.empty(0, np.int64), np.empty(0, np.uint64)), *parts]
    return Keys(np.concatenate([part.primary_n for part in parts]), np.concatenate([part.hash_n for part in parts]))


def pair_keys(user_ids: pa.Array, title_ids: pa.Array, times_n: np.ndarray, split: Split, seed: int) -> Keys:
    """Returns the keys of n pairs; times, used only in a split by time, are int64 microseconds since 1970."""
    pairs = pc.binary_join_element_wise(user_ids, title_ids, "\x1f")
    hash_n = hash_texts(pairs, hash_key=hashlib.blake2b(str(seed).encode(), digest_size=8).hexdigest())
    return Keys(-times_n if split == "time" else np.zeros(len(hash_n), np.int64), hash_n)


def hash_texts(texts: pa.Array, **options: str) -> np.ndarray:
    """Returns hashes, uint64, that depend on the texts and on nothing else."""
    return pd.util.hash_array(texts.to_numpy(zero_copy_only=False).astype(object), categorize=False, **options)


def allot(pairs: int, train_size: int, validation_size: int, test_size: int) -> dict[str, int]:
    """Returns the number of pairs in each split: test and validation get their sizes, train the rest, up to its size.

    Only with fewer pairs than the three sizes together, of which test and validation would take more than half, these
    two share that half in proportion, each at least one pair if there are three.
    """
    held_out, half = validation_size + test_size, pairs // 2
    test, validation = test_size, validation_size
    if pairs < train_size + held_out and held_out > half:
        minimum = int(pairs >= len(SPLITS))
        test = max(half * test_size // held_out, min(test_size, minimum))
        validation = max(half * validation_size // held_out, min(validation_size, minimum))
    return {"test": test, "validation": validation, "train": min(train_size, pairs - test - validation)}


def group_titles(first_x: np.ndarray, new_share: float) -> np.ndarray:
    """Returns each title's group, given the times of first impressions: the newest titles are new.

    Raises:
        InputError: if that share of the titles is fewer than two, or all.
    """
    shown = int((first_x != NEVER).sum())
    new = round(new_share * shown)
    if new < len(HELD_OUT) or new == shown:
        raise InputError(
            f"--split title would hold out {new} of {shown} titles with impressions; it must hold out at least "
            f"{len(HELD_OUT)} and keep one to train on: give more titles or another --new-titles than {new_share:g}"
        )
    newest = np.argsort(first_x, kind="stable")[:shown][shown - new :]
    group_x = np.full(len(first_x), KNOWN)
    group_x[newest] = NEW_IN_TEST
    group_x[newest[: new - max(1, round(_TEST_SHARE * new))]] = NEW_IN_VALIDATION
    return group_x


def allot_groups(pairs_g: list[int], train_size: int, validation_size: int, test_size: int) -> list[dict[str, int]]:
    """Returns the number of pairs in each split, for each group of titles, given its number of pairs; see `allot`."""
    sizes = {"test": test_size, "validation": validation_size}
    nothing = dict.fromkeys(SPLITS, 0)
    new = [{**nothing, name: min(pairs_g[group], sizes[name])} for group, name in HELD_OUT.items()]
    return [allot(pairs_g[KNOWN], train_size, validation_size, test_size), *new]


def last_keys(keys: Keys, sizes: dict[str, int]) -> list[tuple[int, int]]:
    """Returns the last key of test, validation and train; `keys` holds at least the smallest of all pairs."""
    ordered = keys.smallest(sum(sizes.values()))
    ends = np.cumsum([sizes[split] for split in SPLITS])
    nothing = (np.iinfo(np.int64).min, 0)
    return [(int(ordered.primary_n[end - 1]), int(ordered.hash_n[end - 1])) if end else nothing for end in ends]


def assign_groups(keys: Keys, group_n: np.ndarray, last_g: list[list[tuple[int, int]]]) -> np.ndarray:
    """Returns each pair's split, as `assign` does, by the last keys of the group of the pair's title."""
    return np.select([group_n == group for group in GROUPS], [assign(keys, last) for last in last_g])


def assign(keys: Keys, last: list[tuple[int, int]]) -> np.ndarray:
    """Returns each pair's split as an index into `SPLITS`; `len(SPLITS)` if it is not selected."""
    split_n = np.zeros(len(keys.hash_n), dtype=np.int64)
    for primary, hash_ in last:
        later = (keys.primary_n == primary) & (keys.hash_n > np.uint64(hash_))
        split_n += (keys.primary_n > primary) | later
    return split_n
