"""Rows are counted by what became of them, and a run stops where too many are invalid."""

from pathlib import Path

import pyarrow as pa
import pytest

from artsel_ray.data.checked_reader import RowRange, read_table
from artsel_ray.errors import InputError
from artsel_ray.prepare.outcomes import Counts, check_counts, invalid_counts, summarize, write_invalid
from artsel_ray.prepare.plan import Plan, Slice
from artsel_ray.schema import INVALID_ROWS

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


def _plan(output: str) -> Plan:
    slices = [Slice("interactions", RowRange(0, 0, 50)), Slice("impressions", RowRange(0, 0, 10))]
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
