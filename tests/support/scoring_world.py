"""A small catalog with requests, written as a user would bring them."""

import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from artsel_ray import schema, storage
from artsel_ray.config import from_flags
from artsel_ray.score.settings import ScoreConfig

DAY = datetime.datetime(2024, 5, 1, tzinfo=datetime.UTC)
CAPTIONS = {
    "t1": ["A red tower.", "Two friends laugh by the sea.", "Two friends fight in the rain."],
    "t2": ["A lonely house."],
    "t3": ["The same words.", "The same words.", "The same"],
    "t4": [],
}
PAIRS = sorted((f"u{part}{i}", title) for part in range(2) for i in range(6) for title in ("t1", ("t2", "t3")[i % 2]))

Row = tuple[str | None, list[dict[str, Any]], list[str] | list[str | None] | None]
"""user_id, history and title_ids of a request."""


def make_history(days: int) -> list[dict[str, Any]]:
    """Makes a history with one film a day."""
    return [
        {
            "timestamp": DAY + datetime.timedelta(days=day),
            "title_name": f"Film {day}",
            "genres": ["Drama"],
            "watch_seconds": 600.0,
        }
        for day in range(days)
    ]


def write_requests(uri: str, rows: list[Row]) -> None:
    """Writes requests as one file, nulls included."""
    columns = {name: [row[index] for row in rows] for index, name in enumerate(schema.REQUESTS.names)}
    fields = [field.with_nullable(True) for field in schema.REQUESTS]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns, schema=pa.schema(fields)), sink)
    storage.write_object(uri, sink.getvalue())


def write_scoring_world(folder: Path) -> None:
    """Writes titles/, artworks/ and requests/: 12 users who ask for two of the titles each, which are `PAIRS`."""
    titles = {"title_id": list(CAPTIONS), "name": [f"Name of {title}" for title in CAPTIONS], "genres": [["Crime"]] * 4}
    titles |= {"year": [None] * 4, "synopsis": [None] * 4}
    storage.write_table(str(folder / "titles/a.parquet"), pa.table(titles), "titles")
    artworks = [(f"{title}-{i}", title, caption) for title, all_ in CAPTIONS.items() for i, caption in enumerate(all_)]
    rows_of_artworks = [dict(zip(schema.ARTWORKS.names, artwork, strict=False)) for artwork in artworks]
    table = pa.Table.from_pylist(rows_of_artworks, schema.ARTWORKS)
    storage.write_table(str(folder / "artworks/a.parquet"), table, "artworks")
    for part in range(2):
        rows: list[Row] = [(f"u{part}{i}", make_history(i), ["t1", ("t2", "t3")[i % 2]]) for i in range(6)]
        write_requests(str(folder / f"requests/part-{part}.parquet"), rows)


def score_config(world: Path, **flags: Any) -> ScoreConfig:
    """Returns a config that scores a world into P/ with the fake engine, changed by flags."""
    tables = {name: str(world / name) for name in ("requests", "titles", "artworks")}
    defaults = {"output": str(world / "P"), "model": "smollm2", "engine": "fake"}
    return from_flags(ScoreConfig, **tables | defaults | flags)
