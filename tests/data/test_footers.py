"""A table's columns come from its file or its folders, in our order and types."""

import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from artsel_ray import schema
from artsel_ray.data.footers import Footer, cast_table, read_footers, source_names
from artsel_ray.errors import InputError

GOOD = pa.table({"user_id": ["u"], "title_id": ["t"], "timestamp": pa.array([0], schema.TIMESTAMP)})
NOON = datetime.datetime(2024, 7, 1, 12, tzinfo=datetime.UTC)


def read(table: pa.Table, name: str, folders: dict[str, str | None] | None = None) -> pa.Table:
    footer = Footer("x.parquet", table.schema, frozenset(), folders or {}, [])
    return cast_table(table, footer, list(schema.TABLES[name]))


def test_nullable_column_may_be_absent_and_others_are_ignored() -> None:
    got = read(GOOD.append_column("colour", [["red"]]), "interactions")
    assert got.column_names == schema.INTERACTIONS.names
    assert got.schema.types == schema.INTERACTIONS.types
    assert got["watch_seconds"].null_count == 1


def test_folders_fill_only_what_the_file_does_not_have() -> None:
    got = read(GOOD, "interactions", {"watch_seconds": "1.5", "user_id": "other", "dt": "2024-01-01"})
    assert got.select(["user_id", "watch_seconds"]).to_pylist() == [{"user_id": "u", "watch_seconds": 1.5}]


def test_value_that_does_not_fit_is_named_with_its_row() -> None:
    years = pa.array([1999] * 9 + [2**40])
    wide = pa.table({"title_id": ["t"] * 10, "name": ["n"] * 10, "genres": [["g"]] * 10, "year": years})
    with pytest.raises(InputError, match=r"x\.parquet: column 'year' does not fit int32 in row 9 \(from 0\): "):
        read(wide, "titles")
    far = GOOD.set_column(2, "timestamp", pa.array([2**60], pa.timestamp("s", tz="UTC")))
    with pytest.raises(InputError, match="'timestamp' does not fit"):
        read(far, "interactions")


def test_local_time_that_occurs_twice_is_named_with_the_remedy() -> None:
    times = [datetime.datetime(2024, 10, 27, hour, 30) for hour in (1, 2, 3)]
    table = GOOD.take([0, 0, 0]).set_column(2, "timestamp", pa.array(times, pa.timestamp("us")))
    footer = Footer("x.parquet", table.schema, frozenset(), {}, [])
    with pytest.raises(InputError, match=r"in row 11 .* is ambiguous.*tz_localize\(\"Europe/Paris\", ambiguous="):
        cast_table(table, footer, list(schema.INTERACTIONS), "Europe/Paris", 10)


def test_nulls_in_required_columns_stay_null() -> None:
    # Their rows are invalid, which a row check finds later; the file is not refused.
    table = GOOD.set_column(0, "user_id", pa.array([None], pa.string()))
    assert read(table, "interactions")["user_id"].to_pylist() == [None]


def test_column_of_an_earlier_version_is_read_by_its_earlier_name() -> None:
    old = pa.schema([("example_id", pa.string()), ("reason", pa.string())])
    assert source_names(old, ["example_id", "rationale", "label"]) == {
        "example_id": "example_id",
        "rationale": "reason",
    }
    both = pa.schema([("rationale", pa.string()), ("reason", pa.string())])
    assert source_names(both, ["rationale"]) == {"rationale": "rationale"}
    table = pa.table({"example_id": ["e"], "reason": ["Because."]})
    footer = Footer("x.parquet", table.schema, frozenset(), {}, [])
    assert cast_table(table, footer, [schema.EXAMPLES.field("rationale")]).to_pylist() == [{"rationale": "Because."}]


def test_int96_is_utc_and_reaches_beyond_nanoseconds(tmp_path: Path) -> None:
    far = datetime.datetime(1600, 1, 1, tzinfo=datetime.UTC)
    item = pa.struct({"timestamp": schema.TIMESTAMP})
    rows = {
        "timestamp": pa.array([NOON, far], schema.TIMESTAMP),
        "history": pa.array([[{"timestamp": NOON}], []], pa.list_(item)),
        "local": pa.array([NOON, far]).cast(pa.timestamp("us")),
    }
    pq.write_table(pa.table(rows), tmp_path / "a.parquet", use_deprecated_int96_timestamps=True, row_group_size=1)
    pq.write_table(pa.table({"local": rows["local"]}), tmp_path / "b.parquet")
    first, second = read_footers([str(tmp_path / "a.parquet"), str(tmp_path / "b.parquet")])
    assert first.int96 == {"timestamp", "history", "local"}
    assert (first.zone("history", "Europe/Paris"), second.zone("local", "Europe/Paris")) == ("UTC", "Europe/Paris")
    assert (first.group_rows, second.group_rows) == ([1, 1], [2])
    table = pq.read_table(tmp_path / "a.parquet", coerce_int96_timestamp_unit="us")
    fields = [pa.field("timestamp", schema.TIMESTAMP), pa.field("history", pa.list_(item))]
    assert cast_table(table, first, fields, "Europe/Paris").to_pylist() == [
        {"timestamp": NOON, "history": [{"timestamp": NOON}]},
        {"timestamp": far, "history": []},
    ]


def test_folders_are_those_of_the_decoded_path(tmp_path: Path) -> None:
    folder = tmp_path / "a%20b=c%2Fd"
    folder.mkdir()
    pq.write_table(GOOD, folder / "x.parquet")
    for uri in (f"{folder}/x.parquet", f"file://{tmp_path}/a%2520b=c%252Fd/x.parquet"):
        (footer,) = read_footers([uri])
        assert footer.folders == {"a b": "c/d"}
