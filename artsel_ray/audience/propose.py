"""The propose job: finds users whom none of a title's artworks suits, and has a model write a brief for one."""

import time

import numpy as np

from artsel_ray import storage
from artsel_ray.audience.briefs import WORDING, BriefWriter, brief_request
from artsel_ray.audience.scored_run import asset_kind_of, read_scored_run
from artsel_ray.audience.settings import ProposeConfig
from artsel_ray.audience.user_segments import find_gaps
from artsel_ray.config import LIMIT_FLAGS, limits_identity, resolved
from artsel_ray.data.catalog import read_catalog
from artsel_ray.data.checked_reader import CheckedReader
from artsel_ray.engines.vllm import VllmEngine
from artsel_ray.models.load import load, load_tokenizer
from artsel_ray.models.weights import model_length, prompt_tokenizer
from artsel_ray.prompts.spec import PromptSpec
from artsel_ray.report.html import render_proposals
from artsel_ray.runtime.engine_pool import EngineStage
from artsel_ray.runtime.run import ENGINE_NOT_IDENTITY, FRAME, begin, finished_parts, identity_length
from artsel_ray.runtime.sharded_job import PrepareStage, ShardedJob

_SHARD_PROPOSALS = 64


def propose(config: ProposeConfig) -> None:
    """Writes a row for each proposal, those for most users first, and a page that shows them; resumes an earlier run.

    Raises:
        InputError: for wrong input, a scoring run that has not finished or has no probabilities, or another's output.
    """
    started = time.perf_counter()
    parts = finished_parts(config.predictions)
    spec = PromptSpec(asset_kind=asset_kind_of(config.predictions))
    titles, artworks, limits = storage.list_files(config.titles), storage.list_files(config.artworks), config.limits
    catalog, _ = read_catalog(titles, artworks, spec.asset_kind, limits=limits)
    model = load(config.model)
    pool = config.engine_pool
    model_id, longest = model.model_id + pool.precision, model_length(model.base)
    left_out = ("output", *ENGINE_NOT_IDENTITY, *LIMIT_FLAGS)
    identity = {name: value for name, value in resolved(config).items() if name not in left_out}
    identity |= limits_identity(limits)
    identity["max_model_length"] = identity_length(pool.max_model_length, longest)
    frame = storage.fingerprint(prompt_tokenizer(model.base, spec).frame())
    identity |= {"model": model_id, "wording": WORDING, FRAME: frame}
    run = begin(config.output, identity, resolved(config), added=(FRAME,))

    scored = read_scored_run(parts, storage.list_files(config.requests), catalog, True, config.min_users, limits)
    gaps = find_gaps(scored, config.share, config.min_users)[: config.max_proposals]
    print(f"{len(gaps):,} titles have users whom none of their artworks suits", flush=True)
    requests = [brief_request(gap, catalog, config.seed) for gap in gaps]
    shards = [requests[first : first + _SHARD_PROPOSALS] for first in range(0, len(requests), _SHARD_PROPOSALS)]
    name, max_tokens, length = config.model, config.max_tokens, min(pool.max_model_length, longest)
    job = ShardedJob(
        run, table="proposals", unit="proposals", shards=len(shards), rows=len(requests), model_id=model_id,
        started=started, pool=pool,
        prepare=PrepareStage("prepare", lambda: shards.__getitem__),
        engine=EngineStage(
            "generate",
            make=lambda: BriefWriter(prompt_tokenizer(load_tokenizer(name), spec), model_id, max_tokens, length),
            load=lambda: VllmEngine(load(name), length, 1, pool, seeded=True),
        ),
    )  # fmt: skip
    job.resume()
    # An earlier driver's proposals are on the page too.
    proposals = CheckedReader(storage.find_files(config.output), "proposals", limits=limits).valid_batches()
    names = dict(zip(catalog.title_ids.to_pylist(), catalog.names.to_pylist(), strict=True))
    html = render_proposals([row for batch in proposals for row in batch.to_pylist()], names, config.min_users)
    page = storage.join(config.output, "report.html")
    storage.write_object(page, html.encode())
    pairs, scored_titles, users = len(scored.user_n), len(np.unique(scored.title_n)), sum(gap.users for gap in gaps)
    counts = {"pairs": pairs, "titles": scored_titles, "proposals": len(gaps), "users": users}
    job.publish(job.summary(counts, job.totals()), {"proposals": len(gaps)})
    print(f"{len(gaps):,} proposals for {users:,} users; {page}", flush=True)
