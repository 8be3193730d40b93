"""Splits are exact in size, disjoint, stable and, by time, in the order of time."""

import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from artsel_ray.errors import InputError
from artsel_ray.prepare import splits

# (user, title) -> timestamp
_PAIRS = st.dictionaries(
    st.tuples(st.text("abé🎬", min_size=1, max_size=3), st.integers(0, 9).map(str)), st.integers(0, 20), max_size=40
)
_SIZES = st.tuples(st.integers(1, 12), st.integers(0, 6), st.integers(0, 6))


def _split(pairs: dict[tuple[str, str], int], sizes: tuple[int, int, int], how: str, seed: int = 0) -> dict:
    users, titles = (pa.array([pair[i] for pair in pairs], pa.string()) for i in (0, 1))
    times = np.array(list(pairs.values()), dtype=np.int64)
    keys = splits.pair_keys(users, titles, times, how, seed)  # type: ignore[arg-type]
    last = splits.last_keys(keys, splits.allot(len(pairs), *sizes))
    return dict(zip(pairs, splits.assign(keys, last).tolist(), strict=True))


@pytest.mark.parametrize("how", ["hash", "time"])
@given(pairs=_PAIRS, sizes=_SIZES)
def test_every_pair_is_in_one_split_of_exactly_its_size(
    how: str, pairs: dict[tuple[str, str], int], sizes: tuple[int, int, int]
) -> None:
    found = _split(pairs, sizes, how)
    wanted = splits.allot(len(pairs), *sizes)
    counts = np.bincount(list(found.values()), minlength=4)
    assert counts.tolist() == [*(wanted[name] for name in splits.SPLITS), len(pairs) - sum(wanted.values())]


@given(pairs=_PAIRS, more=_PAIRS, sizes=_SIZES)
def test_new_pairs_move_others_in_one_direction_only(
    pairs: dict[tuple[str, str], int], more: dict[tuple[str, str], int], sizes: tuple[int, int, int]
) -> None:
    if len(pairs) < sum(sizes):
        return
    before = _split(pairs, sizes, "hash")
    after = _split({**pairs, **{key: time for key, time in more.items() if key not in pairs}}, sizes, "hash")
    assert all(after[pair] >= before[pair] for pair in pairs)


@given(pairs=_PAIRS, sizes=_SIZES)
def test_order_of_rows_does_not_matter(pairs: dict[tuple[str, str], int], sizes: tuple[int, int, int]) -> None:
    assert _split(pairs, sizes, "hash") == _split(dict(reversed(pairs.items())), sizes, "hash")


@given(pairs=_PAIRS, sizes=_SIZES)
def test_split_by_time_has_nothing_in_train_later_than_in_test(
    pairs: dict[tuple[str, str], int], sizes: tuple[int, int, int]
) -> None:
    found = _split(pairs, sizes, "time")
    times = [[pairs[pair] for pair, split in found.items() if split == number] for number in range(4)]
    filled = [part for part in times if part]
    assert all(min(newer) >= max(older) for newer, older in itertools.pairwise(filled))


def test_seed_salts_the_hash() -> None:
    pairs = {(f"u{n}", "t"): 0 for n in range(200)}
    first, second = (_split(pairs, (100, 50, 50), "hash", seed) for seed in (0, 1))
    # By chance 3/8 agree (1/4 + 1/16 + 1/16 of the pairs); all would agree if the seed were not used.
    assert 0.2 < np.mean([first[pair] == second[pair] for pair in pairs]) < 0.6


def test_hash_never_changes() -> None:
    # Another value would move pairs of every dataset that was ever split.
    keys = splits.pair_keys(pa.array(["u1"]), pa.array(["t1"]), np.array([5]), "hash", 0)
    assert (keys.primary_n.tolist(), keys.hash_n.tolist()) == ([0], [78701576852371297])


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        (116_000, (5_000, 1_000, 110_000)),
        (200_000, (5_000, 1_000, 110_000)),
        (12_000, (5_000, 1_000, 6_000)),
        # Half of 11,600 is 5,800, of which 5/6 are 4,833.3 and 1/6 is 966.7.
        (11_600, (4_833, 966, 5_801)),
        (100, (41, 8, 51)),
        (3, (1, 1, 1)),
        (2, (0, 0, 2)),
        (0, (0, 0, 0)),
    ],
)
def test_held_out_pairs_take_at_most_half(pairs: int, expected: tuple[int, int, int]) -> None:
    assert tuple(splits.allot(pairs, 110_000, 1_000, 5_000).values()) == expected


def test_enough_pairs_give_exactly_the_sizes() -> None:
    assert tuple(splits.allot(7_000, 1, 1_000, 5_000).values()) == (5_000, 1_000, 1)


def test_smallest_keys_come_first() -> None:
    keys = splits.Keys(np.array([1, 0, 0, -5]), np.array([0, 9, 2, 2**64 - 1], dtype=np.uint64))
    smallest = keys.smallest(3)
    assert smallest.primary_n.tolist() == [-5, 0, 0]
    assert smallest.hash_n.tolist() == [2**64 - 1, 2, 9]


def test_newest_titles_are_new_and_the_newest_of_them_are_test() -> None:
    first_x = np.array([30, splits.NEVER, 10, 90, 80, 50, 70, 60, 20, 40, 0])
    # Of ten titles with impressions 40 % are new: the oldest one of these is for validation, the others for test.
    group_x = splits.group_titles(first_x, 0.4)
    assert np.flatnonzero(group_x == splits.NEW_IN_VALIDATION).tolist() == [7]
    assert np.flatnonzero(group_x == splits.NEW_IN_TEST).tolist() == [3, 4, 6]


@pytest.mark.parametrize(("share", "new"), [(0.1, 1), (0.99, 10)])
def test_too_few_titles_to_hold_out_are_an_error(share: float, new: int) -> None:
    with pytest.raises(InputError, match=f"would hold out {new} of 10 titles with impressions"):
        splits.group_titles(np.arange(10), share)


@given(pairs=_PAIRS, sizes=_SIZES)
def test_pairs_of_new_titles_are_in_their_split_only(
    pairs: dict[tuple[str, str], int], sizes: tuple[int, int, int]
) -> None:
    users, titles = (pa.array([pair[i] for pair in pairs], pa.string()) for i in (0, 1))
    keys = splits.pair_keys(users, titles, np.zeros(len(pairs), np.int64), "title", 0)
    group_n = np.array([int(title) % 3 for _, title in pairs], dtype=np.int64)
    sizes_g = splits.allot_groups(np.bincount(group_n, minlength=3).tolist(), *sizes)
    last_g = [
        splits.last_keys(keys.where(group_n == group), of_group)
        for group, of_group in zip(splits.GROUPS, sizes_g, strict=True)
    ]
    split_n = splits.assign_groups(keys, group_n, last_g)
    for group, of_group in zip(splits.GROUPS, sizes_g, strict=True):
        counts = np.bincount(split_n[group_n == group], minlength=4)
        assert counts[:3].tolist() == [of_group[name] for name in splits.SPLITS]
    assert sizes_g[splits.NEW_IN_TEST]["test"] == min(sizes[2], (group_n == splits.NEW_IN_TEST).sum())
    assert sizes_g[splits.NEW_IN_VALIDATION]["validation"] == min(sizes[1], (group_n == splits.NEW_IN_VALIDATION).sum())
    assert set(split_n[group_n == splits.NEW_IN_TEST]) <= {0, 3}
    assert set(split_n[group_n == splits.NEW_IN_VALIDATION]) <= {1, 3}
