"""A slice's rows are valid and in their user's bucket, or invalid with a reason; pairs equal those of a plain loop."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from artsel_ray.data import shuffle
from artsel_ray.data.checked_reader import RowRange, read_table
from artsel_ray.prepare import splits
from artsel_ray.prepare.pairs import bucket_of, find_pairs, partition_slice
from artsel_ray.prepare.plan import Log, Plan, Slice
from artsel_ray.schema import TABLES
from tests.prepare.events import CATALOG, FILES, impressions_table, interactions_table

NOW_US = 100
# user, title, time, watch; few values, so that ties and repeated rows are frequent.
_INTERACTION = st.tuples(st.sampled_from("xy"), st.integers(0, 1), st.integers(0, 6), st.sampled_from([None, 1.0, 2.0]))
# user, title, label, time, engaged, propensity
_IMPRESSION = st.tuples(
    st.sampled_from("xyz"),
    st.integers(0, 1),
    st.integers(0, 1),
    st.integers(0, 6),
    st.booleans(),
    st.sampled_from([None, 0.5]),
)


def _by_hand(interactions: list[tuple], impressions: list[tuple], length: int) -> tuple[dict, int, int, int]:
    """Returns history by pair with label, and the numbers of repeated, empty and duplicate impressions."""
    events = list(dict.fromkeys(interactions))
    shown = list(dict.fromkeys(impressions))
    found: dict[tuple, tuple] = {}
    seen, repeated, empty = set(), 0, 0
    for user, title, label, time, engaged, _ in sorted(shown, key=lambda row: row[3]):
        if not engaged:
            continue
        if (user, title) in seen:
            repeated += 1
            continue
        seen.add((user, title))
        before = sorted((e for e in events if e[0] == user and e[2] < time), key=lambda e: e[2])[-length:]
        if before:
            found[user, title] = (label, time, [(e[2], e[1], e[3]) for e in before])
        else:
            empty += 1
    return found, repeated, empty, len(impressions) - len(shown)


@settings(max_examples=300, deadline=None)
@given(st.lists(_INTERACTION, max_size=25), st.lists(_IMPRESSION, max_size=15), st.integers(1, 4))
def test_pairs_equal_a_plain_loop(interactions: list[tuple], impressions: list[tuple], length: int) -> None:
    found = find_pairs(interactions_table(interactions), impressions_table(impressions), FILES, CATALOG, length)
    expected, repeated, empty, duplicates = _by_hand(interactions, impressions, length)
    events = [
        (row["timestamp"].microsecond, row["title"], row["watch_seconds"]) for row in found.interactions.to_pylist()
    ]
    pairs = {
        (row["user_id"], row["title"]): (row["label"], row["timestamp"].microsecond, events[row["start"] : row["end"]])
        for row in found.pairs.to_pylist()
    }
    assert pairs == expected
    assert found.repeated == repeated
    reasons = [(row["table"], row["column"]) for row in found.invalid.to_pylist()]
    assert reasons.count(("impressions", "timestamp")) == empty
    assert reasons.count(("impressions", "row")) == duplicates
    assert reasons.count(("interactions", "row")) == len(interactions) - len(set(interactions))
    accounted = len(pairs) + repeated + found.not_engaged + empty + duplicates
    assert accounted == len(impressions)


def test_interaction_at_the_time_of_the_impression_is_not_history() -> None:
    impressions = impressions_table([("x", 0, 1, 3, True, 0.5)])
    found = find_pairs(interactions_table([("x", 1, 3, 1.0)]), impressions, FILES, CATALOG, 5)
    assert found.pairs.num_rows == 0
    (row,) = found.invalid.to_pylist()
    assert (row["file"], row["row"], row["column"]) == ("e.parquet", 0, "timestamp")
    assert (row["user_id"], row["title_id"], row["artwork_id"]) == ("x", "t0", "a1")


def _partition(folder: Path, table: Log, rows: list[dict[str, Any]]) -> tuple[dict[str, int], list[dict], list[dict]]:
    """Returns the counts, the valid rows of both buckets, and the invalid rows of one slice."""
    path, fields = folder / "a.parquet", [field.with_nullable(True) for field in TABLES[table]]
    pq.write_table(pa.Table.from_pylist(rows, pa.schema(fields)), path)
    slices = [Slice(table, (RowRange(0, 0, len(rows)),))]
    plan = Plan(str(folder / "out"), {table: [str(path)]}, slices, 2, 5, "hash", 0, NOW_US)
    counts, _ = partition_slice(plan, CATALOG, 0)
    valid = pa.concat_tables([shuffle.read_partition(plan.spill_files(table), bucket) for bucket in (0, 1)])
    rejected = folder / "out/rejected"
    invalid = read_table(str(rejected), "invalid_rows").to_pylist() if rejected.exists() else []
    return counts, valid.to_pylist(), invalid


def test_titles_become_indices_and_times_after_now_are_invalid(tmp_path: Path) -> None:
    row = {"user_id": "u", "title_id": "t1", "timestamp": NOW_US, "watch_seconds": None}
    changes: list[dict[str, Any]] = [{}, {"timestamp": NOW_US + 1}, {"title_id": "?"}, {"watch_seconds": -1.0}]
    counts, valid, invalid = _partition(tmp_path, "interactions", [row | change for change in changes])
    assert [(each["user_id"], each["title"], each["file"], each["row"]) for each in valid] == [("u", 1, 0, 0)]
    assert "title_id" not in valid[0]
    assert [(each["row"], each["column"]) for each in sorted(invalid, key=lambda each: each["row"])] == [
        (1, "timestamp"), (2, "title_id"), (3, "watch_seconds"),
    ]  # fmt: skip
    assert counts == {
        "other_kind": 0,
        "rejected/interactions/timestamp: later than now": 1,
        "rejected/interactions/title_id: unknown title": 1,
        "rejected/interactions/watch_seconds: negative or not a number": 1,
    }


def test_artworks_become_positions_among_the_titles_candidates(tmp_path: Path) -> None:
    row = {"user_id": "u", "title_id": "t1", "timestamp": 0, "engaged": True, "propensity": 0.5}
    rows = [row | {"artwork_id": artwork} for artwork in ("b0", "b2", "a0")] + [
        row | {"title_id": "t0", "artwork_id": "a1"}
    ]
    _, valid, invalid = _partition(tmp_path, "impressions", rows)
    assert sorted((each["title"], each["label"]) for each in valid) == [(0, 1), (1, 0), (1, 2)]
    assert [(each["row"], each["reason"]) for each in invalid] == [(2, "not among the title's candidates")]


def test_impressions_of_other_kinds_of_assets_are_counted_and_left_out(tmp_path: Path) -> None:
    row = {"user_id": "u", "title_id": "t1", "timestamp": 0, "engaged": True, "propensity": None}
    rows = [row | {"artwork_id": artwork} for artwork in ("trailer", "b0", "trailer")]
    counts, valid, invalid = _partition(tmp_path, "impressions", rows)
    assert ([each["row"] for each in valid], invalid, counts["other_kind"]) == ([1], [], 2)


def test_bucket_depends_on_the_user_only() -> None:
    users = [f"user {n}" for n in range(500)]
    buckets = bucket_of(pa.chunked_array([pa.array(users)]), 7)
    assert buckets.dtype == np.int64
    assert set(buckets.tolist()) == set(range(7))
    again = bucket_of(pa.chunked_array([pa.array(users[250:] + users[:1]), pa.array(["other"])]), 7)
    assert again[:251].tolist() == [*buckets[250:].tolist(), buckets[0]]


def test_split_by_title_finds_first_impressions(tmp_path: Path) -> None:
    rows = [
        {"user_id": "u", "title_id": title, "artwork_id": artwork, "timestamp": time, "engaged": False}
        for title, artwork, time in (("t0", "a0", 9), ("t0", "a1", 5), ("t0", "?", 1))
    ]
    path, fields = tmp_path / "a.parquet", [field.with_nullable(True) for field in TABLES["impressions"]]
    pq.write_table(pa.Table.from_pylist(rows, pa.schema(fields)), path)
    slices = [Slice("impressions", (RowRange(0, 0, len(rows)),))]
    plan = Plan(str(tmp_path / "out"), {"impressions": [str(path)]}, slices, 2, 5, "title", 0, NOW_US)
    _, first_x = partition_slice(plan, CATALOG, 0)
    # The impression at 1 is invalid, and no other title is shown.
    assert first_x is not None
    assert first_x.tolist() == [5, *[splits.NEVER] * (len(CATALOG.title_ids) - 1)]
    assert partition_slice(dataclasses.replace(plan, split="hash"), CATALOG, 0)[1] is None
