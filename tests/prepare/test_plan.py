"""Files are cut into slices that hold every row once."""

import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from artsel_ray.data.checked_reader import RowRange
from artsel_ray.errors import InputError
from artsel_ray.prepare import plan as module
from artsel_ray.prepare.plan import Slice, make_plan
from artsel_ray.prepare.settings import PrepareConfig
from artsel_ray.schema import TABLES


def _write(folder: Path, table: str, name: str, rows: int, group_rows: int = 100) -> None:
    (folder / table).mkdir(exist_ok=True)
    fields = pa.schema([field.with_nullable(True) for field in TABLES[table]])
    empty = dict.fromkeys(fields.names)
    pq.write_table(pa.Table.from_pylist([empty] * rows, fields), folder / table / name, row_group_size=group_rows)


def _config(folder: Path, buckets: int | None = None) -> PrepareConfig:
    return PrepareConfig(input=str(folder), output=str(folder / "out"), buckets=buckets)


def _world(folder: Path) -> None:
    for table in ("titles", "artworks", "impressions"):
        _write(folder, table, "a.parquet", 1)
    _write(folder, "interactions", "a.parquet", 23, 4)
    _write(folder, "interactions", "b.parquet", 3, 3)


def test_logs_are_cut_between_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _world(tmp_path)
    monkeypatch.setattr(module, "SLICE_ROWS", 10)
    plan = make_plan(_config(tmp_path))
    # Row groups of 4, 4, 4, 4, 4, 3 rows: a slice ends with the group that brings it to 10 rows or more.
    assert plan.slices == [
        Slice("interactions", RowRange(0, 0, 12)),
        Slice("interactions", RowRange(0, 12, 11)),
        Slice("interactions", RowRange(1, 0, 3)),
        Slice("impressions", RowRange(0, 0, 1)),
    ]
    assert (plan.rows("interactions"), plan.rows("impressions")) == (26, 1)
    assert plan.files["interactions"] == [str(tmp_path / "interactions" / name) for name in ("a.parquet", "b.parquet")]


def test_spill_files_are_named_by_the_slice(tmp_path: Path) -> None:
    _world(tmp_path)
    plan = make_plan(_config(tmp_path))
    work = tmp_path / "out" / "_work"
    assert plan.spill_files("interactions") == [f"{work}/slice-000000.arrow", f"{work}/slice-000001.arrow"]
    assert plan.spill_files("impressions") == [f"{work}/slice-000002.arrow"]
    assert plan.spill_file("pairs", 7) == f"{work}/pairs-000007.arrow"


def test_number_of_buckets_follows_the_interactions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _world(tmp_path)
    assert make_plan(_config(tmp_path)).buckets == 1
    assert make_plan(_config(tmp_path, buckets=5)).buckets == 5
    monkeypatch.setattr(module, "BUCKET_INTERACTIONS", 10)
    assert make_plan(_config(tmp_path)).buckets == 3


def test_clocks_may_differ_by_a_day(tmp_path: Path) -> None:
    _world(tmp_path)
    assert make_plan(_config(tmp_path)).now_us == pytest.approx((time.time() + 86_400) * 1e6, abs=60e6)


@pytest.mark.parametrize("table", ["interactions", "impressions"])
def test_log_without_rows_is_refused(tmp_path: Path, table: str) -> None:
    _world(tmp_path)
    for file in (tmp_path / table).iterdir():
        _write(tmp_path, table, file.name, 0)
    with pytest.raises(InputError, match=f"{table} has no rows; there is nothing to prepare"):
        make_plan(_config(tmp_path))
