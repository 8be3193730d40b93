"""Files are cut into slices that cover every row once."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from artsel_ray.prepare import stages
from artsel_ray.schema import INTERACTIONS


def _write(path: Path, rows: int, group: int) -> str:
    row = {"user_id": "u", "title_id": "t", "timestamp": 0, "watch_seconds": None}
    pq.write_table(pa.Table.from_pylist([row] * rows, INTERACTIONS), path, row_group_size=group)
    return str(path)


def test_slices_cover_every_row_group_once_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "SLICE_ROWS", 10)
    files = [_write(tmp_path / "a.parquet", 23, 4), _write(tmp_path / "b.parquet", 3, 3)]
    # Row groups of 4, 4, 4, 4, 4, 3 rows: a slice ends with the group that brings it to 10 rows or more.
    assert stages.slices("interactions", files) == [
        stages.Slice("interactions", 0, (0, 1, 2), 0, 12),
        stages.Slice("interactions", 0, (3, 4, 5), 12, 11),
        stages.Slice("interactions", 1, (0,), 0, 3),
    ]


def test_a_file_without_rows_has_no_rows_in_its_slices(tmp_path: Path) -> None:
    files = [_write(tmp_path / "a.parquet", 0, 5)]
    assert sum(part.rows for part in stages.slices("interactions", files)) == 0
