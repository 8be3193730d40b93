"""A slice's rows are valid and in their user's bucket, or invalid with a reason."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from artsel_ray.data import shuffle
from artsel_ray.data.checked_reader import RowRange, read_table
from artsel_ray.prepare.partition import bucket_of, partition_slice
from artsel_ray.prepare.plan import Log, Plan, Slice
from artsel_ray.schema import TABLES
from tests.prepare.events import CATALOG

NOW_US = 100


def _partition(folder: Path, table: Log, rows: list[dict[str, Any]]) -> tuple[dict[str, int], list[dict], list[dict]]:
    """Returns the counts, the valid rows of both buckets, and the invalid rows of one slice."""
    path, fields = folder / "a.parquet", [field.with_nullable(True) for field in TABLES[table]]
    pq.write_table(pa.Table.from_pylist(rows, pa.schema(fields)), path)
    slices = [Slice(table, RowRange(0, 0, len(rows)))]
    plan = Plan(str(folder / "out"), {table: [str(path)]}, slices, 2, 5, "hash", 0, NOW_US)
    counts = partition_slice(plan, CATALOG, 0)
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
