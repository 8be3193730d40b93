"""A bad row is found whatever is wrong with it, and only the first reason is given."""

import numpy as np
import pyarrow as pa

from artsel_ray.data import checks
from artsel_ray.schema import EXAMPLES, INVALID_ROWS, Assets


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
    good, invalid = checks.split_valid(table, "interactions", ["first.parquet", "second.parquet"], bad)
    assert good["user_id"].to_pylist() == ["u"]
    assert invalid.schema == INVALID_ROWS
    assert [(r["file"], r["row"], r["reason"], r["user_id"]) for r in invalid.to_pylist()] == [
        ("first.parquet", 8, "missing", "v"),
        ("second.parquet", 9, "unknown title", "w"),
    ]


def test_each_candidate_of_an_example_has_what_the_model_is_to_see() -> None:
    captions: list[list[str | None]] = [["A tower.", "A house."], [None, "A house."], [None, None], ["A tower.", ""]]
    images: list[list[str] | None] = [["a.png", "b.png"], ["a.png"], ["a.png", "b.png"], None]
    rows = [
        {
            "candidates": [{"artwork_id": str(place), "caption": caption} for place, caption in enumerate(each)],
            "image_uris": uris, "label": 0, "history": [], "title_genres": [], "propensity": None,
        }
        for each, uris in zip(captions, images, strict=True)
    ]  # fmt: skip
    columns = ["title_genres", "history", "candidates", "label", "propensity", "image_uris"]
    table = pa.Table.from_pylist(rows, pa.schema([EXAMPLES.field(name).with_nullable(True) for name in columns]))

    def lacking(assets: Assets) -> list[int]:
        return np.sum([bad for _, _, bad in checks.example_checks(table, assets)], axis=0).tolist()

    assert lacking("caption") == [0, 1, 1, 1]
    assert lacking("image") == [0, 1, 0, 1]
