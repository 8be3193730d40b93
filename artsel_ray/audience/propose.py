"""The propose job: finds users whom none of a title's artworks suits, and has a model write a brief for one."""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from artsel_ray import storage
from artsel_ray.audience.briefs import BriefRequest, BriefWriter, brief_request
from artsel_ray.audience.gaps import find_gaps
from artsel_ray.audience.prompts import WORDING
from artsel_ray.audience.scored_run import asset_kind_of, read_scored_run, read_user_genres
from artsel_ray.audience.settings import ProposeConfig
from artsel_ray.config import EngineSettings, resolved
from artsel_ray.data.catalog import Catalog, read_catalog
from artsel_ray.data.checked_reader import read_table
from artsel_ray.engines.base import Engine
from artsel_ray.engines.vllm import VllmEngine
from artsel_ray.models.load import load
from artsel_ray.models.weights import model_length, prompt_tokenizer
from artsel_ray.prompts.spec import PromptSpec
from artsel_ray.report.titles import render_proposals
from artsel_ray.runtime.engine_pool import EngineStage
from artsel_ray.runtime.ray_cluster import start_ray
from artsel_ray.runtime.run import Run, begin, finished_parts
from artsel_ray.runtime.sharded_job import PrepareStage, ShardedJob, stage_seconds
from artsel_ray.runtime.shards import done_shards, part_name

_SHARD_PROPOSALS = 64


def propose(config: ProposeConfig) -> None:
    """Writes a row for each proposal, those for most users first, and a page that shows them; resumes an earlier run.

    Raises:
        InputError: for wrong input or flags, a scoring run that has not finished or has no probabilities, or another
            run's output.
    """
    started = time.perf_counter()
    parts = finished_parts(config.predictions)
    spec = PromptSpec(asset_kind=asset_kind_of(config.predictions))
    titles, artworks = storage.list_files(config.titles), storage.list_files(config.artworks)
    catalog, _ = read_catalog(titles, artworks, spec.asset_kind)
    model_id = load(config.model).model_id
    identity = {name: value for name, value in resolved(config).items() if name not in ("output", "engines")}
    run = begin(config.output, {**identity, "model": model_id, "wording": WORDING}, resolved(config))
    user_genres = read_user_genres(storage.list_files(config.requests))
    scored = read_scored_run(parts, catalog, user_genres, ranked=True)
    gaps = find_gaps(scored, user_genres, config.share, config.min_users)[: config.max_proposals]
    print(f"{len(gaps):,} titles have users whom none of their artworks suits; model {model_id}", flush=True)
    requests = [brief_request(gap, catalog, config.seed) for gap in gaps]
    writer = _Writer(config.model, spec, config.max_tokens, config.engine_pool)
    job = _sharded_job(run, writer, requests)
    done = done_shards(config.output)
    missing = [index for index in range(job.shards) if index not in done]
    if missing:
        start_ray()
    job.process(missing)
    page = storage.join(config.output, "report.html")
    storage.write_object(page, _render(job, catalog, config.min_users).encode())
    users = sum(gap.users for gap in gaps)
    summary = {
        "pairs": len(scored.user_n),
        "titles": len(np.unique(scored.title_n)),
        "proposals": len(gaps),
        "users": users,
        "model_id": model_id,
        "seconds": {"total": time.perf_counter() - started, "stages": stage_seconds(job.totals())},
    }
    job.publish(summary, {"proposals": len(gaps)})
    print(f"{len(gaps):,} proposals for {users:,} users; {page}", flush=True)


@dataclass(frozen=True)
class _Writer:
    """The model that writes briefs, for actors to load."""

    model: str
    spec: PromptSpec
    max_tokens: int
    pool: EngineSettings

    def load_engine(self) -> Engine:
        path, pool = load(self.model).path, self.pool
        tokens = len(prompt_tokenizer(path, self.spec).tokenizer)
        return VllmEngine(path, self._length(path), tokens, pool.dtype, pool.tensor_parallel, seeded=True)

    def make(self) -> BriefWriter:
        model = load(self.model)
        tokenizer = prompt_tokenizer(model.path, self.spec)
        return BriefWriter(tokenizer, model.model_id, self.max_tokens, self._length(model.path))

    def _length(self, path: Path) -> int:
        return min(self.pool.max_model_length, model_length(path))


def _sharded_job(run: Run, writer: _Writer, requests: list[BriefRequest]) -> ShardedJob:
    shards = [requests[first : first + _SHARD_PROPOSALS] for first in range(0, len(requests), _SHARD_PROPOSALS)]
    return ShardedJob(
        run,
        table="proposals",
        unit="proposals",
        shards=len(shards),
        prepare=PrepareStage("prepare", lambda: shards.__getitem__),
        engine=EngineStage("generate", writer.make, writer.load_engine),
        pool=writer.pool,
    )


def _render(job: ShardedJob, catalog: Catalog, min_users: int) -> str:
    """Returns the page of all proposals, those of an earlier driver included."""
    parts = [storage.join(job.run.output, part_name(index)) for index in range(job.shards)]
    rows = [row for part in parts for row in read_table(part, "proposals").to_pylist()]
    names = dict(zip(catalog.title_ids.to_pylist(), catalog.names.to_pylist(), strict=True))
    return render_proposals(rows, names, min_users)
