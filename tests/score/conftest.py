"""A small catalog with requests, its shards, and the real engine."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from artsel_ray import storage
from artsel_ray.data.catalog import read_catalog
from artsel_ray.engines.vllm import VllmEngine
from artsel_ray.models.load import Model
from artsel_ray.score.answer_spec import AnswerSpec
from artsel_ray.score.assignment import assign_titles, count_titles
from artsel_ray.score.rendering import RenderedShard, render_shard
from artsel_ray.score.requests import shuffle_requests
from artsel_ray.score.shard_pairs import ShardSource
from tests.support import scoring_world


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """A folder with titles/, artworks/ and requests/."""
    scoring_world.write_scoring_world(tmp_path)
    return tmp_path


@pytest.fixture
def write_requests() -> Callable[..., None]:
    """Writes rows of user_id, history and title_ids, nulls included, as one file."""
    return scoring_world.write_requests


@pytest.fixture
def history() -> Callable[[int], list[dict[str, Any]]]:
    """Makes a history of a number of days."""
    return scoring_world.make_history


@pytest.fixture
def render() -> Callable[[Path, AnswerSpec], RenderedShard]:
    """Renders all requests of a world as one shard."""

    def rendered(world: Path, answer_spec: AnswerSpec) -> RenderedShard:
        files = storage.list_files(str(world / "requests"))
        counts = sum((count_titles(file) for file in files), Counter())
        assignment = assign_titles(counts, 1000, {})
        spill, invalid = str(world / "spill"), str(world / "r")
        uris = [
            uri
            for i in range(len(files))
            for uri in shuffle_requests(files, range(i, i + 1), assignment, spill, invalid).uris
        ]
        titles, artworks = (storage.list_files(str(world / name)) for name in ("titles", "artworks"))
        catalog, _ = read_catalog(titles, artworks)
        return render_shard(0, ShardSource(uris, [], files, catalog), answer_spec)

    return rendered


@pytest.fixture(scope="session")
def vllm_engine(smollm2: Model) -> Iterator[VllmEngine]:
    """The real engine on the bundled model, in the tests' own process."""
    with pytest.MonkeyPatch.context() as patch:
        # Bound to one core each, its threads would also hold what other tests do in this process.
        patch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        patch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
        yield VllmEngine(smollm2, max_model_length=2048, max_allowed=8)
