"""Examples and requests hold what the catalog and the logs say of their pairs."""

import dataclasses
from pathlib import Path

import pyarrow as pa
import pytest

from artsel_ray import schema, storage
from artsel_ray.data.checked_reader import read_table
from artsel_ray.prepare import examples
from artsel_ray.prepare.pairs import Pairs, find_pairs
from artsel_ray.prepare.plan import Counts
from tests.prepare.events import CATALOG, FILES, impressions_table, interactions_table


def _prepared() -> Pairs:
    interactions = interactions_table([("x", 0, 1, 1.0), ("x", 1, 2, None), ("y", 1, 1, 2.0)])
    impressions = impressions_table(
        [("x", 0, 1, 5, True, 0.5), ("x", 1, 2, 5, True, None), ("y", 1, 0, 6, True, 0.25), ("x", 0, 0, 9, False, 1.0)]
    )
    return find_pairs(interactions, impressions, FILES, CATALOG, 5)


def test_examples_hold_names_candidates_and_label() -> None:
    found = _prepared()
    (batch,) = examples.example_batches(found.pairs, found.interactions, CATALOG)
    rows = {(row["user_id"], row["title_id"]): row for row in batch.to_pylist()}
    row = rows["x", "t1"]
    assert row["title_name"] == "Один"
    assert row["candidates"] == [
        {"artwork_id": "b0", "caption": "caption 2"},
        {"artwork_id": "b1", "caption": "caption 3"},
        {"artwork_id": "b2", "caption": "caption 4"},
    ]
    assert (row["label"], row["propensity"], row["rationale"]) == (2, None, None)
    history = [(item["title_name"], item["genres"], item["watch_seconds"]) for item in row["history"]]
    assert history == [("Zero", ["Drama"], 1.0), ("Один", [], None)]
    assert batch["example_id"].to_pylist() == sorted(batch["example_id"].to_pylist())


def test_example_id_depends_on_user_title_and_time_only() -> None:
    found = _prepared()
    ids = examples.example_ids(found.pairs, CATALOG)
    assert len(set(ids)) == 3
    assert examples.example_ids(found.pairs.slice(1), CATALOG) == ids[1:]


def test_titles_shown_to_a_user_at_one_time_are_one_request() -> None:
    found = _prepared()
    rows = examples.requests(found.pairs, found.interactions, CATALOG).to_pylist()
    assert sorted((row["user_id"], sorted(row["title_ids"]), len(row["history"])) for row in rows) == [
        ("x", ["t0", "t1"], 2),
        ("y", ["t1"], 1),
    ]


def test_batch_ends_where_captions_exceed_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    found = _prepared()
    # 18 bytes of captions for t0, 27 for t1: no two of the three examples (one of t0) fit into 40 bytes.
    monkeypatch.setattr(examples, "BATCH_BYTES", 40)
    batches = list(examples.example_batches(found.pairs, found.interactions, CATALOG))
    assert [batch.num_rows for batch in batches] == [1, 1, 1]


def test_written_examples_are_tables_of_plain_strings(tmp_path: Path) -> None:
    found = _prepared()
    batches = examples.example_batches(found.pairs, found.interactions, CATALOG)
    examples.write_examples(str(tmp_path), 3, batches)
    (file,) = storage.list_files(str(tmp_path))
    parquet = storage.open_parquet(file)
    assert parquet.schema_arrow.field("candidates").type.value_type == schema.CANDIDATES.value_type
    table = read_table(file, "examples")
    (expected,) = examples.example_batches(found.pairs, found.interactions, CATALOG)
    assert table.to_pylist() == expected.to_pylist()


def test_images_go_into_their_own_column() -> None:
    found = _prepared()
    images = dataclasses.replace(CATALOG, contents=pa.array([f"s3://b/{n}.png" for n in range(5)], pa.large_string()))
    (batch,) = examples.example_batches(found.pairs, found.interactions, images, "image")
    rows = {(row["user_id"], row["title_id"]): row for row in batch.to_pylist()}
    assert rows["x", "t0"]["image_uris"] == ["s3://b/0.png", "s3://b/1.png"]
    assert rows["x", "t0"]["candidates"] == [
        {"artwork_id": "a0", "caption": None},
        {"artwork_id": "a1", "caption": None},
    ]


def test_parts_end_after_a_number_of_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = _prepared()
    monkeypatch.setattr(examples, "BATCH_ROWS", 1)
    monkeypatch.setattr(examples, "_PART_BATCHES", 2)
    examples.write_examples(str(tmp_path), 7, examples.example_batches(found.pairs, found.interactions, CATALOG))
    assert [file.rpartition("/")[2] for file in storage.list_files(str(tmp_path))] == [
        "part-000007-000.parquet",
        "part-000007-001.parquet",
    ]
    assert read_table(str(tmp_path), "examples").num_rows == 3


def test_splits_without_examples_are_tables_without_rows(tmp_path: Path) -> None:
    examples.write_empty_splits(str(tmp_path), Counts({"examples/train": 3, "examples/test": 0}))
    assert not (tmp_path / "examples/train").exists()
    for folder, table in (
        ("examples/test", "examples"),
        ("examples/validation", "examples"),
        ("requests/test", "requests"),
    ):
        assert read_table(str(tmp_path / folder), table).num_rows == 0
