"""Rows of examples, predictions and logs, and how tests write them: through the project's own schemas."""

import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from artsel_ray import schema, storage

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def example(user: str, title: str, artworks: list[str], label: int, propensity: float | None = None) -> dict[str, Any]:
    return {
        "example_id": f"{user}/{title}",
        "user_id": user,
        "title_id": title,
        "title_name": "a name",
        "title_genres": [],
        "history": [],
        "candidates": [{"artwork_id": artwork, "caption": "a secret caption"} for artwork in artworks],
        "label": label,
        "propensity": propensity,
        "timestamp": NOW,
        "rationale": None,
    }


def prediction(user: str, title: str, artwork: str, probability: float | None = None) -> dict[str, Any]:
    return {
        "user_id": user,
        "title_id": title,
        "artwork_id": artwork,
        "probability": probability,
        "candidates": None,
        "rationale": None,
        "model_id": "m",
        "fingerprint": "f",
        "scored_at": NOW,
    }


def write(path: Path, name: str, rows: list[dict[str, Any]]) -> str:
    storage.write_table(str(path / "part-0.parquet"), pa.Table.from_pylist(rows, schema.TABLES[name]), name)
    return str(path)


def impression(user: str, title: str, artwork: str, engaged: bool, propensity: float | None) -> dict[str, Any]:
    ids = {"user_id": user, "title_id": title, "artwork_id": artwork, "timestamp": NOW}
    return ids | {"engaged": engaged, "propensity": propensity}


def ranked(user: str, title: str, probabilities: list[float]) -> dict[str, Any]:
    """A prediction with all candidates' probabilities, which chooses the most likely one."""
    listed = [{"artwork_id": f"{title}-{index}", "probability": each} for index, each in enumerate(probabilities)]
    best = probabilities.index(max(probabilities))
    return prediction(user, title, f"{title}-{best}", probabilities[best]) | {"candidates": listed}


def write_small(folder: Path) -> None:
    """Writes four examples of two users and predictions, worked out by hand in the tests that use them.

    | user | title | m | truth | propensity | prediction |
    |------|-------|---|-------|------------|------------|
    | u1   | t1    | 2 | t1-0  | 0.8        | t1-0, hit  |
    | u1   | t2    | 4 | t2-3  | 0.1        | t2-3, hit  |
    | u2   | t1    | 2 | t1-1  | 0.2        | t1-0, miss |
    | u2   | t2    | 4 | t2-0  | 0.5        | none       |
    """
    two, four = ["t1-0", "t1-1"], ["t2-0", "t2-1", "t2-2", "t2-3"]
    examples = [
        example("u1", "t1", two, 0, 0.8),
        example("u1", "t2", four, 3, 0.1),
        example("u2", "t1", two, 1, 0.2),
        example("u2", "t2", four, 0, 0.5),
    ]
    predictions = [
        prediction("u1", "t1", "t1-0", 0.9),
        prediction("u1", "t2", "t2-3"),
        prediction("u2", "t1", "t1-0"),
        prediction("u9", "t1", "t1-0"),
    ]
    write(folder / "examples/test", "examples", examples)
    write(folder / "predictions", "predictions", predictions)
