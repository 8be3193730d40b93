from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from artsel_ray.errors import InputError
from artsel_ray.evaluate.example_table import ExampleTable, read_examples, read_train
from artsel_ray.schema import EXAMPLES
from tests.support.evaluation_tables import example, write

CANDIDATES = pa.list_(pa.struct([("artwork_id", pa.string()), ("caption", pa.string())]))


def replace(path: Path, column: str, values: list) -> None:
    """Rewrites one column of a folder's one Parquet file."""
    (file,) = path.glob("*.parquet")
    table = pq.read_table(file)
    index = table.schema.get_field_index(column)
    type_ = table.schema.field(column).type
    pq.write_table(table.set_column(index, pa.field(column, type_), pa.array(values, type_)), file)


def test_numbers_examples(small: Path) -> None:
    table = read_examples(str(small / "examples/test"))
    assert (table.users.to_pylist(), table.titles.to_pylist()) == (["u1", "u2"], ["t1", "t2"])
    assert table.examples.candidates_n.tolist() == [2, 4, 2, 4]
    assert [str(table.artworks[artwork]) for artwork in table.truth_n] == ["t1-0", "t2-3", "t1-1", "t2-0"]
    np.testing.assert_allclose(table.examples.propensity_n, [0.8, 0.1, 0.2, 0.5])


def test_captions_and_histories_are_not_read(small: Path) -> None:
    (file,) = (small / "examples/test").glob("*.parquet")
    table = pq.read_table(file).drop_columns(["history", "title_name"])
    broken = pc.cast(pa.array([b"\xff"] * 12), options=pc.CastOptions(pa.string(), allow_invalid_utf8=True))
    lists = table["candidates"].combine_chunks()
    items = pa.StructArray.from_arrays([lists.flatten().field("artwork_id"), broken], ["artwork_id", "caption"])
    lists = pa.ListArray.from_arrays(lists.offsets, items)
    pq.write_table(table.set_column(table.schema.get_field_index("candidates"), "candidates", lists), file)
    assert read_examples(str(small / "examples/test")).invalid.num_rows == 0


def test_ids_are_enough(small: Path) -> None:
    file = small / "examples/test/part-0.parquet"
    table = pq.read_table(file)
    lists = table["candidates"].combine_chunks()
    ids = pa.StructArray.from_arrays([lists.flatten().field("artwork_id")], ["artwork_id"])
    index = table.schema.get_field_index("candidates")
    table = table.set_column(index, "candidates", pa.ListArray.from_arrays(lists.offsets, ids))
    pq.write_table(table.drop_columns(["image_uris"]), file)
    assert read_examples(str(file.parent)).examples.duplicates_n.tolist() == [1, 1, 1, 1]


def test_images_are_no_duplicates_whatever_their_captions(small: Path) -> None:
    file = small / "examples/test/part-0.parquet"
    table = pq.read_table(file)
    rows = table.to_pylist()
    for row in rows:
        captions = ["A", "A", "B", "C"][: len(row["candidates"])]
        row["candidates"] = [each | {"caption": text} for each, text in zip(row["candidates"], captions, strict=True)]
    shown = read_again(file, rows)
    # Both of t1 read the same: there the artworks are compared.
    assert shown.examples.duplicates_n.tolist() == [1, 1, 1, 2]
    images = [row | {"image_uris": ["i"] * len(row["candidates"])} for row in rows]
    assert read_again(file, images).examples.duplicates_n.tolist() == [1, 1, 1, 1]


def read_again(file: Path, rows: list[dict[str, Any]]) -> ExampleTable:
    pq.write_table(pa.Table.from_pylist(rows, EXAMPLES), file)
    return read_examples(str(file.parent))


def test_rows_that_cannot_be_evaluated_are_invalid_with_a_reason(small: Path) -> None:
    folder = small / "examples/test"
    two = [{"artwork_id": "t1-0", "caption": None}, {"artwork_id": None, "caption": None}]
    replace(folder, "candidates", [two, [], None, [{"artwork_id": "t2-0", "caption": "x"}]])
    replace(folder, "label", [0, 0, 0, 1])
    with pytest.raises(InputError, match="no example to evaluate \\(4 rows are invalid\\)"):
        read_examples(str(folder))
    replace(folder, "label", [0, 0, 0, 0])
    table = read_examples(str(folder))
    assert table.invalid.select(["row", "column", "reason", "user_id"]).to_pylist() == [
        {"row": 0, "column": "candidates", "reason": "a candidate without an id", "user_id": "u1"},
        {"row": 1, "column": "candidates", "reason": "no candidate", "user_id": "u1"},
        {"row": 2, "column": "candidates", "reason": "no candidate", "user_id": "u2"},
    ]
    assert table.examples.candidates_n.tolist() == [1]


