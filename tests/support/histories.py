"""Histories as the schema has them."""

import datetime
from typing import Any

import pyarrow as pa

from artsel_ray.schema import HISTORY


def item(day: int, name: str = "Heat", genres: list[str] | None = None, watch: float | None = 60.0) -> dict[str, Any]:
    """Returns an interaction of May 2024."""
    moment = datetime.datetime(2024, 5, day, tzinfo=datetime.UTC)
    return {"timestamp": moment, "title_name": name, "genres": genres or ["Crime"], "watch_seconds": watch}


def history(*rows: list[dict[str, Any]] | None) -> pa.Array:
    """Returns the histories of rows of interactions."""
    return pa.array(rows, HISTORY)
