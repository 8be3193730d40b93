"""Types of other writers are accepted and cast, or refused with both schemas."""

import pyarrow as pa
import pytest

from artsel_ray import schema
from artsel_ray.data.casting import cast, conform, source_names
from artsel_ray.errors import InputError

GOOD = pa.table({"user_id": ["u"], "title_id": ["t"], "timestamp": pa.array([0], schema.TIMESTAMP)})


def read(table: pa.Table, name: str, source: str = "x.parquet") -> pa.Table:
    """Casts as every reader does, after a look at the schema."""
    conform(table.schema, name, source)
    return cast(table, name, source)


def test_nullable_column_may_be_absent_and_others_are_ignored() -> None:
    table = GOOD.append_column("colour", [["red"]])
    got = read(table, "interactions")
    assert got.column_names == schema.INTERACTIONS.names
    assert got["watch_seconds"].null_count == 1


def test_other_types_of_the_same_kind_are_cast() -> None:
    table = pa.table(
        {
            "user_id": pa.array(["u"], pa.large_string()).dictionary_encode(),
            "title_id": pa.array(["t"], pa.large_string()),
            "timestamp": pa.array([1], pa.timestamp("s", tz="Europe/Berlin")),
            "watch_seconds": pa.array([3], pa.int32()),
        }
    )
    got = read(table, "interactions")
    assert got.schema.types == schema.INTERACTIONS.types
    assert got["watch_seconds"].to_pylist() == [3.0]


@pytest.mark.parametrize(
    ("table", "difference"),
    [
        (GOOD.drop(["title_id"]), "column 'title_id' (string) is missing"),
        (GOOD.append_column("title_id", [["t"]]), "column 'title_id' occurs 2 times"),
        (GOOD.set_column(0, "user_id", pa.array([7])), "column 'user_id' is int64, expected string"),
        (
            GOOD.set_column(2, "timestamp", pa.array([0], pa.timestamp("us"))),
            "column 'timestamp' is timestamp[us], expected timestamp[us, tz=UTC]",
        ),
    ],
)
def test_wrong_schema_is_refused_with_the_difference_and_both_schemas(table: pa.Table, difference: str) -> None:
    with pytest.raises(InputError) as caught:
        read(table, "interactions", "logs/x.parquet")
    message = str(caught.value)
    assert message.startswith(f"logs/x.parquet is not a table of interactions: {difference}")
    assert "expected:\n  user_id: string\n" in message
    assert message.count("got:\n") == 1


def test_every_difference_is_reported() -> None:
    wrong = GOOD.drop(["title_id"]).set_column(0, "user_id", pa.array([7]))
    with pytest.raises(
        InputError, match=r"'user_id' is int64, expected string; column 'title_id' \(string\) is missing"
    ):
        read(wrong, "interactions")


def test_only_the_named_columns_are_checked() -> None:
    conform(GOOD.drop(["title_id"]).schema, "interactions", "x.parquet", ["user_id", "timestamp"])
    with pytest.raises(InputError, match="'title_id'"):
        conform(GOOD.drop(["title_id"]).schema, "interactions", "x.parquet", ["user_id", "title_id"])


def test_nested_columns_are_compared_by_their_fields() -> None:
    wrong = pa.table({"user_id": ["u"], "history": pa.array([[{"title_name": "x"}]]), "title_ids": [["t"]]})
    with pytest.raises(InputError, match="column 'history'"):
        conform(wrong.schema, "requests", "x.parquet")


def test_value_that_does_not_fit_is_refused() -> None:
    wide = pa.table({"title_id": ["t"], "name": ["n"], "genres": [["g"]], "year": pa.array([2**40])})
    with pytest.raises(InputError, match="'year' does not fit int32"):
        read(wide, "titles")


def test_finer_times_are_truncated_and_long_integers_rounded() -> None:
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
    got = read(flat, "interactions")
    assert got["timestamp"].cast(pa.int64()).to_pylist() == [1, -1]
    assert got["watch_seconds"].to_pylist() == [2.0**24, 2.0**53]
    (history,) = read(nested, "requests")["history"].to_pylist()
    assert [(each["timestamp"].microsecond, each["watch_seconds"]) for each in history] == [(1, 2.0**24)]


def test_time_out_of_range_is_refused() -> None:
    far = GOOD.set_column(2, "timestamp", pa.array([2**60], pa.timestamp("s", tz="UTC")))
    with pytest.raises(InputError, match="'timestamp' does not fit"):
        read(far, "interactions")


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
    fields = [schema.EXAMPLES.field("rationale")]
    table = pa.table({"example_id": ["e"], "reason": ["Because."]})
    assert cast(table, "examples", "x.parquet", fields).to_pylist() == [{"rationale": "Because."}]
