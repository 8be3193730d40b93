from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from artsel_ray.data.checked_reader import CheckedReader, read_table
from artsel_ray.errors import InputError


def test_batches_carry_their_row_numbers(tmp_path: Path) -> None:
    ids = [f"t{number}" for number in range(10)]
    rows = pa.table({"title_id": ids, "name": ids, "genres": [["g"]] * 10})
    pq.write_table(rows, tmp_path / "t.parquet", row_group_size=4)
    batches = list(CheckedReader([str(tmp_path / "t.parquet")], "titles", ["title_id"]).batches(batch_rows=3))
    assert [row for batch in batches for row in batch.valid["row"].to_pylist()] == list(range(10))
    assert [value for batch in batches for value in batch.valid["title_id"].to_pylist()] == ids


def test_broken_text_is_an_error_with_its_row_where_every_row_must_be_valid(tmp_path: Path) -> None:
    ids = [f"t{number}" for number in range(5)]
    rows = pa.table({"title_id": ids, "name": [*ids[:4], "@@@@"], "genres": [["g"]] * 5})
    pq.write_table(rows, tmp_path / "t.parquet", compression="none", row_group_size=2)
    broken = (tmp_path / "t.parquet").read_bytes().replace(b"@@@@", b"a\xffbc")
    (tmp_path / "t.parquet").write_bytes(broken)
    with pytest.raises(InputError) as caught:
        read_table(str(tmp_path), "titles")
    assert str(caught.value) == (
        f"{tmp_path}/t.parquet: row 4 (from 0), column 'name': not valid UTF-8; fix the row or leave it out"
    )
    assert len(read_table(str(tmp_path), "titles", ["title_id"])) == 5
    batches = list(CheckedReader([str(tmp_path / "t.parquet")], "titles").batches(batch_rows=2))
    assert [batch.read.num_rows for batch in batches] == [2, 2, 1]
    assert [batch.invalid.num_rows for batch in batches] == [0, 0, 1]
