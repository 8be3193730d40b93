"""Every row of every file is read once, typed, and either valid or invalid with its reason and source."""

import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artsel_ray import schema, storage
from artsel_ray.data import checked_reader, checks
from artsel_ray.data.checked_reader import (
    CheckedReader,
    RowRange,
    group_files,
    group_ranges,
    read_table,
    row_ranges,
    with_source_rows,
)
from artsel_ray.data.footers import read_footers
from artsel_ray.errors import InputError

CANDIDATES = [{"artwork_id": "a", "caption": "A tower."}, {"artwork_id": "b", "caption": "The sea."}]
# Replaced in the file by as many bytes that are not UTF-8.
BROKEN, BYTES = b"@@broken@@", b"\xff\xc3(oken\xed\xa0\x80"


def write(path: Path, numbers: range, group_rows: int = 100) -> str:
    """Writes interactions of the users u0, u1, …."""
    rows = {
        "user_id": pa.array([f"u{n}" for n in numbers], pa.string()),
        "title_id": pa.array(["t"] * len(numbers), pa.string()),
        "timestamp": pa.array(list(numbers), schema.TIMESTAMP),
    }
    pq.write_table(pa.table(rows), path, row_group_size=group_rows)
    return str(path)


def write_broken(path: Path, user_ids: list[str]) -> str:
    """Writes interactions in one file, in which BROKEN becomes text that is not UTF-8."""
    sink = pa.BufferOutputStream()
    rows = {"user_id": user_ids, "title_id": ["t"] * len(user_ids)}
    times = pa.array([0] * len(user_ids), schema.TIMESTAMP)
    pq.write_table(pa.table({**rows, "timestamp": times}), sink, compression="none", row_group_size=2)
    path.write_bytes(sink.getvalue().to_pybytes().replace(BROKEN, BYTES))
    return str(path)


def without_u1(rows: pa.Table) -> list[checks.RowCheck]:
    return [("user_id", "is u1", checks.mask(pa.compute.equal(rows["user_id"], "u1")))]


def sources(table: pa.Table) -> list[tuple[int, int]]:
    return list(zip(table["file"].to_pylist(), table["row"].to_pylist(), strict=True))


def test_batches_hold_valid_and_invalid_rows_with_their_sources(tmp_path: Path) -> None:
    files = [write(tmp_path / "a.parquet", range(3)), write(tmp_path / "b.parquet", range(2))]
    batches = list(CheckedReader(files, "interactions", row_checks=without_u1).batches())
    assert [batch.read.num_rows for batch in batches] == [3, 2]
    assert batches[0].read.column_names == schema.INTERACTIONS.names
    assert [sources(batch.valid) for batch in batches] == [[(0, 0), (0, 2)], [(1, 0)]]
    invalid = [row for batch in batches for row in batch.invalid.to_pylist()]
    assert [(row["table"], row["file"], row["row"], row["column"], row["reason"]) for row in invalid] == [
        ("interactions", files[0], 1, "user_id", "is u1"),
        ("interactions", files[1], 1, "user_id", "is u1"),
    ]


@pytest.mark.parametrize("batch_rows", [1, 2, 100])
def test_rows_are_numbered_across_batches(tmp_path: Path, batch_rows: int) -> None:
    reader = CheckedReader([write(tmp_path / "a.parquet", range(5), 3)], "interactions")
    assert [row for batch in reader.batches(batch_rows) for row in sources(batch.valid)] == [(0, n) for n in range(5)]
    assert [row for batch in reader.file_batches(0, batch_rows) for row in sources(batch.valid)] == [
        (0, n) for n in range(5)
    ]


def test_all_rows_are_one_batch_even_without_files_or_rows(tmp_path: Path) -> None:
    files = [write(tmp_path / "a.parquet", range(2)), write(tmp_path / "b.parquet", range(0))]
    assert CheckedReader(files, "interactions").all().valid["user_id"].to_pylist() == ["u0", "u1"]
    for empty in ([], files[1:]):
        batch = CheckedReader(empty, "interactions", ["user_id"], row_checks=without_u1).all()
        assert (batch.read.num_rows, batch.valid.num_rows, batch.invalid.num_rows) == (0, 0, 0)
        assert batch.read.schema.names == ["user_id"]
        assert batch.valid.column_names == ["user_id", "file", "row"]
        assert batch.invalid.schema == schema.INVALID_ROWS


