"""Files are cut into slices that hold every row once; rows are counted by outcome, and a bad run stops."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from artsel_ray.data.checked_reader import RowRange, read_table
from artsel_ray.errors import InputError
from artsel_ray.prepare import plan as module
from artsel_ray.prepare.plan import (
    Counts,
    Plan,
    Slice,
    check_counts,
    find_slices,
    invalid_counts,
    summarize,
    write_invalid,
)  # fmt: skip
from artsel_ray.schema import INVALID_ROWS, TABLES

COUNTS = Counts(
    {
        "rejected/impressions/propensity: not in (0, 1]": 3,
        "rejected/impressions/user_id: missing": 1,
        "rejected/interactions/user_id: missing": 9,
        "not_engaged": 2,
        "examples/train": 4,
        "pairs": 4,
    }
)


def _write(folder: Path, table: str, name: str, rows: int, group_rows: int = 100) -> None:
    (folder / table).mkdir(exist_ok=True)
    fields = pa.schema([field.with_nullable(True) for field in TABLES[table]])
    empty = dict.fromkeys(fields.names)
    pq.write_table(pa.Table.from_pylist([empty] * rows, fields), folder / table / name, row_group_size=group_rows)


def _input_plan(folder: Path) -> Plan:
    return Plan(str(folder / "out"), *find_slices(str(folder)), 1, 5, "hash", 0, 0)


def _world(folder: Path) -> None:
    for table in ("titles", "artworks", "impressions"):
        _write(folder, table, "a.parquet", 1)
    _write(folder, "interactions", "a.parquet", 23, 4)
    _write(folder, "interactions", "b.parquet", 3, 3)


def test_logs_are_cut_between_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _world(tmp_path)
    monkeypatch.setattr(module, "SLICE_ROWS", 10)
    plan = _input_plan(tmp_path)
    # Row groups of 4, 4, 4, 4, 4, 3 rows: a slice ends with the group that brings it to 10 rows or more.
    assert plan.slices == [
        Slice("interactions", (RowRange(0, 0, 12),)),
        Slice("interactions", (RowRange(0, 12, 11),)),
        Slice("interactions", (RowRange(1, 0, 3),)),
        Slice("impressions", (RowRange(0, 0, 1),)),
    ]
    assert (plan.rows("interactions"), plan.rows("impressions")) == (26, 1)
    assert plan.files["interactions"] == [str(tmp_path / "interactions" / name) for name in ("a.parquet", "b.parquet")]


def test_small_files_share_a_slice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _world(tmp_path)
    for number in range(5):
        _write(tmp_path, "impressions", f"b{number}.parquet", 2)
    monkeypatch.setattr(module, "SLICE_ROWS", 6)
    monkeypatch.setattr(module, "GROUP_FILES", 3)
    slices = [part.ranges for part in _input_plan(tmp_path).slices if part.table == "impressions"]
    # Rows 1, 2, 2 are three files; 2, 2, 2 are six rows.
    assert slices == [
        tuple(RowRange(file, 0, rows) for file, rows in ((0, 1), (1, 2), (2, 2))),
        tuple(RowRange(file, 0, 2) for file in (3, 4, 5)),
    ]


def test_everything_wrong_in_all_tables_is_one_error(tmp_path: Path) -> None:
    _world(tmp_path)
    pq.write_table(pa.table({"title_id": ["t"], "name": ["n"], "genres": ["Drama|War"]}), tmp_path / "titles/a.parquet")
    pq.write_table(
        pa.table({"Artwork_ID": ["a"], "title_id": ["t"], "caption": ["c"]}), tmp_path / "artworks/a.parquet"
    )
    log = {"user_id": ["u"], "title_id": [1], "timestamp": pa.array([0], pa.timestamp("ns"))}
    for name in ("a", "b"):
        pq.write_table(pa.table(log), tmp_path / f"interactions/{name}.parquet")
    shown = {**log, "artwork_id": ["a"], "timestamp": [1_700_000_000], "engaged": ["yes"]}
    pq.write_table(pa.table(shown), tmp_path / "impressions/a.parquet")
    with pytest.raises(InputError) as caught:
        _input_plan(tmp_path)
    head, *lines = str(caught.value).splitlines()
    assert head == "5 columns cannot be read:"
    expected = [
        "titles/a.parquet is not a table of titles: column 'genres' is string, expected list<item: string>; in pandas: "
        'df["genres"] = df["genres"].str.split("|")',
        "artworks/a.parquet is not a table of artworks: column 'artwork_id' (string) is missing; in pandas: "
        'df = df.rename(columns={"Artwork_ID": "artwork_id"})',
        "interactions/a.parquet (and 1 more file) is not a table of interactions: column 'timestamp' is timestamp[ns], "
        "without a time zone; name it with --timezone",
        "impressions/a.parquet is not a table of impressions: column 'timestamp' is int64, expected "
        'timestamp[us, tz=UTC]; in pandas: df["timestamp"] = pd.to_datetime(df["timestamp"], unit="s", utc=True)',
        "impressions/a.parquet is not a table of impressions: column 'engaged' is string, expected bool; in pandas: "
        'df["engaged"] = df["engaged"].isin([True, 1, "1", "true", "True"])',
    ]
    for line, start in zip(lines, expected, strict=True):
        assert line.strip().startswith(f"{tmp_path}/{start}")


def test_only_the_columns_that_are_read_are_checked(tmp_path: Path) -> None:
    _world(tmp_path)
    titles = {"title_id": ["t"], "name": ["n"], "genres": [["Drama"]], "year": ["MCMXCIX"], "synopsis": [b"\xff"]}
    pq.write_table(pa.table(titles), tmp_path / "titles/a.parquet")
    artworks = {"artwork_id": ["a"], "title_id": ["t"], "caption": [1.5], "image_uri": ["x"]}
    pq.write_table(pa.table(artworks).set_column(2, "caption", [[{"a": 1}]]), tmp_path / "artworks/a.parquet")
    find_slices(str(tmp_path), "image")
    with pytest.raises(InputError, match="'caption' is struct"):
        find_slices(str(tmp_path))


def test_spill_files_are_named_by_the_slice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _world(tmp_path)
    monkeypatch.setattr(module, "GROUP_FILES", 1)
    plan = _input_plan(tmp_path)
    work = tmp_path / "out" / "_work"
    assert plan.spill_files("interactions") == [f"{work}/slice-000000.arrow", f"{work}/slice-000001.arrow"]
    assert plan.spill_files("impressions") == [f"{work}/slice-000002.arrow"]
    assert plan.spill_file("pairs", 7) == f"{work}/pairs-000007.arrow"


@pytest.mark.parametrize("table", ["interactions", "impressions"])
def test_log_without_rows_is_refused(tmp_path: Path, table: str) -> None:
    _world(tmp_path)
    for file in (tmp_path / table).iterdir():
        _write(tmp_path, table, file.name, 0)
    with pytest.raises(InputError, match=f"{table} has no rows; there is nothing to prepare"):
        _input_plan(tmp_path)


def _plan(output: str) -> Plan:
    slices = [Slice("interactions", (RowRange(0, 0, 50),)), Slice("impressions", (RowRange(0, 0, 10),))]
    return Plan(output, {}, slices, 2, 5, "hash", 0, 0)


def _invalid(*reasons: str) -> pa.Table:
    rows = [
        {"table": "titles", "file": "a", "row": n, "column": "name", "reason": reason}
        for n, reason in enumerate(reasons)
    ]
    return pa.Table.from_pylist(rows, INVALID_ROWS)


def test_invalid_rows_are_written_and_counted_by_reason(tmp_path: Path) -> None:
    counts = write_invalid(_plan(str(tmp_path)), "catalogue", _invalid("missing", "too odd", "missing"))
    assert counts == {"rejected/titles/name: missing": 2, "rejected/titles/name: too odd": 1}
    assert read_table(str(tmp_path / "rejected/part-catalogue.parquet"), "invalid_rows").num_rows == 3


def test_nothing_is_written_without_invalid_rows(tmp_path: Path) -> None:
    assert write_invalid(_plan(str(tmp_path)), "catalogue", _invalid()) == {}
    assert not list(tmp_path.iterdir())


def test_reasons_are_those_of_the_table() -> None:
    assert invalid_counts(COUNTS, "impressions") == {"propensity: not in (0, 1]": 3, "user_id: missing": 1}
    assert invalid_counts(COUNTS, "titles") == {}


def test_more_invalid_impressions_than_the_rate_stop_the_run() -> None:
    check_counts(_plan("out"), COUNTS, 0.4)
    message = (
        r"^4 of 10 impressions were rejected, more than --max-reject-rate 0\.39 allows; the most frequent reason is "
        r"'propensity: not in \(0, 1\]' \(3\), and all of them are in out/rejected\. Fix the data or raise the limit$"
    )
    with pytest.raises(InputError, match=message):
        check_counts(_plan("out"), COUNTS, 0.39)


def test_run_without_pairs_stops() -> None:
    message = (
        "none of 10 impressions can become an example: 2 were not engaged with, 4 were rejected; the reasons are in"
    )
    with pytest.raises(InputError, match=message):
        check_counts(_plan("out"), Counts({**COUNTS, "pairs": 0}), 1.0)


def test_summary_holds_every_outcome() -> None:
    assert summarize(_plan("out"), COUNTS) == {
        "impressions": 10,
        "examples": {"train": 4, "validation": 0, "test": 0},
        "other_kind": 0,
        "not_engaged": 2,
        "repeated": 0,
        "not_selected": 0,
        "rejected": {"titles": 0, "artworks": 0, "interactions": 9, "impressions": 4},
        "reasons": {
            "titles": {},
            "artworks": {},
            "interactions": {"user_id: missing": 9},
            "impressions": {"propensity: not in (0, 1]": 3, "user_id: missing": 1},
        },
        "interactions": 50,
        "requests": 0,
        "buckets": 2,
    }
