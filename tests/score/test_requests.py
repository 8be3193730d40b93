import datetime
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from artsel_ray import storage
from artsel_ray.config import DEFAULT_LIMITS
from artsel_ray.data import shuffle
from artsel_ray.data.checked_reader import read_table
from artsel_ray.schema import PREDICTIONS
from artsel_ray.score.assignment import assign_titles, assign_users, count_titles
from artsel_ray.score.requests import shuffle_previous, shuffle_requests


def test_earlier_predictions_meet_their_pairs_in_the_same_shard(world: Path) -> None:
    files = storage.list_files(str(world / "requests"))
    for assignment in (assign_titles(Counter(t1=12, t2=6, t3=6), 4, {}), assign_users(Counter(t1=12, t2=6, t3=6), 4)):
        folder = world / str(len(set(assignment.shard_of.values())))
        uris = shuffle_requests(files, range(0, 1), assignment, str(folder / "spill"), str(folder / "rejected")).uris
        pairs = [(f"u0{i}", title) for i in range(6) for title in ("t1", ("t2", "t3")[i % 2])]
        rows = [
            {"user_id": user, "title_id": title, "artwork_id": "a", "model_id": "m", "fingerprint": "f"}
            | {"scored_at": datetime.datetime.now(datetime.UTC)}
            for user, title in [*pairs, ("u00", "unasked")]
        ]
        table = pa.Table.from_pylist(rows, schema=PREDICTIONS)
        storage.write_table(str(folder / "P/part.parquet"), table, "predictions")
        previous, invalid = str(folder / "previous.arrow"), str(folder / "previous.parquet")
        assert shuffle_previous([str(folder / "P/part.parquet")], previous, assignment, invalid, DEFAULT_LIMITS) == 0
        found = 0
        for shard in range(assignment.shards):
            asked, known = (
                shuffle.read_partition(uris, shard),
                shuffle.read_partition([f"{folder}/previous.arrow"], shard),
            )
            both = [set(zip(t["user_id"].to_pylist(), t["title_id"].to_pylist(), strict=True)) for t in (asked, known)]
            assert both[0] == both[1]
            found += known.num_rows
        assert found == len(pairs)


def test_pairs_go_to_a_shard_of_their_title(world: Path) -> None:
    files = storage.list_files(str(world / "requests"))
    counts = sum((count_titles(file) for file in files), Counter())
    assert counts == {"t1": 12, "t2": 6, "t3": 6}
    assignment = assign_titles(counts, 6, {})
    spill, invalid = str(world / "spill"), str(world / "rejected")
    uris = [
        uri
        for index in range(2)
        for uri in shuffle_requests(files, range(index, index + 1), assignment, spill, invalid).uris
    ]
    pairs = []
    for shard in range(assignment.shards):
        rows = shuffle.read_partition(uris, shard)
        titles = set(rows["title_id"].to_pylist())
        assert all(0 <= shard - assignment.shard_of[title][0] < assignment.shard_of[title][1] for title in titles)
        pairs += list(zip(rows["user_id"].to_pylist(), rows["title_id"].to_pylist(), strict=True))
    assert sorted(pairs) == sorted(
        (f"u{part}{i}", title) for part in range(2) for i in range(6) for title in ("t1", ("t2", "t3")[i % 2])
    )
    assert not storage.find_files(invalid)


def test_small_files_are_shuffled_together(world: Path) -> None:
    files = storage.list_files(str(world / "requests"))
    assignment = assign_titles(Counter(t1=12, t2=6, t3=6), 100, {})
    moved = shuffle_requests(files, range(2), assignment, str(world / "spill"), str(world / "rejected"))
    assert [uri.rpartition("/")[2] for uri in moved.uris] == ["requests-00000-000000.arrow"]
    rows = shuffle.read_partition(moved.uris, 0)
    assert (moved.pairs, rows.num_rows) == (24, 24)
    assert {(row["file"], row["user_id"][:2]) for row in rows.to_pylist()} == {(0, "u0"), (1, "u1")}


def test_invalid_rows_are_rejected_with_their_row_number(
    tmp_path: Path, write_requests: Callable[..., None], history: Callable[[int], list[dict[str, Any]]]
) -> None:
    future = [{**history(1)[0], "timestamp": datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=3)}]
    rows = [
        ("u0", history(2), ["t1"]),
        (None, history(2), ["t1"]),
        ("u2", history(2), []),
        ("u3", history(2), None),
        ("u4", future, ["t1"]),
        ("u5", [], ["t1", None]),
        (" ", [], ["t1"]),
        ("u7", history(3)[::-1], ["t1"]),
        ("u8", [{**history(1)[0], "timestamp": None}, *history(2)], ["t1"]),
    ]
    file = str(tmp_path / "r.parquet")
    write_requests(file, rows)
    assignment = assign_titles(count_titles(file), 100, {})
    moved = shuffle_requests([file], range(0, 1), assignment, str(tmp_path / "spill"), str(tmp_path / "rejected"))
    assert (moved.pairs, moved.rejected_rows) == (4, 6)
    kept = shuffle.read_partition(moved.uris, 0)
    assert kept["row"].to_pylist() == [0, 5, 5, 8]
    bad = read_table(str(tmp_path / "rejected"), "invalid_rows").select(["row", "column", "reason", "user_id"])
    assert sorted(map(tuple, (row.values() for row in bad.to_pylist())), key=lambda row: row[0]) == [
        (1, "user_id", "missing", None),
        (2, "title_ids", "no title is asked for", "u2"),
        (3, "title_ids", "no title is asked for", "u3"),
        (4, "history", "an interaction later than now", "u4"),
        (6, "user_id", "missing", " "),
        (7, "history", "not in order of time, newest last", "u7"),
    ]
