"""Every row comes out of a shuffle once, in order, in its partition."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artsel_ray.data.shuffle import read_partition, write_partitions
from artsel_ray.errors import InputError


def _table(values: list[int]) -> pa.Table:
    return pa.table({"value": values, "nested": [[{"name": f"текст {v} 🎬"}] * (v % 3) for v in values]})


def test_rows_keep_their_order_within_a_partition(tmp_path: Path) -> None:
    first, second = str(tmp_path / "a.arrow"), str(tmp_path / "b.arrow")
    write_partitions(first, _table([10, 11, 12, 13]), np.array([1, 0, 1, 3]), 4)
    write_partitions(second, _table([20, 21]), np.array([1, 1]), 4)
    assert read_partition([first, second], 1)["value"].to_pylist() == [10, 12, 20, 21]
    assert read_partition([second, first], 1)["value"].to_pylist() == [20, 21, 10, 12]
    assert read_partition([first, second], 0).equals(_table([11]))
    assert not (tmp_path / "a.arrow").stat().st_mode & 0o077  # for nobody else


def test_empty_partition_has_the_columns_and_no_rows(tmp_path: Path) -> None:
    uri = str(tmp_path / "a.arrow")
    write_partitions(uri, _table([1]), np.array([1]), 3)
    empty = read_partition([uri], 2)
    assert empty.num_rows == 0
    assert empty.schema == _table([1]).schema


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(0, 6), max_size=40), min_size=1, max_size=4))
def test_every_row_comes_out_once(tmp_path_factory: pytest.TempPathFactory, slices: list[list[int]]) -> None:
    folder = tmp_path_factory.mktemp("work")
    uris, number, expected = [], 0, {p: [] for p in range(7)}  # type: ignore[var-annotated]
    for index, partitions in enumerate(slices):
        table = pa.table({"value": pa.array(range(number, number + len(partitions)), pa.int64())})
        for partition in partitions:
            expected[partition].append(number)
            number += 1
        uris.append(str(folder / f"{index}.arrow"))
        write_partitions(uris[-1], table, np.array(partitions, dtype=np.int64), 7)
    assert {p: read_partition(uris, p)["value"].to_pylist() for p in range(7)} == expected


def test_chunked_table_of_nested_rows_is_kept(tmp_path: Path) -> None:
    uri = str(tmp_path / "a.arrow")
    table = pa.concat_tables([_table([1, 2, 3]).slice(1), _table([4, 5])])
    write_partitions(uri, table, np.array([0, 1, 0, 1]), 2)
    assert read_partition([uri], 0).to_pylist() == _table([2, 4]).to_pylist()
    assert read_partition([uri], 1).to_pylist() == _table([3, 5]).to_pylist()


def test_partition_out_of_range_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"in \[0, 2\)"):
        write_partitions(str(tmp_path / "a"), _table([1]), np.array([2]), 2)
    with pytest.raises(ValueError, match="1 partitions for 2 rows"):
        write_partitions(str(tmp_path / "a"), _table([1, 2]), np.array([0]), 2)


def test_broken_or_absent_spill_file_is_named(tmp_path: Path) -> None:
    uri = str(tmp_path / "a.arrow")
    with pytest.raises(InputError, match=r"cannot read the spill file .*a\.arrow"):
        read_partition([uri], 0)
    Path(uri).write_bytes(b"not arrow")
    with pytest.raises(InputError, match=r"the spill file .*a\.arrow is broken: .*run the command again"):
        read_partition([uri], 0)
