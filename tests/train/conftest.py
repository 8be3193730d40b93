"""A few examples as prepare writes them."""

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from artsel_ray import storage
from artsel_ray.schema import EXAMPLES

DAY = datetime.datetime(2024, 5, 1, tzinfo=datetime.UTC)
CAPTIONS = ["A red tower.", "Two friends laugh by the sea.", "A lonely house."]


def row(number: int, label: int = 1, captions: list[str] = CAPTIONS, **changes: Any) -> dict[str, Any]:
    item = {"timestamp": DAY, "title_name": "Heat", "genres": ["Crime"], "watch_seconds": 60.0}
    return {
        "example_id": f"e{number}", "user_id": f"u{number}", "title_id": "t", "title_name": "Up",
        "title_genres": ["Comedy"], "history": [item] * number,
        "candidates": [{"artwork_id": f"a{place}", "caption": caption} for place, caption in enumerate(captions)],
        "label": label, "propensity": None, "timestamp": DAY, "reason": None, **changes,
    }  # fmt: skip


def write(folder: Path, rows: list[dict[str, Any]]) -> str:
    storage.write_table(str(folder / "a.parquet"), pa.Table.from_pylist(rows, EXAMPLES), "examples")
    return str(folder)


@pytest.fixture(name="row")
def row_fixture() -> Callable[..., dict[str, Any]]:
    """Makes one example with a history of `number` items."""
    return row


@pytest.fixture(name="write")
def write_fixture() -> Callable[[Path, list[dict[str, Any]]], str]:
    """Writes examples into a folder and returns it."""
    return write


@pytest.fixture
def examples(tmp_path: Path) -> str:
    """D/examples: eight to learn from, four to validate with; who has a longer history likes another artwork."""
    rows = [row(1 + number // 4, label=number // 4, example_id=f"e{number}") for number in range(8)]
    write(tmp_path / "examples/train", rows)
    write(tmp_path / "examples/validation", rows[2:6])
    return str(tmp_path / "examples")
