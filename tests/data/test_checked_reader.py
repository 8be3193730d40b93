from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from artsel_ray.data.row_ranges import Shard, plan_shards, read_shard, write_shard
from tests.inference.test_distill import config, table

from artsel_ray import storage
from artsel_ray.distill.settings import DistillConfig
from artsel_ray.errors import InputError

__all__ = ["config"]  # a fixture


def test_shards_are_runs_of_rows_of_one_file(config: DistillConfig) -> None:
    files = storage.list_files(config.examples)
    assert plan_shards(files, "examples", 5) == [
        Shard(0, 0, 5), Shard(0, 5, 2), Shard(1, 0, 5), Shard(1, 5, 5), Shard(1, 10, 5), Shard(1, 15, 2),
    ]  # fmt: skip
    assert plan_shards(files, "examples", 100) == [Shard(0, 0, 7), Shard(1, 0, 17)]
    with pytest.raises(InputError, match="--shard-examples 0"):
        plan_shards(files, "examples", 0)


@pytest.mark.parametrize("group_rows", [1, 3, 4, 100])
def test_a_shard_is_read_out_of_any_row_groups(tmp_path: Path, group_rows: int) -> None:
    uri = str(tmp_path / "a.parquet")
    pq.write_table(table(range(11)).drop_columns(["reason", "propensity"]), uri, row_group_size=group_rows)
    ids, rows = [], []
    for shard in plan_shards([uri], "examples", 4):
        read = read_shard([uri], "examples", shard)
        ids += read["example_id"].to_pylist()
        rows += read["row"].to_pylist()
    assert ids == [f"e{number}" for number in range(11)]
    assert rows == list(range(11))


def test_files_that_are_no_examples_and_no_examples_at_all_are_one_line(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="is not a table of examples"):
        plan_shards([str(tmp_path / "a.parquet")], "examples", 4)
    storage.write_table(str(tmp_path / "b.parquet"), table(range(0)), "examples")
    with pytest.raises(InputError, match="hold no example"):
        plan_shards([str(tmp_path / "b.parquet")], "examples", 4)
    (tmp_path / "c.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(InputError, match=r"c\.parquet as Parquet"):
        plan_shards([str(tmp_path / "c.parquet")], "examples", 4)


def test_a_shard_that_is_written_again_leaves_no_rejected_rows_of_before(tmp_path: Path) -> None:
    invalid = {"table": ["examples"], "file": ["a"], "row": [1], "column": ["label"], "reason": ["missing"]}
    invalid |= {name: [None] for name in ("user_id", "title_id", "artwork_id")}
    bad = pa.table(invalid)
    output = str(tmp_path)
    write_shard(output, 3, "examples", table(range(2)), bad, {"rejected": 1})
    assert storage.list_files(f"{output}/rejected") == [f"{output}/rejected/part-000003.parquet"]
    write_shard(output, 3, "examples", table(range(3)), bad.slice(1), {"rejected": 0})
    assert storage.find_files(f"{output}/rejected") == []
    assert storage.read_table(output, "examples").num_rows == 3
