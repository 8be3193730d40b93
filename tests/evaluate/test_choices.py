import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from artsel_ray import schema, storage
from artsel_ray.errors import InputError
from artsel_ray.evaluate.choices import count_invalid, read_choices, read_oracle
from artsel_ray.evaluate.example_table import ExampleTable, read_examples
from tests.support.evaluation_tables import prediction, write


@pytest.fixture
def table(small: Path) -> ExampleTable:
    return read_examples(str(small / "examples/test"))


def oracle(path: Path, rows: list[tuple[str, str, list[str], list[float], list[float]]]) -> str:
    storage.write_table(
        str(path / "oracle/part-0.parquet"),
        pa.Table.from_pylist([dict(zip(schema.ORACLE.names, row, strict=True)) for row in rows], schema.ORACLE),
        "oracle",
    )
    return str(path / "oracle")


def test_joins_by_pair(small: Path, table: ExampleTable) -> None:
    choices = read_choices(str(small / "predictions"), table)
    assert choices.hit_n(table).tolist() == [1, 1, 0, 0]
    assert choices.missing_n.tolist() == [False, False, False, True]
    assert (choices.unknown_artwork, choices.other) == (0, 1)
    np.testing.assert_array_equal(choices.probability_n, [0.9, np.nan, np.nan, np.nan])


def test_artwork_of_another_title_is_no_candidate(small: Path, table: ExampleTable) -> None:
    file = small / "predictions/part-0.parquet"
    rows = pq.read_table(file).to_pylist()
    rows[0]["artwork_id"], rows[1]["artwork_id"], rows[2]["artwork_id"] = "t2-0", "nowhere", "t2-1"
    pq.write_table(pa.Table.from_pylist(rows, schema.PREDICTIONS.remove_metadata()).cast(nullable()), file)
    choices = read_choices(str(small / "predictions"), table)
    assert choices.unknown_artwork == 3
    assert choices.hit_n(table).sum() == 0


def nullable() -> pa.Schema:
    return pa.schema([field.with_nullable(True) for field in schema.PREDICTIONS])


def test_same_pair_in_several_examples_shares_a_prediction(small: Path) -> None:
    file = small / "examples/test/part-0.parquet"
    rows = pq.read_table(file).to_pylist()
    rows.append({**rows[0], "example_id": "again", "label": 1})
    pq.write_table(pa.Table.from_pylist(rows, schema.EXAMPLES), file)
    table = read_examples(str(small / "examples/test"))
    choices = read_choices(str(small / "predictions"), table)
    assert choices.hit_n(table).tolist() == [1, 1, 0, 0, 0]


def test_a_pair_predicted_twice_is_refused(small: Path, table: ExampleTable) -> None:
    shutil.copy(small / "predictions/part-0.parquet", small / "predictions/part-1.parquet")
    with pytest.raises(InputError, match=r"3 pairs .* user_id 'u1', title_id 't1'"):
        read_choices(str(small / "predictions"), table)


@pytest.mark.parametrize("slash", ["", "/"])
def test_invalid_rows_and_hidden_files_are_ignored(small: Path, table: ExampleTable, slash: str) -> None:
    folder = small / "predictions"
    row = dict.fromkeys(schema.INVALID_ROWS.names) | {"table": "requests", "file": "f", "column": "c", "reason": "r"}
    invalid = pa.Table.from_pylist([row] * 3, schema.INVALID_ROWS)
    storage.write_table(str(folder / "rejected/part-0.parquet"), invalid, "invalid_rows")
    for name in ("_work/part-0.parquet", ".part-0.parquet.tmp.parquet"):
        storage.write_object(str(folder / name), b"not Parquet")
    assert read_choices(f"{folder}{slash}", table).hit_n(table).sum() == 2
    assert count_invalid(str(folder)) == 3


def test_one_file_is_enough(small: Path, table: ExampleTable) -> None:
    file = str(small / "predictions/part-0.parquet")
    assert read_choices(file, table).hit_n(table).sum() == 2
    assert count_invalid(file) == 0


def test_unfinished_run_is_refused_until_its_manifest_is_there(small: Path, table: ExampleTable) -> None:
    folder = str(small / "predictions")
    storage.write_json(storage.join(folder, "config.json"), {"run": {}, "config": {}})
    with pytest.raises(InputError, match="the run has not finished"):
        read_choices(folder, table)
    storage.write_manifest(folder, {"parts": ["part-0.parquet"]})
    assert read_choices(folder, table).hit_n(table).sum() == 2


