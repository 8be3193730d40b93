"""One scoring run, from requests to manifest."""

import dataclasses
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from artsel_ray import storage
from artsel_ray.config import Layout, limits_identity, resolved
from artsel_ray.data.catalog import Catalog
from artsel_ray.errors import InputError
from artsel_ray.runtime.engine_pool import EngineStage, gpus_per_engine
from artsel_ray.runtime.ray_cluster import start_ray
from artsel_ray.runtime.run import FRAME, Run, begin, finished_parts
from artsel_ray.runtime.sharded_job import InputRows, PrepareStage, ShardedJob, stage_seconds
from artsel_ray.runtime.shards import INVALID_FOLDER, MEMORY, REJECTED_ROWS
from artsel_ray.score.answer_spec import AnswerSpec
from artsel_ray.score.rendering import ShardSource, make_renderer
from artsel_ray.score.requests import SPILL_FOLDER, Assignment, ShuffledRequests, assign, count_pairs, shuffle_all
from artsel_ray.score.scoring import EngineLoader, make_scorer
from artsel_ray.score.serving import serve
from artsel_ray.score.settings import ScoreConfig
from artsel_ray.score.token_counts import LAYOUTS, TokenCounter, cache_block_tokens


@dataclass(frozen=True)
class ScoringRun:
    """What one run reads, how it scores, and where it writes."""

    config: ScoreConfig
    files: list[str]
    catalog: Catalog
    """With each title's candidates in the run's permutation."""
    invalid_catalog_rows: pa.Table
    answer_spec: AnswerSpec
    auto_layout: bool
    """Whether the cheapest layout replaces the one of the answer spec."""
    started: float
    """When the job started, by `time.perf_counter`."""

    def identity(self) -> dict[str, Any]:
        """Returns what decides the result: runs with the same identity may share an output.

        Raises:
            InputError: if the run of `--previous` has not finished.
        """
        config, answer, serving = self.config, self.answer_spec.identity(), self.config.serving
        identity = {
            **answer,
            "prompt": answer["prompt"] | ({"layout": "auto"} if self.auto_layout else {}),
            "shard_pairs": config.shard_pairs,
            "requests": storage.describe(self.files, config.requests),
            "titles": storage.describe_files(config.titles),
            "artworks": storage.describe_files(config.artworks),
            "previous": _digest(config.previous) if config.previous else None,
            "explore": [serving.explore, serving.epsilon, serving.temperature, serving.seed],
        }
        # Earlier runs do not have these in their identity.
        optional = {"permutation": config.permutation, "image_root": config.image_root}
        return identity | {name: value for name, value in optional.items() if value} | limits_identity(config.limits)

    def with_layout(self, layout: Layout) -> "ScoringRun":
        """Returns the run with this layout."""
        prompt = dataclasses.replace(self.answer_spec.spec, layout=layout)
        answer_spec = dataclasses.replace(self.answer_spec, spec=prompt)
        return dataclasses.replace(self, answer_spec=answer_spec, auto_layout=False)

    def on_this_cluster(self) -> "ScoringRun":
        """Returns the run with the number format that `auto` means on this cluster: float32 on CPUs."""
        if self.answer_spec.dtype != "auto" or gpus_per_engine(self.config.engine_pool):
            return self
        return dataclasses.replace(self, answer_spec=dataclasses.replace(self.answer_spec, dtype="float32"))

    def assign(self, counts: Counter[str]) -> Assignment:
        """Returns which shard each title's pairs belong to."""
        return assign(counts, self.config.shard_pairs, self.catalog, self.answer_spec.spec)


def _digest(previous: str) -> str:
    """Returns a hash of an earlier run, which must have finished."""
    finished_parts(previous)
    return storage.fingerprint(storage.read_manifest(previous))


