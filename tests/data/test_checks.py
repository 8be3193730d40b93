"""Each invalid row is found and gets the reason of the first check that it fails."""

import numpy as np
import pyarrow as pa
import pytest

from artsel_ray.config import Assets
from artsel_ray.data import checks
from artsel_ray.errors import InputError
from artsel_ray.schema import EXAMPLES, HISTORY, INVALID_ROWS, PREDICTIONS, TIMESTAMP


def _text(*values: str | None) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values, pa.string())])


def test_null_and_blank_text_are_missing() -> None:
    assert checks.missing(_text("a", None, "", " \t", "\u00a0", " b", "🎬")).tolist() == [0, 1, 1, 1, 1, 0, 0]
    assert checks.missing(_text("a", "\u3000")).tolist() == [0, 1]
    assert checks.missing(_text("a", "b")).tolist() == [0, 0]
    assert checks.missing(_text()).tolist() == []
    assert checks.missing(pa.chunked_array([pa.array([1, None])])).tolist() == [0, 1]


def test_propensity_is_above_0_and_at_most_1() -> None:
    values = pa.chunked_array([pa.array([0.5, 1.0, 0.0, -0.1, 1.1, float("nan"), float("inf"), None])])
    assert checks.propensity_is_wrong(values).tolist() == [0, 0, 1, 1, 1, 1, 1, 0]


def test_watch_time_is_finite_and_not_negative() -> None:
    values = pa.chunked_array([pa.array([0.0, 5.0, -1.0, float("nan"), float("inf"), None], pa.float32())])
    assert checks.watch_is_wrong(values).tolist() == [0, 0, 1, 1, 1, 0]


def test_probability_is_in_0_to_1() -> None:
    values = pa.chunked_array([pa.array([0.0, 1.0, -0.1, 1.1, float("nan"), None])])
    assert checks.probability_is_wrong(values).tolist() == [0, 0, 1, 1, 1, 0]


def test_only_known_kinds_of_assets_are_valid() -> None:
    assert checks.kind_is_wrong(_text("artwork", "trailer", None, "poster", "")).tolist() == [0, 0, 0, 1, 1]


def test_time_is_compared_in_microseconds() -> None:
    times = pa.chunked_array([pa.array([9, 10, 11, None], TIMESTAMP)])
    assert checks.later_than(times, 10).tolist() == [0, 0, 1, 0]


def test_unknown_id_has_the_code_minus_1() -> None:
    codes = checks.codes(_text("b", None, "x", "a"), pa.array(["a", "b"]))
    assert (codes.tolist(), codes.dtype) == ([1, -1, -1, 0], np.int32)


def test_id_is_repeated_from_its_second_row_on() -> None:
    assert checks.repeated(_text("a", "b", "a", "a", "c")).tolist() == [0, 0, 1, 1, 0]


def test_invalid_row_keeps_its_source_and_its_first_reason() -> None:
    table = pa.table({"user_id": ["u", "v", "w"], "title_id": ["t", None, "x"], "file": [1, 0, 1], "row": [7, 8, 9]})
    table = table.set_column(2, "file", table["file"].cast(pa.int32()))
    found = [
        ("title_id", "missing", np.array([0, 1, 0], bool)),
        ("title_id", "unknown title", np.array([0, 1, 1], bool)),
    ]
    valid, invalid = checks.split_valid(table, "interactions", ["first.parquet", "second.parquet"], found)
    assert valid["user_id"].to_pylist() == ["u"]
    assert invalid.schema == INVALID_ROWS
    assert [(r["file"], r["row"], r["reason"], r["user_id"]) for r in invalid.to_pylist()] == [
        ("first.parquet", 8, "missing", "v"),
        ("second.parquet", 9, "unknown title", "w"),
    ]


def test_example_needs_the_contents_of_every_candidate() -> None:
    captions: list[list[str | None]] = [["A tower.", "A house."], [None, "A house."], [None, None], ["A tower.", ""]]
    images: list[list[str] | None] = [["a.png", "b.png"], ["a.png"], ["a.png", "b.png"], None]
    rows = [
        {
            "candidates": [{"artwork_id": str(position), "caption": caption} for position, caption in enumerate(each)],
            "image_uris": uris, "label": 0, "history": [], "title_genres": [], "propensity": None,
        }
        for each, uris in zip(captions, images, strict=True)
    ]  # fmt: skip
    columns = ["title_genres", "history", "candidates", "label", "propensity", "image_uris"]
    table = pa.Table.from_pylist(rows, pa.schema([EXAMPLES.field(name).with_nullable(True) for name in columns]))

    def lacking(assets: Assets) -> list[int]:
        return np.sum([failed for _, _, failed in checks.example_checks(table, assets)], axis=0).tolist()

    assert lacking("caption") == [0, 1, 1, 1]
    assert lacking("image") == [0, 1, 0, 1]