def test_only_the_wanted_columns_are_needed_and_read(tmp_path: Path) -> None:
    pq.write_table(pa.table({"user_id": ["u"], "timestamp": ["not a time"]}), tmp_path / "a.parquet")
    reader = CheckedReader([str(tmp_path / "a.parquet")], "interactions", ["user_id", "watch_seconds"])
    assert reader.all().read.to_pylist() == [{"user_id": "u", "watch_seconds": None}]
    with pytest.raises(InputError, match=r"'title_id' \(string\) is missing"):
        CheckedReader(reader.files, "interactions", ["user_id", "title_id"]).all()


def test_nested_field_may_be_a_list(tmp_path: Path) -> None:
    item = {"timestamp": None, "title_name": "x", "genres": ["Drama", "War"], "watch_seconds": 1.0}
    pq.write_table(pa.table({"history": pa.array([[item]], schema.HISTORY)}), tmp_path / "a.parquet")
    assert read_table(str(tmp_path), "requests", ["history.genres"]).to_pylist() == [
        {"history": [{"genres": ["Drama", "War"]}]}
    ]


@pytest.mark.parametrize("field", ["artwork_id", "caption"])
def test_one_field_of_a_nested_column_is_read(tmp_path: Path, field: str) -> None:
    rows = pa.table({"candidates": pa.array([CANDIDATES, []], schema.CANDIDATES)})
    pq.write_table(rows, tmp_path / "a.parquet")
    reader = CheckedReader([str(tmp_path / "a.parquet")], "examples", [f"candidates.{field}"])
    for batch in (reader.all(), reader.rows(RowRange(0, 0, 2))):
        assert batch.read.to_pylist() == [
            {"candidates": [{field: each[field]} for each in CANDIDATES]},
            {"candidates": []},
        ]
    assert read_table(str(tmp_path), "examples", [f"candidates.{field}"]).column_names == ["candidates"]


def test_column_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    pq.write_table(pa.table({"example_id": ["e"], "reason": ["Because."]}), tmp_path / "a.parquet")
    expected = [{"rationale": "Because.", "example_id": "e"}]
    reader = CheckedReader([str(tmp_path / "a.parquet")], "examples", ["rationale", "example_id"])
    assert reader.all().read.to_pylist() == reader.rows(RowRange(0, 0, 1)).read.to_pylist() == expected
    assert read_table(str(tmp_path), "examples", ["rationale", "example_id"]).to_pylist() == expected


def test_text_that_is_not_utf8_is_invalid_before_any_row_check(tmp_path: Path) -> None:
    file = write_broken(tmp_path / "a.parquet", ["u0", BROKEN.decode(), "u1", "u2"])
    seen: list[list[str]] = []

    def row_checks(rows: pa.Table) -> list[checks.RowCheck]:
        seen.append(rows["user_id"].to_pylist())  # would fail on other bytes
        return without_u1(rows)

    batch = next(CheckedReader([file], "interactions", row_checks=row_checks).batches())
    assert seen == [["u0", "u1", "u2"]]
    assert sources(batch.valid) == [(0, 0), (0, 3)]
    assert [(row["row"], row["reason"], row["user_id"]) for row in batch.invalid.to_pylist()] == [
        (1, "not valid UTF-8", None),
        (2, "is u1", "u1"),
    ]