def score_requests(run: ScoringRun) -> None:
    """Chooses an artwork for every pair of the requests, resuming what an earlier driver has left undone.

    Raises:
        InputError: for wrong input, another run's output, or too many invalid pairs.
    """
    output = run.config.output
    # Earlier versions did not write the frame. They made the same one, unless their templates wrote the time.
    added = () if run.answer_spec.has_clock else (FRAME,)
    claimed = begin(output, run.identity(), resolved(run.config), added)
    start_ray()
    run = run.on_this_cluster()
    seconds = {"start": time.perf_counter() - run.started}

    # Requests are by user; shards hold what shares the start of its prompts.
    shuffle_started = time.perf_counter()
    counts = count_pairs(run.files, run.config.limits)
    if run.auto_layout:
        run = run.with_layout(_cheapest_layout(run, counts))
    assignment = run.assign(counts)
    shuffled = shuffle_all(output, run.files, assignment, run.config.previous, run.config.limits)
    if not shuffled.pairs:
        raise InputError(f"{run.config.requests} asks for no title; {shuffled.rejected_rows} rows were rejected")
    seconds["shuffle"] = time.perf_counter() - shuffle_started

    job = _sharded_job(run, claimed, shuffled, assignment.shards)
    score_started = time.perf_counter()
    job.resume()
    seconds["score"] = time.perf_counter() - score_started
    seconds["total"] = time.perf_counter() - run.started
    _publish(run, job, shuffled, seconds)


def _cheapest_layout(run: ScoringRun, counts: Counter[str]) -> Layout:
    counter = TokenCounter(run.answer_spec, cache_block_tokens())
    totals = counter.count(run.files, counter.measure_titles(counts, run.catalog))
    layout = totals.cheapest_layout()
    print(f"layout {layout}: " + ", ".join(f"{totals.computed(name):,.0f} tokens {name}" for name in LAYOUTS))
    return layout


def _sharded_job(run: ScoringRun, claimed: Run, shuffled: ShuffledRequests, shards: int) -> ShardedJob:
    config, pool = run.config, run.config.engine_pool
    source = ShardSource(shuffled.uris, shuffled.previous, run.files, run.catalog)
    max_candidates = int(np.diff(run.catalog.offsets).max(initial=1))
    load = EngineLoader(run.answer_spec, pool, max_candidates, config.tokens_per_second)
    return ShardedJob(
        run=claimed,
        table="predictions",
        unit="pairs",
        shards=shards,
        rows=shuffled.pairs,
        model_id=run.answer_spec.model_id,
        started=run.started,
        prepare=PrepareStage("render", partial(make_renderer, run.answer_spec), lambda: source),
        engine=EngineStage("score", partial(make_scorer, run.answer_spec), load),
        pool=pool,
        max_memory_gib=pool.engine_memory,
        finish=partial(serve, policy=config.serving),
        max_reject_rate=config.max_reject_rate,
        known_invalid=shuffled.rejected_pairs,
        inputs=InputRows(shuffled.rows, shuffled.rejected_rows, "requests") if shuffled.rows else None,
    )


def _publish(run: ScoringRun, job: ShardedJob, shuffled: ShuffledRequests, seconds: dict[str, float]) -> None:
    totals, invalid, answer_spec, output = job.totals(), run.invalid_catalog_rows, run.answer_spec, run.config.output
    if invalid.num_rows:
        # Spelled as in earlier outputs, whose file a run that is published again replaces.
        storage.write_table(storage.join(output, INVALID_FOLDER, "catalogue.parquet"), invalid, "invalid_rows")
    model = {"model_id": answer_spec.model_id, "decoding": answer_spec.decoding}
    left_out = (MEMORY, REJECTED_ROWS)
    counted = {
        name: int(value) for name, value in totals.items() if not name.endswith("_seconds") and name not in left_out
    }
    summary = {
        **counted,
        "rejected_request_rows": shuffled.rejected_rows,
        "rejected_request_pairs": shuffled.rejected_pairs,
        "rejected_previous_rows": shuffled.rejected_previous_rows,
        "rejected_catalog_rows": invalid.num_rows,
        **model,
        "layout": answer_spec.spec.layout,
        MEMORY: round(totals[MEMORY], 2),
        "seconds": {**seconds, "stages": stage_seconds(totals)},
    }
    if cut := counted["histories_cut"]:
        longest = f"{answer_spec.max_model_length:,} tokens"
        print(f"{cut:,} histories lost their oldest items: prompt and answer have at most {longest}", flush=True)
    rejected = counted["rejected"] + shuffled.rejected_pairs
    job.publish(summary, {"pairs": counted["pairs"], "rejected": rejected, **model})
    storage.delete(storage.join(output, SPILL_FOLDER))
    share = totals["cached_tokens"] / max(totals["prompt_tokens"], 1)
    cached = f"{share:.0%} of {counted['prompt_tokens']:,} prompt tokens from cache"
    print(f"{counted['pairs']:,} pairs scored, {rejected:,} rejected, {cached}; {output}", flush=True)