@pytest.mark.parametrize("label", [-1, 2, None, 2**31 - 1])
def test_label_outside_the_candidates_is_invalid(small: Path, label: int | None) -> None:
    replace(small / "examples/test", "label", [label, 3, 1, 0])
    table = read_examples(str(small / "examples/test"))
    assert table.invalid["column"].to_pylist() == ["label"]
    assert table.examples.candidates_n.tolist() == [4, 2, 4]


def test_unusable_propensities_are_not_known(small: Path) -> None:
    replace(small / "examples/test", "propensity", [float("nan"), 0.0, None, 1.0])
    table = read_examples(str(small / "examples/test"))
    np.testing.assert_array_equal(table.examples.propensity_n, [np.nan, np.nan, np.nan, 1.0])
    assert table.invalid_propensities == 1  # the zero; NaN and null say that it is not known
    replace(small / "examples/test", "propensity", [-0.5, 1.5, float("inf"), 0.3])
    assert read_examples(str(small / "examples/test")).invalid_propensities == 3


def test_an_example_twice_is_refused(small: Path) -> None:
    replace(small / "examples/test", "example_id", ["a", "b", "a", "c"])
    with pytest.raises(InputError, match="'a'"):
        read_examples(str(small / "examples/test"))


def test_order_of_rows_changes_no_number(small: Path) -> None:
    first = read_examples(str(small / "examples/test"))
    (file,) = (small / "examples/test").glob("*.parquet")
    pq.write_table(pq.read_table(file).take([3, 1, 0, 2]), file)
    second = read_examples(str(small / "examples/test"))
    assert second.examples.user_n.tolist() == first.examples.user_n[[3, 1, 0, 2]].tolist()
    assert second.pair_n.tolist() == first.pair_n[[3, 1, 0, 2]].tolist()


def test_counts_engagements(small: Path) -> None:
    # The examples as their own train set: of t1 each artwork once; of t2 the last and the first once.
    table = read_examples(str(small / "examples/test"))
    train = read_train(str(small / "examples/test"), table)
    assert train.engagements_c.tolist() == [1, 1, 1, 0, 0, 1, 1, 1, 1, 0, 0, 1]
    assert not train.is_new_n.any()


def test_titles_without_a_train_example_are_new(small: Path) -> None:
    table = read_examples(str(small / "examples/test"))
    rows = [example("v", "t2", ["t2-0", "t2-1"], 0), example("v", "t9", ["t9-0"], 0)]
    train = read_train(write(small / "train", "examples", rows), table)
    assert train.is_new_n.tolist() == [table.titles[title].as_py() != "t2" for title in table.title_n]
    assert set(train.is_new_n) == {False, True}


def test_broken_parquet_and_missing_column_are_named(small: Path) -> None:
    file = small / "examples/test/part-0.parquet"
    pq.write_table(pq.read_table(file).drop_columns("label"), file)
    with pytest.raises(InputError, match="column 'label' \\(int32\\) is missing"):
        read_examples(str(small / "examples/test"))
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(InputError, match=r"part-0\.parquet as Parquet"):
        read_examples(str(small / "examples/test"))


def test_large_and_dictionary_types_are_read(small: Path) -> None:
    file = small / "examples/test/part-0.parquet"
    table = pq.read_table(file)
    ids = table["user_id"].cast(pa.large_string())
    wide = table["candidates"].cast(pa.large_list(CANDIDATES.value_type))
    table = table.set_column(table.schema.get_field_index("user_id"), "user_id", ids)
    table = table.set_column(table.schema.get_field_index("candidates"), "candidates", wide)
    table = table.set_column(
        table.schema.get_field_index("title_id"), "title_id", table["title_id"].dictionary_encode()
    )
    pq.write_table(table, file)
    assert read_examples(str(small / "examples/test")).users.to_pylist() == ["u1", "u2"]
