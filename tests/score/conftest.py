"""A small catalogue with requests, written as a user would bring them."""

import datetime
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from artsel_ray import schema, storage
from artsel_ray.data.catalog import read_catalog
from artsel_ray.engines.vllm import VllmEngine
from artsel_ray.models.load import Model
from artsel_ray.score.rendering import RenderedShard, render_shard
from artsel_ray.score.requests import assign_titles, count_titles, shuffle_requests
from artsel_ray.score.resolve import ScoringSettings

DAY = datetime.datetime(2024, 5, 1, tzinfo=datetime.UTC)
TITLES = {
    "t1": ["A red tower.", "Two friends laugh by the sea.", "Two friends fight in the rain."],
    "t2": ["A lonely house."],
    "t3": ["The same words.", "The same words.", "The same"],
    "t4": [],
}


def make_history(days: int) -> list[dict[str, Any]]:
    return [
        {
            "timestamp": DAY + datetime.timedelta(days=day),
            "title_name": f"Film {day}",
            "genres": ["Drama"],
            "watch_seconds": 600.0,
        }
        for day in range(days)
    ]


Row = tuple[str | None, list[dict[str, Any]], list[str] | None]


def write(uri: str, rows: list[Row]) -> None:
    columns = {name: [row[place] for row in rows] for place, name in enumerate(schema.REQUESTS.names)}
    fields = [field.with_nullable(True) for field in schema.REQUESTS]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns, schema=pa.schema(fields)), sink)
    storage.write_object(uri, sink.getvalue())


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """W/titles, W/artworks and W/requests: 12 users who ask for two of the titles each."""
    titles = {"title_id": list(TITLES), "name": [f"Name of {title}" for title in TITLES], "genres": [["Crime"]] * 4}
    titles |= {"year": [None] * 4, "synopsis": [None] * 4}
    storage.write_table(str(tmp_path / "titles/a.parquet"), pa.table(titles), "titles")
    artworks = [(f"{title}-{i}", title, caption) for title, all_ in TITLES.items() for i, caption in enumerate(all_)]
    rows_of_artworks = [dict(zip(schema.ARTWORKS.names, artwork, strict=False)) for artwork in artworks]
    table = pa.Table.from_pylist(rows_of_artworks, schema.ARTWORKS)
    storage.write_table(str(tmp_path / "artworks/a.parquet"), table, "artworks")
    for part in range(2):
        rows: list[Row] = [(f"u{part}{i}", make_history(i), ["t1", ("t2", "t3")[i % 2]]) for i in range(6)]
        write(str(tmp_path / f"requests/part-{part}.parquet"), rows)
    return tmp_path


@pytest.fixture
def write_requests() -> Callable[..., None]:
    """Writes rows of user_id, history and title_ids, nulls included, as one file."""
    return write


@pytest.fixture
def history() -> Callable[[int], list[dict[str, Any]]]:
    """Makes a history of as many days."""
    return make_history


@pytest.fixture
def render() -> Callable[[Path, ScoringSettings], RenderedShard]:
    """Renders all requests of a world as one shard."""

    def rendered(world: Path, rendering: ScoringSettings) -> RenderedShard:
        files = storage.list_files(str(world / "requests"))
        counts = sum((count_titles(file) for file in files), Counter())
        assignment = assign_titles(counts, 1000, {})
        work, invalid = str(world / "work"), str(world / "r")
        uris = [uri for i in range(len(files)) for uri in shuffle_requests(files, i, assignment, work, invalid).uris]
        catalog, captions, _ = read_catalog(
            storage.list_files(str(world / "titles")), storage.list_files(str(world / "artworks"))
        )
        return render_shard(0, uris, [], files, catalog, captions, rendering)

    return rendered


@pytest.fixture(scope="session")
def vllm_engine(smollm2: Model) -> Iterator[VllmEngine]:
    """The real engine on the bundled model, in the tests' own process."""
    with pytest.MonkeyPatch.context() as patch:
        # Bound to one core each, its threads would also hold what other tests do in this process.
        patch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        patch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
        yield VllmEngine(smollm2.path, max_model_length=2048, max_allowed=8)
