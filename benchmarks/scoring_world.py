"""Made-up catalogs and requests of any size, for the benchmarks of scoring."""

import random
from pathlib import Path

import numpy as np
import pyarrow as pa

from artsel_ray import schema, storage
from artsel_ray.simulate.artworks import CaptionStyle, write_caption

_USERS_PER_FILE = 10_000
_FILMS = 5_000


def write_world(
    folder: Path,
    pairs: int,
    titles: int,
    candidates: tuple[int, int] = (20, 20),
    tokens: int = 200,
    wanted: int = 10,
    items: int = 50,
) -> None:
    """Writes titles/, artworks/ and requests/, with one file of requests for each 10,000 users.

    Args:
        pairs: of all requests.
        candidates: of the first and of the last title; the others lie evenly between.
        tokens: of a caption, roughly.
        wanted: titles that a user requests.
        items: interactions in a history.
    """
    rng = random.Random(0)
    ids = [f"t{number:06d}" for number in range(titles)]
    rows = {"title_id": ids, "name": [f"Film of the year {n}" for n in range(titles)], "genres": [["Drama"]] * titles}
    empty = {"year": pa.nulls(titles, pa.int32()), "synopsis": pa.nulls(titles, pa.string())}
    storage.write_table(str(folder / "titles/a.parquet"), pa.table({**rows, **empty}), "titles")
    counts = np.linspace(*candidates, titles).round().astype(int)
    mixes = np.random.default_rng(0).dirichlet(np.full(12, 0.3), int(counts.sum()))
    artworks = {
        "artwork_id": [f"{title}-{n:02d}" for title, count in zip(ids, counts, strict=True) for n in range(count)],
        "title_id": np.repeat(ids, counts),
        "caption": [write_caption(mix, CaptionStyle(tokens, 0.3), rng) for mix in mixes],
    }
    storage.write_table(str(folder / "artworks/a.parquet"), pa.table(artworks), "artworks")
    users = pairs // wanted
    for first in range(0, users, _USERS_PER_FILE):
        table = _requests(first, min(_USERS_PER_FILE, users - first), ids, wanted, items)
        storage.write_table(str(folder / f"requests/part-{first:08d}.parquet"), table, "requests")


def _requests(first: int, users: int, title_ids: list[str], wanted: int, items: int) -> pa.Table:
    rng = np.random.default_rng([1, first])
    seconds = np.sort(rng.integers(0, 365 * 86_400, (users, items)), axis=1).ravel() + 1_700_000_000
    films = pa.array([f"Old film number {n}" for n in range(_FILMS)])
    genres = pa.array([["Action"], ["Drama", "Comedy"], ["Sci-Fi"]])
    watched = pa.StructArray.from_arrays(
        [
            pa.array(seconds * 1_000_000).cast(schema.TIMESTAMP),
            films.take(pa.array(rng.integers(0, _FILMS, len(seconds)))),
            genres.take(pa.array(rng.integers(0, len(genres), len(seconds)))),
            pa.array(rng.integers(60, 7200, len(seconds)).astype(np.float32)),
        ],
        fields=list(schema.HISTORY.value_type),
    )
    requested = np.stack([rng.choice(len(title_ids), wanted, replace=False) for _ in range(users)]).ravel()
    lists = [pa.array(np.arange(users + 1) * size, pa.int32()) for size in (items, wanted)]
    return pa.table(
        {
            "user_id": [f"u{number:08d}" for number in range(first, first + users)],
            "history": pa.ListArray.from_arrays(lists[0], watched).cast(schema.HISTORY),
            "title_ids": pa.ListArray.from_arrays(lists[1], pa.array(title_ids).take(pa.array(requested))),
        }
    )
