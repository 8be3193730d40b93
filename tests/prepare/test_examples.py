"""Pairs and histories equal those of a plain Python loop."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artsel_ray import schema, storage
from artsel_ray.data.catalog import Catalog, with_source_rows
from artsel_ray.prepare import examples, stages

_FILES = {"interactions": ["i.parquet"], "impressions": ["e.parquet"]}
_CATALOG = Catalog(
    title_ids=pa.array(["t0", "t1"]),
    names=pa.array(["Zero", "Один"]),
    genres=pa.array([["Drama"], []], pa.list_(pa.string())),
    artwork_ids=pa.array(["a0", "a1", "b0", "b1", "b2"]),
    offsets=np.array([0, 2, 5]),
    other_ids=pa.array([], pa.string()),
)
_CAPTIONS = pa.array([f"caption {n}" for n in range(5)], pa.large_string())
# user, title, time, watch; few values, so that ties and repeated rows are frequent.
_INTERACTION = st.tuples(st.sampled_from("xy"), st.integers(0, 1), st.integers(0, 6), st.sampled_from([None, 1.0, 2.0]))
# user, title, label, time, engaged, propensity
_IMPRESSION = st.tuples(
    st.sampled_from("xyz"),
    st.integers(0, 1),
    st.integers(0, 1),
    st.integers(0, 6),
    st.booleans(),
    st.sampled_from([None, 0.5]),
)


def _table(rows: list[tuple], fields: dict[str, pa.DataType]) -> pa.Table:
    columns = list(zip(*rows, strict=True)) or [()] * len(fields)
    arrays = [pa.array(column, type_) for column, type_ in zip(columns, fields.values(), strict=True)]
    return with_source_rows(pa.table(arrays, names=list(fields)), 0, 0)


def _interactions(rows: list[tuple]) -> pa.Table:
    types = {"user_id": pa.string(), "title": pa.int32(), "timestamp": schema.TIMESTAMP, "watch_seconds": pa.float32()}
    return _table(rows, types)


def _impressions(rows: list[tuple]) -> pa.Table:
    types = {
        "user_id": pa.string(),
        "title": pa.int32(),
        "label": pa.int32(),
        "timestamp": schema.TIMESTAMP,
        "engaged": pa.bool_(),
        "propensity": pa.float64(),
    }
    return _table(rows, types)


def _by_hand(interactions: list[tuple], impressions: list[tuple], length: int) -> tuple[dict, int, int, int]:
    """Returns history by pair with label, and the numbers of repeated, empty and duplicate impressions."""
    events = list(dict.fromkeys(interactions))
    shown = list(dict.fromkeys(impressions))
    found: dict[tuple, tuple] = {}
    seen, repeated, empty = set(), 0, 0
    for user, title, label, time, engaged, _ in sorted(shown, key=lambda row: row[3]):
        if not engaged:
            continue
        if (user, title) in seen:
            repeated += 1
            continue
        seen.add((user, title))
        before = sorted((e for e in events if e[0] == user and e[2] < time), key=lambda e: e[2])[-length:]
        if before:
            found[user, title] = (label, time, [(e[2], e[1], e[3]) for e in before])
        else:
            empty += 1
    return found, repeated, empty, len(impressions) - len(shown)


@settings(max_examples=300, deadline=None)
@given(st.lists(_INTERACTION, max_size=25), st.lists(_IMPRESSION, max_size=15), st.integers(1, 4))
def test_pairs_equal_a_plain_loop(interactions: list[tuple], impressions: list[tuple], length: int) -> None:
    found = examples.find_pairs(_interactions(interactions), _impressions(impressions), _FILES, _CATALOG, length)
    expected, repeated, empty, duplicates = _by_hand(interactions, impressions, length)
    events = [
        (row["timestamp"].microsecond, row["title"], row["watch_seconds"]) for row in found.interactions.to_pylist()
    ]
    pairs = {
        (row["user_id"], row["title"]): (row["label"], row["timestamp"].microsecond, events[row["start"] : row["end"]])
        for row in found.pairs.to_pylist()
    }
    assert pairs == expected
    assert found.repeated == repeated
    reasons = [(row["table"], row["column"]) for row in found.invalid.to_pylist()]
    assert reasons.count(("impressions", "timestamp")) == empty
    assert reasons.count(("impressions", "row")) == duplicates
    assert reasons.count(("interactions", "row")) == len(interactions) - len(set(interactions))
    accounted = len(pairs) + repeated + found.not_engaged + empty + duplicates
    assert accounted == len(impressions)


def test_an_interaction_at_the_time_of_the_impression_is_not_history() -> None:
    impressions = _impressions([("x", 0, 1, 3, True, 0.5)])
    found = examples.find_pairs(_interactions([("x", 1, 3, 1.0)]), impressions, _FILES, _CATALOG, 5)
    assert found.pairs.num_rows == 0
    (row,) = found.invalid.to_pylist()
    assert (row["file"], row["row"], row["column"]) == ("e.parquet", 0, "timestamp")
    assert (row["user_id"], row["title_id"], row["artwork_id"]) == ("x", "t0", "a1")


def _prepared() -> examples.Pairs:
    interactions = _interactions([("x", 0, 1, 1.0), ("x", 1, 2, None), ("y", 1, 1, 2.0)])
    impressions = _impressions(
        [("x", 0, 1, 5, True, 0.5), ("x", 1, 2, 5, True, None), ("y", 1, 0, 6, True, 0.25), ("x", 0, 0, 9, False, 1.0)]
    )
    return examples.find_pairs(interactions, impressions, _FILES, _CATALOG, 5)


def test_examples_hold_names_candidates_and_label() -> None:
    found = _prepared()
    (batch,) = examples.example_batches(found.pairs, found.interactions, _CATALOG, _CAPTIONS)
    rows = {(row["user_id"], row["title_id"]): row for row in batch.to_pylist()}
    row = rows["x", "t1"]
    assert row["title_name"] == "Один"
    assert row["candidates"] == [
        {"artwork_id": "b0", "caption": "caption 2"},
        {"artwork_id": "b1", "caption": "caption 3"},
        {"artwork_id": "b2", "caption": "caption 4"},
    ]
    assert (row["label"], row["propensity"], row["reason"]) == (2, None, None)
    history = [(item["title_name"], item["genres"], item["watch_seconds"]) for item in row["history"]]
    assert history == [("Zero", ["Drama"], 1.0), ("Один", [], None)]
    assert batch["example_id"].to_pylist() == sorted(batch["example_id"].to_pylist())


def test_an_example_id_depends_on_user_title_and_time_alone() -> None:
    found = _prepared()
    ids = examples.example_ids(found.pairs, _CATALOG)
    assert len(set(ids)) == 3
    assert examples.example_ids(found.pairs.slice(1), _CATALOG) == ids[1:]


def test_titles_shown_to_a_user_at_one_time_are_one_request() -> None:
    found = _prepared()
    rows = examples.requests(found.pairs, found.interactions, _CATALOG).to_pylist()
    assert sorted((row["user_id"], sorted(row["title_ids"]), len(row["history"])) for row in rows) == [
        ("x", ["t0", "t1"], 2),
        ("y", ["t1"], 1),
    ]


def test_batches_end_where_captions_fill_them(monkeypatch: pytest.MonkeyPatch) -> None:
    found = _prepared()
    # 18 bytes of captions for t0, 27 for t1: no two of the three examples (one of t0) fit into 40 bytes.
    monkeypatch.setattr(examples, "BATCH_BYTES", 40)
    batches = list(examples.example_batches(found.pairs, found.interactions, _CATALOG, _CAPTIONS))
    assert [batch.num_rows for batch in batches] == [1, 1, 1]


def test_written_examples_are_plain_tables_that_hold_each_caption_once(tmp_path: Path) -> None:
    found = _prepared()
    batches = examples.example_batches(found.pairs, found.interactions, _CATALOG, _CAPTIONS)
    stages.write_examples(str(tmp_path), 3, batches)
    (file,) = storage.list_files(str(tmp_path))
    parquet = storage.open_parquet(file)
    assert parquet.schema_arrow.field("candidates").type.value_type == schema.CANDIDATES.value_type
    table = storage.read_table(file, "examples")
    (expected,) = examples.example_batches(found.pairs, found.interactions, _CATALOG, _CAPTIONS)
    assert table.to_pylist() == expected.to_pylist()
