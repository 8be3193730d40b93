from pathlib import Path

import pyarrow as pa

from artsel_ray import storage
from artsel_ray.data.checked_reader import read_table
from artsel_ray.runtime.shards import (
    INVALID_FOLDER,
    MEMORY,
    REJECTED_ROWS,
    Shard,
    done_shards,
    part_name,
    read_statistics,
    sum_statistics,
    write_shard,
)
from artsel_ray.schema import INVALID_ROWS, ORACLE, PREDICTIONS

NOTHING = INVALID_ROWS.empty_table()
ROW = {"table": "requests", "file": "a.parquet", "row": 3, "column": "user_id", "reason": "missing"}
INVALID = pa.Table.from_pylist([ROW], schema=INVALID_ROWS)


def write(output: Path, index: int, invalid: pa.Table = NOTHING, **statistics: float) -> None:
    write_shard(str(output), "predictions", Shard(index, PREDICTIONS.empty_table(), invalid, statistics))


def test_done_shards_are_those_whose_rows_are_there(tmp_path: Path) -> None:
    assert done_shards(str(tmp_path)) == set()
    write(tmp_path, 4, pairs=3, score_seconds=0.5)
    storage.write_table(str(tmp_path / INVALID_FOLDER / part_name(5)), NOTHING, "invalid_rows")
    storage.write_table(str(tmp_path / "part-7.parquet"), ORACLE.empty_table(), "oracle")  # no part's name
    assert done_shards(str(tmp_path)) == {4}
    assert read_statistics(str(tmp_path), 4) == {"pairs": 3, "score_seconds": 0.5}


def test_done_shards_are_found_below_a_uri_with_a_query(bucket: str) -> None:
    output = storage.join(bucket, "shards")
    write_shard(output, "predictions", Shard(12, PREDICTIONS.empty_table(), INVALID, {"pairs": 1}))
    assert done_shards(output) == {12}
    assert read_statistics(output, 12) == {"pairs": 1}


def test_invalid_rows_are_written_next_to_the_rows_and_replaced_on_retry(tmp_path: Path) -> None:
    write(tmp_path, 0, INVALID)
    folder = tmp_path / INVALID_FOLDER
    assert read_table(str(folder), "invalid_rows").select(list(ROW)).to_pylist() == [ROW]
    write(tmp_path, 0)  # the data were fixed since
    assert not storage.find_files(str(folder))
    assert done_shards(str(tmp_path)) == {0}


def test_statistics_are_summed_and_memory_is_the_maximum(tmp_path: Path) -> None:
    write(tmp_path, 0, pairs=3, rejected=1, **{MEMORY: 1.5})
    write(tmp_path, 1, pairs=4, rejected=0, **{MEMORY: 1.0})
    assert sum_statistics(str(tmp_path), 2) == {"pairs": 7, "rejected": 1, MEMORY: 1.5}


def test_rejected_rows_are_summed_only_if_all_shards_count_them(tmp_path: Path) -> None:
    write(tmp_path, 0, pairs=3, rejected=4, **{REJECTED_ROWS: 0.5})
    write(tmp_path, 1, pairs=4, rejected=2, **{REJECTED_ROWS: 1.5})
    write(tmp_path, 2, pairs=4, rejected=2)
    assert sum_statistics(str(tmp_path), 2)[REJECTED_ROWS] == 2
    assert REJECTED_ROWS not in sum_statistics(str(tmp_path), 3)
