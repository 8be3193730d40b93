"""Small splits of examples for the network's tests, whose users engage with one genre's artworks."""

import dataclasses
import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from artsel_ray import schema
from artsel_ray.baseline.trials import Recipe
from artsel_ray.network.towers import Sizes
from artsel_ray.network.vocabulary import Vocabulary

NOW = datetime.datetime(2026, 3, 1, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)
Candidates = Sequence[tuple[str | None, str | None]]
GENRES = [("Comedy", "a funny clown laughs"), ("Thriller", "a dark knife at night")]
RECIPE = Recipe(Sizes(0, 0, 0, 16, 0.5), (0.03,), (0.01,), epochs=6, batch_size=32, seed=0)


def watched(name: str, genres: list[str] | None, days_ago: float, seconds: float | None) -> dict[str, Any]:
    return {"timestamp": NOW - days_ago * DAY, "title_name": name, "genres": genres, "watch_seconds": seconds}


def example(user: str, title: str, label: int, candidates: Candidates, **changes: Any) -> dict[str, Any]:
    row = {
        "example_id": f"{user}-{title}",
        "user_id": user,
        "title_id": title,
        "title_name": title.upper(),
        "title_genres": ["Drama"],
        "history": [],
        "candidates": [{"artwork_id": artwork, "caption": caption} for artwork, caption in candidates],
        "label": label,
        "propensity": 1 / max(len(candidates), 1),
        "timestamp": NOW,
    }
    return {**row, **changes}


def write_examples(folder: Path, rows: list[dict[str, Any]]) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    nullable = pa.schema([field.with_nullable(True) for field in schema.EXAMPLES])
    pq.write_table(pa.Table.from_pylist(rows, nullable), folder / "part-0.parquet")
    return str(folder)


def genre_fans(count: int, seed: int, titles: str = "t") -> list[dict[str, Any]]:
    """Examples of users who engage with the artwork of the genre that they watch; nobody likes the third one."""
    rng = np.random.default_rng(seed)
    rows = []
    for n in range(count):
        liked, title = int(rng.integers(2)), f"{titles}{rng.integers(8)}"
        genre = GENRES[liked][0]
        history = [watched(f"{genre} {rng.integers(5)}", [genre], 9 - past, 600.0) for past in range(3)]
        captions = [*(caption for _, caption in GENRES), "plain letters"]
        candidates = [(f"{title}-{index}", caption) for index, caption in enumerate(captions)]
        rows.append(example(f"{titles}-u{seed}-{n}", title, liked, candidates, history=history))
    return rows


def sized(vocabulary: Vocabulary, recipe: Recipe = RECIPE) -> Recipe:
    """Returns the recipe for a network of the vocabulary's size."""
    sizes = dataclasses.replace(
        recipe.sizes, artworks=len(vocabulary.artwork_ids), names=len(vocabulary.names), genres=len(vocabulary.genres)
    )
    return dataclasses.replace(recipe, sizes=sizes)


def silent(line: str) -> None:
    """Logs nothing."""