def test_a_run_is_the_parts_of_its_manifest(small: Path, table: ExampleTable) -> None:
    folder = small / "predictions"
    storage.write_manifest(str(folder), {"parts": ["part-0.parquet"]})
    for other in ("copy.parquet", "old/part-0.parquet"):
        storage.write_object(str(folder / other), (folder / "part-0.parquet").read_bytes())
    assert read_choices(f"{folder}/", table).hit_n(table).sum() == 2
    storage.write_manifest(str(folder), {"parts": ["part-0.parquet", "part-7.parquet"]})
    with pytest.raises(InputError, match=r"1 of the 2 files in _manifest\.json are not there, such as .*part-7"):
        read_choices(str(folder), table)


def test_no_predictions(small: Path, table: ExampleTable) -> None:
    folder = small / "predictions"
    storage.write_table(str(folder / "part-0.parquet"), schema.PREDICTIONS.empty_table(), "predictions")
    assert read_choices(str(folder), table).missing_n.all()
    (folder / "part-0.parquet").unlink()
    with pytest.raises(InputError, match=r"no \.parquet file there"):
        read_choices(str(folder), table)
    storage.write_manifest(str(folder), {"parts": []})
    assert read_choices(str(folder), table).missing_n.all()


def test_oracle_chooses_the_likeliest_engaged_artwork(small: Path, table: ExampleTable) -> None:
    path = oracle(
        small,
        [
            # π0·p = 0.08, 0.18, in another order than the candidates': the choice is t1-0 with q = 9/13.
            ("u1", "t1", ["t1-1", "t1-0"], [0.1, 0.2], [0.8, 0.9]),
            # Liked most is t2-0, but q weighs what was shown: 0.06, 0.04, 0.04, 0.06 of 0.2, the first of equals.
            ("u1", "t2", ["t2-0", "t2-1", "t2-2", "t2-3"], [0.6, 0.1, 0.1, 0.1], [0.1, 0.4, 0.4, 0.6]),
            ("u2", "t1", ["t1-0", "t1-1"], [0.5, 0.5], [0.1, 0.9]),
            ("u9", "t1", ["t1-0"], [0.5], [1.0]),
        ],
    )
    found = read_oracle(path, table)
    assert found.hit_n(table).tolist() == [1, 0, 1, 0]
    assert found.probability_n == pytest.approx([9 / 13, 0.3, 0.9, np.nan], nan_ok=True)
    assert found.missing_n.tolist() == [False, False, False, True]
    assert found.other == 1


@pytest.mark.parametrize(
    ("liked", "shown"),
    [([0.1], [0.5, 0.5]), ([0, 0], [0.5, 0.5]), ([float("nan"), 1], [0.5, 0.5]), ([-1, 2], [0.5, 0.5])],
)
def test_broken_oracle_is_refused(small: Path, table: ExampleTable, liked: list[float], shown: list[float]) -> None:
    path = oracle(small, [("u1", "t1", ["t1-0", "t1-1"], liked, shown)])
    with pytest.raises(InputError, match="an oracle row"):
        read_oracle(path, table)


def test_an_oracle_pair_twice_is_refused(small: Path, table: ExampleTable) -> None:
    path = oracle(small, [("u1", "t1", ["t1-0", "t1-1"], [0.1, 0.2], [0.5, 0.5])] * 2)
    with pytest.raises(InputError, match=r"1 pairs occur more than once, such as user_id 'u1', title_id 't1'"):
        read_oracle(path, table)


def test_candidates_have_the_probability_and_position_of_the_predictions_list(small: Path, table: ExampleTable) -> None:
    listed = [{"artwork_id": "t1-1", "probability": 0.7}, {"artwork_id": "t1-9", "probability": 0.3}]
    write(small / "ranked", "predictions", [prediction("u1", "t1", "t1-1", 0.7) | {"candidates": listed}])
    found = read_choices(str(small / "ranked"), table, ranked=True)
    np.testing.assert_array_equal(found.probability_c[:3], [np.nan, 0.7, np.nan])
    np.testing.assert_array_equal(found.shown_position_c[:3], [np.nan, 0, np.nan])
    assert np.isnan(found.probability_c[3:]).all()