def test_first_invalid_row_is_an_error_where_every_row_must_be_valid(tmp_path: Path) -> None:
    files = [
        write(tmp_path / "a.parquet", range(1)),
        write_broken(tmp_path / "b.parquet", ["u1", "x", BROKEN.decode()]),
    ]
    reader = CheckedReader(files, "interactions", row_checks=without_u1)
    batches = reader.valid_batches()
    assert next(batches)["user_id"].to_pylist() == ["u0"]
    # Row 2 fails an earlier check than row 0; the first row is reported.
    with pytest.raises(InputError) as caught:
        next(batches)
    assert str(caught.value) == f"{files[1]}: row 0 (from 0), column 'user_id': is u1; fix the row or leave it out"
    with pytest.raises(InputError, match=r"b\.parquet: row 2 \(from 0\), column 'user_id': not valid UTF-8"):
        read_table(str(tmp_path), "interactions")


@pytest.mark.parametrize("group_rows", [1, 3, 4, 100])
@pytest.mark.parametrize(("first", "rows"), [(0, 11), (0, 1), (2, 5), (3, 3), (10, 1)])
def test_range_is_read_out_of_any_row_groups(tmp_path: Path, group_rows: int, first: int, rows: int) -> None:
    files = [write(tmp_path / "a.parquet", range(2)), write(tmp_path / "b.parquet", range(11), group_rows)]
    batch = CheckedReader(files, "interactions", row_checks=without_u1).rows(RowRange(1, first, rows))
    assert batch.read["user_id"].to_pylist() == [f"u{n}" for n in range(first, first + rows)]
    assert sources(batch.valid) == [(1, n) for n in range(first, first + rows) if n != 1]
    assert [(row["file"], row["row"]) for row in batch.invalid.to_pylist()] == [
        (files[1], n) for n in range(first, first + rows) if n == 1
    ]


def test_files_are_cut_into_ranges_of_a_maximum_size(tmp_path: Path) -> None:
    files = [write(tmp_path / "a.parquet", range(7), 3), write(tmp_path / "b.parquet", range(5))]
    assert row_ranges(files, "interactions", 5) == [RowRange(0, 0, 5), RowRange(0, 5, 2), RowRange(1, 0, 5)]
    assert row_ranges(files, "interactions", 100) == [RowRange(0, 0, 7), RowRange(1, 0, 5)]


def test_whole_groups_are_joined_up_to_a_minimum_size(tmp_path: Path) -> None:
    files = [write(tmp_path / "a.parquet", range(23), 4), write(tmp_path / "b.parquet", range(3), 3)]
    # Row groups of 4, 4, 4, 4, 4, 3 rows: a range ends with the group that brings it to 10 rows or more.
    expected = [RowRange(0, 0, 12), RowRange(0, 12, 11), RowRange(1, 0, 3)]
    assert group_ranges(read_footers(files), 10) == expected
    assert group_ranges(read_footers(files[:1]), 1)[:2] == [RowRange(0, 0, 4), RowRange(0, 4, 4)]


@settings(max_examples=40, deadline=None)
@given(
    shapes=st.lists(st.tuples(st.integers(0, 12), st.integers(1, 5)), min_size=1, max_size=3),
    rows=st.integers(1, 14),
    whole_groups=st.booleans(),
)
def test_ranges_together_hold_every_row_once(
    tmp_path_factory: pytest.TempPathFactory, shapes: list[tuple[int, int]], rows: int, whole_groups: bool
) -> None:
    folder = tmp_path_factory.mktemp("ranges")
    files = [write(folder / f"{n}.parquet", range(size), group) for n, (size, group) in enumerate(shapes)]
    footers = read_footers(files)
    ranges = group_ranges(footers, rows) if whole_groups else row_ranges(files, "interactions", rows)
    reader = CheckedReader(files, "interactions")
    found = [reader.rows(each).valid for each in ranges]
    expected = [(file, row) for file, (size, _) in enumerate(shapes) for row in range(size)]
    assert [row for table in found for row in sources(table)] == expected
    assert [user for table in found for user in table["user_id"].to_pylist()] == [f"u{row}" for _, row in expected]
    assert all(each.rows > 0 for each in ranges)
    if whole_groups:  # ranges start where a group starts
        assert all(each.first_row % shapes[each.file][1] == 0 for each in ranges)
    else:
        assert all(each.rows <= rows for each in ranges)