def test_history_has_the_reason_of_its_invalid_item() -> None:
    item = {"timestamp": None, "title_name": "x", "genres": ["g"], "watch_seconds": 1.0}
    rows = [
        [item],
        [item, item | {"title_name": ""}],
        [item | {"genres": [None]}],
        [item | {"watch_seconds": -1.0}],
        [],
        None,
    ]
    histories = pa.chunked_array([pa.array(rows, HISTORY)])
    found = {reason: failed.tolist() for _, reason, failed in checks.history_checks(histories)}
    assert found == {
        "an item without a title's name": [0, 1, 0, 0, 0, 0],
        "an item with null among the genres": [0, 0, 1, 0, 0, 0],
        "an item's watch time is negative or not a number": [0, 0, 0, 1, 0, 0],
    }


def test_predictions_are_checked_by_the_columns_that_are_there() -> None:
    rows = [
        {"user_id": "u", "title_id": "t", "artwork_id": "a", "probability": 0.5},
        {"user_id": "u", "title_id": None, "artwork_id": "a", "probability": 0.5},
        {"user_id": "u", "title_id": "t", "artwork_id": "a", "probability": 1.5},
    ]
    fields = [
        PREDICTIONS.field(name).with_nullable(True) for name in ("user_id", "title_id", "artwork_id", "probability")
    ]
    found = checks.prediction_checks(pa.Table.from_pylist(rows, pa.schema(fields)))
    failed = [(column, row) for column, _, mask in found for row in np.flatnonzero(mask).tolist()]
    assert failed == [("title_id", 1), ("probability", 2)]


def _unchecked(*values: bytes | None) -> pa.Array:
    """Text that nobody has checked, as a reader of Parquet returns it."""
    return pa.StringArray.from_buffers(len(values), *pa.array(values, pa.binary()).buffers()[1:])


def test_broken_text_is_found_at_any_depth() -> None:
    surrogate = "\ud800".encode("utf-8", "surrogatepass")
    flat = _unchecked(b"a", b"\xff", None, surrogate, "日".encode())
    lists = pa.ListArray.from_arrays(pa.array([0, 0, 3, None, 4, 5], pa.int32()), flat)
    structs = pa.StructArray.from_arrays([lists, pa.array(range(5))], names=["genres", "number"])
    nested = pa.ListArray.from_arrays(pa.array([0, 2, 2, 3, 4, 5], pa.int32()), structs)
    table = pa.table({"flat": flat, "lists": lists, "nested": nested, "good": ["x"] * 5, "number": range(5)})
    assert checks.broken_text(table) == {"flat": [1, 3], "lists": [1, 2], "nested": [0, 2]}
    assert checks.broken_text(table.slice(1, 2)) == {"flat": [0], "lists": [0, 1], "nested": [1]}
    assert checks.broken_text(table.select(["good", "number"])) == {}


def test_row_with_broken_text_is_invalid_and_its_broken_id_null() -> None:
    ids = _unchecked(b"u", b"\xff", b"w")
    table = pa.table({"user_id": ids, "title_id": ["t"] * 3, "file": pa.array([0] * 3, pa.int32()), "row": [4, 5, 6]})
    valid, invalid = checks.split_readable(table, "interactions", ["a.parquet"])
    assert valid["row"].to_pylist() == [4, 6]
    (row,) = invalid.to_pylist()
    assert (row["row"], row["column"], row["reason"]) == (5, "user_id", "not valid UTF-8")
    assert (row["user_id"], row["title_id"]) == (None, "t")


def test_examples_without_a_propensity_are_counted_by_file() -> None:
    propensities = [0.5, None, 0.0, float("nan"), 1.5, 1.0]
    rows = pa.table({"propensity": propensities, "file": pa.array([0, 0, 1, 1, 1, 1], pa.int32())})
    missing = checks.without_propensity(rows, ["a", "b"])
    assert missing == {"a": 1, "b": 3}
    with pytest.raises(InputError, match=r"^b: 3 examples \(4 in all files\) have no propensity in \(0, 1\]"):
        checks.require_propensities(missing)
    checks.require_propensities(checks.without_propensity(rows.slice(0, 1), ["a", "b"]))
