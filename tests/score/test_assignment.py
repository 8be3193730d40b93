from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from artsel_ray.data import shuffle
from artsel_ray.data.catalog import Catalog
from artsel_ray.prompts.spec import PromptSpec
from artsel_ray.score.assignment import Assignment, assign, assign_titles, assign_users, count_titles
from artsel_ray.score.requests import shuffle_requests

COUNTS = st.dictionaries(st.text("abc", min_size=1, max_size=3), st.integers(1, 50), max_size=12).map(Counter)


@given(COUNTS, st.integers(1, 40))
def test_titles_stay_whole_and_shards_are_full(counts: Counter[str], shard_pairs: int) -> None:
    assignment = assign_titles(counts, shard_pairs, {})
    held: Counter[int] = Counter()
    for title, (first, parts) in assignment.shard_of.items():
        assert 0 <= first <= first + parts <= assignment.shards
        assert (parts > 1) == (counts[title] > shard_pairs)
        for part in range(parts):
            held[first + part] += counts[title] // parts
    assert sorted(held) == list(range(assignment.shards))
    assert all(pairs <= shard_pairs for pairs in held.values())
    whole = [first for first, parts in assignment.shard_of.values() if parts == 1]
    # No two consecutive shards could have been one, except around a title with several shards.
    for shard in set(whole) & {first - 1 for first in whole}:
        following = [title for title, (first, _) in sorted(assignment.shard_of.items()) if first == shard + 1]
        assert held[shard] + counts[following[0]] > shard_pairs


@given(COUNTS, st.integers(1, 40))
def test_users_stay_whole_in_as_many_shards_as_their_pairs_need(counts: Counter[str], shard_pairs: int) -> None:
    assignment = assign_users(counts, shard_pairs)
    assert assignment.shards * shard_pairs >= sum(counts.values()) > (assignment.shards - 1) * shard_pairs
    assert set(assignment.shard_of.values()) <= {(0, assignment.shards)}
    assert assignment.shard_of.keys() == counts.keys()


def test_titles_with_few_users_fill_a_shard_with_fewer_pairs() -> None:
    # One title that all users request next to many that one user requests; options cost as much as 5 pairs.
    counts = Counter({f"t{i:05d}": 1 for i in range(10_000)}) + Counter({"popular": 10_000})
    assignment = assign_titles(counts, 100, dict.fromkeys(counts, 5.0))
    work = np.zeros(assignment.shards)
    for title, (first, parts) in assignment.shard_of.items():
        work[first : first + parts] += counts[title] / parts + 5
    assert work.max() <= 1.1 * np.median(work)


def test_users_of_a_large_title_are_spread_over_its_shards(tmp_path: Path, write_requests: Callable[..., None]) -> None:
    file = str(tmp_path / "r.parquet")
    write_requests(file, [(f"u{i}", [], ["t"]) for i in range(2000)])
    assignment = assign_titles(count_titles(file), 500, {})
    (uri,) = shuffle_requests([file], range(0, 1), assignment, str(tmp_path / "work"), str(tmp_path / "rejected")).uris
    sizes = [shuffle.read_partition([uri], shard).num_rows for shard in range(assignment.shards)]
    assert sum(sizes) == 2000
    np.testing.assert_allclose(sizes, 500, rtol=0.15)


def test_shards_do_not_depend_on_which_images_are_valid() -> None:
    counts = Counter({f"t{number}": 3 + number for number in range(20)})
    names = pa.array(sorted(counts))

    def assigned(candidates: int) -> Assignment:
        offsets = np.arange(21) * candidates
        ids = pa.array([f"a{number}" for number in range(20 * candidates)])
        catalog = Catalog(names, names, pa.array([[]] * 20), ids, offsets, ids, ids[:0])
        return assign(counts, 10, catalog, PromptSpec(assets="image", output="number"))

    assert assigned(30) == assigned(3)
    assert assigned(3).shards > 5