def test_small_files_share_a_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [str(tmp_path / name) for name in "abcdefg"]
    for file, size in zip(files, (1, 2, 3, 9, 1, 4, 0), strict=True):
        Path(file).write_bytes(b"x" * size)
    monkeypatch.setattr(checked_reader, "_GROUP_BYTES", 5)
    assert group_files(files) == [range(2), range(2, 3), range(3, 4), range(4, 7)]
    monkeypatch.setattr(checked_reader, "GROUP_FILES", 2)
    assert group_files(files) == [range(2), range(2, 3), range(3, 4), range(4, 6), range(6, 7)]
    assert group_files([]) == []


def test_file_without_rows_has_no_ranges(tmp_path: Path) -> None:
    files = [write(tmp_path / "a.parquet", range(0))]
    assert row_ranges(files, "interactions", 5) == group_ranges(read_footers(files), 5) == []


def test_times_without_a_zone_are_read_in_the_zone_given(tmp_path: Path) -> None:
    rows = {"user_id": ["u"], "title_id": ["t"], "timestamp": [datetime.datetime(2024, 7, 1, 12)]}
    pq.write_table(pa.table(rows), tmp_path / "a.parquet")
    files = [str(tmp_path / "a.parquet")]
    with pytest.raises(InputError, match="name it with --timezone"):
        CheckedReader(files, "interactions").all()
    reader = CheckedReader(files, "interactions", timezone="Europe/Paris")
    for batch in (reader.all(), reader.rows(RowRange(0, 0, 1))):
        assert batch.valid["timestamp"].to_pylist() == [datetime.datetime(2024, 7, 1, 10, tzinfo=datetime.UTC)]


def test_value_that_cannot_be_cast_is_named_with_its_row_in_the_file(tmp_path: Path) -> None:
    ids = [float(number) for number in range(40)]
    ids[33] = 33.5
    rows = {"user_id": ids, "title_id": ["t"] * 40, "timestamp": pa.array([0] * 40, schema.TIMESTAMP)}
    pq.write_table(pa.table(rows), tmp_path / "a.parquet", row_group_size=7)
    reader = CheckedReader([str(tmp_path / "a.parquet")], "interactions")
    for call in (lambda: list(reader.batches(10)), lambda: reader.rows(RowRange(0, 30, 8))):
        with pytest.raises(InputError, match=r"a\.parquet: column 'user_id' does not fit string in row 33 \(from 0\)"):
            call()
    assert reader.rows(RowRange(0, 34, 2)).valid["user_id"].to_pylist() == ["34", "35"]


def test_columns_in_the_names_of_folders_are_read(tmp_path: Path) -> None:
    # The file has no column of that name at all: its row groups must still be read.
    folder = tmp_path / "dt=2024-01-01/user_id=007/title_id=a%2Fb"
    folder.mkdir(parents=True)
    pq.write_table(pa.table({"timestamp": pa.array([0, 1], schema.TIMESTAMP)}), folder / "a.parquet")
    table = read_table(str(tmp_path), "interactions", ["title_id", "user_id"])
    assert table.to_pylist() == [{"title_id": "a/b", "user_id": "007"}] * 2
    reader = CheckedReader(storage.list_files(str(tmp_path)), "interactions")
    assert reader.rows(RowRange(0, 1, 1)).valid["user_id"].to_pylist() == ["007"]


