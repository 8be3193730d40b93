"""Finished scoring runs with known user segments."""

import datetime
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from artsel_ray import schema, storage
from artsel_ray.audience.scored_run import ScoredRun, read_scored_run
from artsel_ray.data.catalog import Catalog, read_catalog
from artsel_ray.runtime.run import finished_parts

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
CAPTIONS = {"fear": "A hand at the door.", "love": "Two lovers <b>kiss</b>.", "plain": "The title in white."}


def read_tables(folder: Path) -> Catalog:
    """Returns the catalog of a run's tables."""
    titles, artworks = (storage.list_files(str(folder / name)) for name in ("titles", "artworks"))
    return read_catalog(titles, artworks)[0]


def read_ranked_run(folder: Path) -> ScoredRun:
    """Returns a run's predictions with their divergences, and what its users watch."""
    requests, parts = storage.list_files(str(folder / "requests")), finished_parts(str(folder / "predictions"))
    return read_scored_run(parts, requests, read_tables(folder), ranked=True)


def write_scored_run(
    folder: Path, users: int, choose: Callable[[str, int], dict[str, float]], rationale: bool = False
) -> None:
    """Writes titles, artworks, requests and ranked predictions of `users` users for one title.

    Half of them watch Horror, half Romance, and all of them Drama too.

    Args:
        choose: from a user's genre and number to the candidates' probabilities.
        rationale: whether the model gave one: with screams, or with kisses.
    """
    title = {"title_id": "t", "name": "The <i>House</i>", "genres": ["Drama"]}
    storage.write_table(str(folder / "titles/a.parquet"), pa.Table.from_pylist([title], schema.TITLES), "titles")
    artworks = [{"artwork_id": name, "title_id": "t", "caption": caption} for name, caption in CAPTIONS.items()]
    storage.write_table(str(folder / "artworks/a.parquet"), pa.Table.from_pylist(artworks, schema.ARTWORKS), "artworks")
    requests, predictions = [], []
    random = np.random.default_rng(0)
    for number in range(users):
        genre = ("Horror", "Romance")[number % 2]
        watched = [genre] * int(random.integers(4, 8)) + ["Drama"] * int(random.integers(2, 6))
        history = [{"timestamp": NOW, "title_name": "X", "genres": [each]} for each in watched]
        requests.append({"user_id": f"u{number}", "history": history, "title_ids": ["t"]})
        probabilities = choose(genre, number)
        best = max(probabilities, key=lambda artwork: probabilities[artwork])
        text = f"They like {'screams' if genre == 'Horror' else 'kisses'} and number {number}." if rationale else None
        predictions.append(
            {
                "user_id": f"u{number}", "title_id": "t", "artwork_id": best, "probability": probabilities[best],
                "candidates": [{"artwork_id": name, "probability": p} for name, p in probabilities.items()],
                "rationale": text, "model_id": "m", "fingerprint": "f", "scored_at": NOW,
            }
        )  # fmt: skip
    table = pa.Table.from_pylist(requests, schema.REQUESTS)
    storage.write_table(str(folder / "requests/a.parquet"), table, "requests")
    run = pa.Table.from_pylist(predictions, schema.PREDICTIONS)
    storage.write_table(str(folder / "predictions/part-000000.parquet"), run, "predictions")
    storage.write_json(str(folder / "predictions/config.json"), {"run": {"prompt": {"asset_kind": "artwork"}}})
    storage.write_manifest(str(folder / "predictions"), {"parts": ["part-000000.parquet"]})


def serve_only_lovers(genre: str, number: int) -> dict[str, float]:
    """Returns the probabilities of a run that knows what to choose for users who watch Romance alone."""
    if genre == "Romance":
        return {"fear": 0.05, "love": 0.9, "plain": 0.05}
    return {"fear": 0.3 + number / 10_000, "love": 0.4, "plain": 0.3}
