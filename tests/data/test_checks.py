"""A bad row is found whatever is wrong with it, and only the first reason is given."""

import numpy as np
import pyarrow as pa

from artsel_ray.data import checks
from artsel_ray.schema import REJECTED


def _text(*values: str | None) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values, pa.string())])


def test_missing_is_null_or_blank() -> None:
    assert checks.missing(_text("a", None, "", " \t", "\u00a0", " b", "🎬")).tolist() == [0, 1, 1, 1, 1, 0, 0]
    assert checks.missing(_text("a", "\u3000")).tolist() == [0, 1]
    assert checks.missing(_text("a", "b")).tolist() == [0, 0]
    assert checks.missing(_text()).tolist() == []
    assert checks.missing(pa.chunked_array([pa.array([1, None])])).tolist() == [0, 1]


def test_only_a_number_in_0_to_1_is_a_propensity() -> None:
    values = pa.chunked_array([pa.array([0.5, 1.0, 0.0, -0.1, 1.1, float("nan"), float("inf"), None])])
    assert checks.propensity_is_wrong(values).tolist() == [0, 0, 1, 1, 1, 1, 1, 0]


def test_a_watch_time_is_finite_and_not_negative() -> None:
    values = pa.chunked_array([pa.array([0.0, 5.0, -1.0, float("nan"), float("inf"), None], pa.float32())])
    assert checks.watch_is_wrong(values).tolist() == [0, 0, 1, 1, 1, 0]


def test_an_id_is_repeated_from_its_second_row_on() -> None:
    assert checks.repeated(_text("a", "b", "a", "a", "c")).tolist() == [0, 0, 1, 1, 0]


def test_the_first_reason_counts_and_the_place_is_kept() -> None:
    table = pa.table({"user_id": ["u", "v", "w"], "title_id": ["t", None, "x"], "file": [1, 0, 1], "row": [7, 8, 9]})
    table = table.set_column(2, "file", table["file"].cast(pa.int32()))
    bad = [("title_id", "missing", np.array([0, 1, 0], bool)), ("title_id", "unknown title", np.array([0, 1, 1], bool))]
    good, rejected = checks.part(table, "interactions", ["first.parquet", "second.parquet"], bad)
    assert good["user_id"].to_pylist() == ["u"]
    assert rejected.schema == REJECTED
    assert [(r["file"], r["row"], r["reason"], r["user_id"]) for r in rejected.to_pylist()] == [
        ("first.parquet", 8, "missing", "v"),
        ("second.parquet", 9, "unknown title", "w"),
    ]