def test_file_of_another_table_or_without_end_is_one_line_with_its_name(tmp_path: Path) -> None:
    other, half = tmp_path / "other.parquet", tmp_path / "half.parquet"
    pq.write_table(pa.table({"a": [1]}), other)
    good = Path(write(tmp_path / "good.parquet", range(9))).read_bytes()
    half.write_bytes(good[: len(good) // 2])
    for call in (
        lambda file: row_ranges([file], "interactions", 4),
        lambda file: CheckedReader([file], "interactions").all(),
        lambda file: CheckedReader([file], "interactions").rows(RowRange(0, 0, 1)),
        lambda file: read_table(file, "interactions"),
    ):
        with pytest.raises(InputError, match=r"other\.parquet is not a table of interactions: column 'user_id'"):
            call(str(other))
        with pytest.raises(InputError, match=r"^cannot read .*half\.parquet as Parquet") as caught:
            call(str(half))
        assert "\n" not in str(caught.value)


def test_page_broken_inside_a_file_is_one_line_with_its_name(tmp_path: Path) -> None:
    path = Path(write(tmp_path / "a.parquet", range(500)))
    content = bytearray(path.read_bytes())
    content[4:40] = b"\xff" * 36
    path.write_bytes(content)
    reader = CheckedReader([str(path)], "interactions")
    for call in (reader.all, lambda: reader.rows(RowRange(0, 0, 5))):
        with pytest.raises(InputError, match=r"^cannot read .*a\.parquet as Parquet") as caught:
            call()
        assert "\n" not in str(caught.value)


def test_table_is_read_from_all_files_in_the_order_of_their_names(tmp_path: Path) -> None:
    write(tmp_path / "b.parquet", range(2, 4))
    write(tmp_path / "a.parquet", range(2))
    table = read_table(str(tmp_path), "interactions")
    assert table["user_id"].to_pylist() == ["u0", "u1", "u2", "u3"]
    assert table.schema.equals(pa.schema([field.with_nullable(True) for field in schema.INTERACTIONS]))
    with pytest.raises(InputError, match=r"no \.parquet file there"):
        read_table(str(tmp_path / "nowhere"), "interactions")


def test_table_without_rows_has_its_columns(tmp_path: Path) -> None:
    storage.write_table(str(tmp_path / "a.parquet"), schema.INTERACTIONS.empty_table(), "interactions")
    assert read_table(str(tmp_path), "interactions").column_names == schema.INTERACTIONS.names


def test_invalid_rows_are_a_table_like_others(tmp_path: Path) -> None:
    # Their columns `file` and `row` are those of the rows that they describe.
    row = {"table": "titles", "file": "t.parquet", "row": 3, "column": "name", "reason": "missing"}
    rows = pa.Table.from_pylist([row], schema.INVALID_ROWS)
    storage.write_table(str(tmp_path / "a.parquet"), rows, "invalid_rows")
    assert read_table(str(tmp_path), "invalid_rows").to_pylist() == rows.to_pylist()


def test_source_rows_count_from_the_first_row() -> None:
    table = with_source_rows(pa.table({"a": ["x", "y"]}), 3, 7)
    expected: list[dict[str, Any]] = [{"a": "x", "file": 3, "row": 7}, {"a": "y", "file": 3, "row": 8}]
    assert table.to_pylist() == expected
    assert table.schema.types[1:] == [pa.int32(), pa.int64()]


@pytest.mark.parametrize(
    ("name", "metadata"),
    [
        ("arrow.fixed_shape_tensor", "{broken"), ("arrow.fixed_shape_tensor", '{"shape": [3]}'),
        ("arrow.fixed_shape_tensor", "[" * 200_000), ("arrow.opaque", '{"type_name": 1}'), ("arrow.uuid", ""),
    ],
)  # fmt: skip
def test_broken_metadata_of_an_extension_type_is_one_line(tmp_path: Path, name: str, metadata: str) -> None:
    described = {"ARROW:extension:name": name, "ARROW:extension:metadata": metadata}
    other = pa.field("other", pa.list_(pa.float64(), 2), metadata=described)
    columns = [["t"], ["n"], [["g"]], pa.array([[1.0, 2.0]], other.type)]
    fields = [
        pa.field("title_id", pa.string()),
        pa.field("name", pa.string()),
        pa.field("genres", pa.list_(pa.string())),
    ]
    file = f"{tmp_path}/a.parquet"
    pq.write_table(pa.table(columns, schema=pa.schema([*fields, other])), file)
    with pytest.raises(InputError, match=f"^cannot read {file} as Parquet: ") as raised:
        CheckedReader([file], "titles").all()
    assert "\n" not in str(raised.value)
