"""A row that holds more than it may is invalid, costs little, and leaves the other rows alone."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artsel_ray import schema
from artsel_ray.config import RowLimits
from artsel_ray.data import limits
from artsel_ray.data.checked_reader import CheckedReader, RowRange

FEW = RowLimits(max_text_bytes=30, max_row_items=3, max_genres=2)


def write(path: Path, rows: list[dict[str, Any]], table: str, **options: Any) -> str:
    pq.write_table(pa.Table.from_pylist(rows, schema.TABLES[table]), path, **options)
    return str(path)


def item(name: str = "n", genres: tuple[str, ...] = ("g",)) -> dict[str, Any]:
    return {"timestamp": None, "title_name": name, "genres": list(genres), "watch_seconds": None}


def request(user: str = "u", items: int = 1, titles: int = 1, **changes: Any) -> dict[str, Any]:
    return {"user_id": user, "history": [item(**changes)] * items, "title_ids": ["t"] * titles}


@pytest.mark.parametrize(
    ("bad", "column", "reason"),
    [
        (request(titles=4), "title_ids", "more than 3 items (--max-row-items)"),
        (request(items=4), "history", "more than 3 items (--max-row-items)"),
        (request(genres=("g",) * 3), "history", "more than 2 items (--max-genres)"),
        (request(genres=("g" * 257,)), "history", "a text of more than 256 bytes"),
        (request(name="é" * 1025), "history", "a text of more than 2,048 bytes"),
        (request(user="u" * 4097), "user_id", "a text of more than 4,096 bytes"),
        (request() | {"title_ids": ["t" * 4097]}, "title_ids", "a text of more than 4,096 bytes"),
    ],
)
def test_row_with_too_much_is_invalid_and_others_are_kept(
    tmp_path: Path, bad: dict[str, Any], column: str, reason: str
) -> None:
    most = request("u" * 4096, 3, 3, name="é" * 1024, genres=("g" * 256,) * 2)
    file = write(tmp_path / "a.parquet", [request(), bad, most], "requests")
    reader = CheckedReader([file], "requests", limits=FEW)
    for batch in (reader.all(), reader.rows(RowRange(0, 0, 3))):
        assert batch.valid.select(batch.read.column_names).to_pylist() == [request(), most]
        (row,) = batch.invalid.to_pylist()
        assert (row["row"], row["column"], row["reason"]) == (1, column, reason)


def test_caption_has_the_limit_of_the_flag(tmp_path: Path) -> None:
    artworks = [{"artwork_id": str(n), "title_id": "t", "caption": "c" * n} for n in (30, 31)]
    batch = CheckedReader([write(tmp_path / "a.parquet", artworks, "artworks")], "artworks", limits=FEW).all()
    assert batch.valid["artwork_id"].to_pylist() == ["30"]
    assert batch.invalid["reason"].to_pylist() == ["a text of more than 30 bytes (--max-text-bytes)"]


def test_repeated_long_value_costs_what_one_does(tmp_path: Path) -> None:
    names = pa.DictionaryArray.from_arrays(pa.array([0] * 65_536, pa.int32()), pa.array(["x" * (1 << 20)]))
    table = {"title_id": pa.array(map(str, range(65_536))), "name": names, "genres": pa.array([["g"]] * 65_536)}
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    before = pa.total_allocated_bytes()
    batch = CheckedReader([str(tmp_path / "a.parquet")], "titles").all()
    assert (batch.valid.num_rows, batch.invalid.num_rows) == (0, 65_536)
    assert pa.total_allocated_bytes() - before < 1 << 29


def test_batch_is_passed_on_in_parts_of_bounded_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [request(str(n), 3, name="x" * 1000) for n in range(200)]
    file = write(tmp_path / "a.parquet", rows, "requests", row_group_size=77)
    monkeypatch.setattr(limits, "_PART_BYTES", 30_000)
    batches = list(CheckedReader([file], "requests").batches())
    assert max(batch.read.nbytes for batch in batches) < 40_000
    read = pa.concat_tables([batch.valid for batch in batches])
    assert read["row"].to_pylist() == list(range(200))
    assert read.select(["user_id", "history", "title_ids"]).to_pylist() == rows


def test_long_lists_are_decoded_in_small_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = pq.ParquetFile(write(tmp_path / "a.parquet", [request(titles=1000)] * 10, "requests"))
    assert limits.batch_rows(file.metadata, 8) == 8
    monkeypatch.setattr(limits, "_BATCH_VALUES", 2000)
    assert limits.batch_rows(file.metadata, 8) == 2


TEXTS = st.text(max_size=40)
LISTS = st.none() | st.lists(st.none() | TEXTS, max_size=4)
ITEMS = st.none() | st.fixed_dictionaries({"title_name": st.none() | TEXTS, "genres": LISTS})


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.fixed_dictionaries(
            {"user_id": TEXTS, "history": st.none() | st.lists(ITEMS, max_size=5), "title_ids": LISTS}
        ),
        max_size=9,
    )
)
def test_rows_within_the_limits_are_read_as_they_are(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]
) -> None:
    file = write(tmp_path_factory.mktemp("rows") / "a.parquet", rows, "requests", row_group_size=4)
    wide = CheckedReader([file], "requests").all()
    plain = pq.read_table(file)
    assert wide.read.to_pylist() == plain.to_pylist()
    few = CheckedReader([file], "requests", limits=FEW).all()
    assert few.valid.num_rows + few.invalid.num_rows == len(rows)
    kept = few.valid["row"].to_pylist()
    assert few.valid.select(plain.column_names).to_pylist() == plain.take(pa.array(kept, pa.int64())).to_pylist()


def test_texts_that_are_bytes_are_cut_too(tmp_path: Path) -> None:
    table = pa.table({"artwork_id": ["a", "b", "c"], "title_id": ["t"] * 3, "caption": [b"x", b"y" * 40, b"z"]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=1)
    reader = CheckedReader([str(tmp_path / "a.parquet")], "artworks", table.column_names, limits=FEW)
    batch = reader.all()
    assert batch.valid["artwork_id"].to_pylist() == ["a", "c"]
    assert batch.invalid["reason"].to_pylist() == ["a text of more than 30 bytes (--max-text-bytes)"]
