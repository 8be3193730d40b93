import pyarrow as pa
import pytest

from artsel_ray import schema
from artsel_ray.errors import InputError

GOOD = pa.table({"user_id": ["u"], "title_id": ["t"], "timestamp": pa.array([0], schema.TIMESTAMP)})


def test_a_nullable_column_may_be_absent_and_others_are_passed_over() -> None:
    table = GOOD.append_column("colour", [["red"]])
    got = schema.cast(table, "interactions", "x.parquet")
    assert got.column_names == schema.INTERACTIONS.names
    assert got["watch_seconds"].null_count == 1


def test_narrower_types_of_the_same_kind_are_taken() -> None:
    table = pa.table(
        {
            "user_id": pa.array(["u"], pa.large_string()).dictionary_encode(),
            "title_id": pa.array(["t"], pa.large_string()),
            "timestamp": pa.array([1], pa.timestamp("s", tz="Europe/Berlin")),
            "watch_seconds": pa.array([3], pa.int32()),
        }
    )
    got = schema.cast(table, "interactions", "x.parquet")
    assert got.schema.types == schema.INTERACTIONS.types
    assert got["watch_seconds"].to_pylist() == [3.0]


@pytest.mark.parametrize(
    ("table", "difference"),
    [
        (GOOD.drop(["title_id"]), "column 'title_id' (string) is missing"),
        (GOOD.append_column("title_id", [["t"]]), "column 'title_id' stands 2 times"),
        (GOOD.set_column(0, "user_id", pa.array([7])), "column 'user_id' is int64, expected string"),
        (
            GOOD.set_column(2, "timestamp", pa.array([0], pa.timestamp("us"))),
            "column 'timestamp' is timestamp[us], expected timestamp[us, tz=UTC]",
        ),
    ],
)
def test_a_wrong_table_is_answered_with_both_schemas_and_the_difference(table: pa.Table, difference: str) -> None:
    with pytest.raises(InputError) as caught:
        schema.cast(table, "interactions", "logs/x.parquet")
    message = str(caught.value)
    assert message.startswith(f"logs/x.parquet is not a table of interactions: {difference}")
    assert "expected:\n  user_id: string\n" in message
    assert message.count("got:\n") == 1


def test_nested_columns_are_compared_by_their_fields() -> None:
    wrong = pa.table({"user_id": ["u"], "history": pa.array([[{"title_name": "x"}]]), "title_ids": [["t"]]})
    with pytest.raises(InputError, match="column 'history'"):
        schema.conform(wrong.schema, "requests", "x.parquet")


def test_a_value_that_does_not_fit_is_an_error() -> None:
    wide = pa.table({"title_id": ["t"], "name": ["n"], "genres": [["g"]], "year": pa.array([2**40])})
    with pytest.raises(InputError, match="'year' does not fit int32"):
        schema.cast(wide, "titles", "x.parquet")


def test_finer_times_and_longer_integers_are_rounded() -> None:
    finer = pa.timestamp("ns", tz="UTC")
    item = pa.struct(
        [
            ("timestamp", finer),
            ("title_name", pa.string()),
            ("genres", pa.list_(pa.string())),
            ("watch_seconds", pa.int64()),
        ]
    )
    watched = {"timestamp": 1_001, "title_name": "x", "genres": ["g"], "watch_seconds": 2**24 + 1}
    flat = pa.table(
        {
            "user_id": ["u"] * 2,
            "title_id": ["t"] * 2,
            "timestamp": pa.array([1_999, -1_999], finer),
            "watch_seconds": [2**24 + 1, 2**53 + 1],
        }
    )
    nested = pa.table({"user_id": ["u"], "title_ids": [["t"]], "history": pa.array([[watched]], pa.list_(item))})
    got = schema.cast(flat, "interactions", "x.parquet")
    assert got["timestamp"].cast(pa.int64()).to_pylist() == [1, -1]
    assert got["watch_seconds"].to_pylist() == [2.0**24, 2.0**53]
    (history,) = schema.cast(nested, "requests", "x.parquet")["history"].to_pylist()
    assert [(each["timestamp"].microsecond, each["watch_seconds"]) for each in history] == [(1, 2.0**24)]


def test_a_time_out_of_range_is_an_error() -> None:
    far = GOOD.set_column(2, "timestamp", pa.array([2**60], pa.timestamp("s", tz="UTC")))
    with pytest.raises(InputError, match="'timestamp' does not fit"):
        schema.cast(far, "interactions", "x.parquet")


def _text(*values: bytes | None) -> pa.Array:
    """Text that nobody has checked, as a reader of Parquet returns it."""
    return pa.StringArray.from_buffers(len(values), *pa.array(values, pa.binary()).buffers()[1:])


def test_broken_text_is_found_at_any_depth_and_nothing_else_is() -> None:
    surrogate = "\ud800".encode("utf-8", "surrogatepass")
    flat = _text(b"a", b"\xff", None, surrogate, "日".encode())
    lists = pa.ListArray.from_arrays(pa.array([0, 0, 3, None, 4, 5], pa.int32()), flat)
    structs = pa.StructArray.from_arrays([lists, pa.array(range(5))], names=["genres", "number"])
    nested = pa.ListArray.from_arrays(pa.array([0, 2, 2, 3, 4, 5], pa.int32()), structs)
    table = pa.table({"flat": flat, "lists": lists, "nested": nested, "good": ["x"] * 5, "number": range(5)})
    assert schema.broken_text(table) == {"flat": [1, 3], "lists": [1, 2], "nested": [0, 2]}
    assert schema.broken_text(table.slice(1, 2)) == {"flat": [0], "lists": [0, 1], "nested": [1]}
    assert schema.broken_text(table.select(["good", "number"])) == {}
