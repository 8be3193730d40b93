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
from artsel_ray.network.text_vectors import VECTORS
from artsel_ray.runtime.engine_pool import EngineStage, gpus_per_engine
from artsel_ray.runtime.fingerprint_key import finished_key, in_manifest, run_key
from artsel_ray.runtime.ray_cluster import start_ray
from artsel_ray.runtime.run import FRAME, Run, begin, finished_parts, prediction_files
from artsel_ray.runtime.sharded_job import InputRows, PrepareStage, ShardedJob, stage_seconds
from artsel_ray.runtime.shards import INVALID_FOLDER, MEMORY, REJECTED_ROWS
from artsel_ray.score.answer_spec import AnswerSpec
from artsel_ray.score.assignment import Assignment, assign, assign_titles, count_pairs
from artsel_ray.score.network import (
    NetworkSource,
    NetworkSpec,
    load_network,
    make_encoder,
    make_network_scorer,
    network_vectors,
)
from artsel_ray.score.rendering import make_renderer
from artsel_ray.score.requests import SPILL_FOLDER, ShuffledRequests, shuffle_all
from artsel_ray.score.scoring import EngineLoader, make_scorer
from artsel_ray.score.serving import serve
from artsel_ray.score.settings import ScoreConfig
from artsel_ray.score.shard_pairs import ShardSource
from artsel_ray.score.token_counts import LAYOUTS, TokenCounter, cache_block_tokens


@dataclass(frozen=True)
class ScoringRun:
    """What one run reads, how it scores, and where it writes."""

    config: ScoreConfig
    files: list[str]
    catalog: Catalog
    """With each title's candidates in the run's permutation."""
    invalid_catalog_rows: pa.Table
    answer_spec: AnswerSpec | NetworkSpec
    auto_layout: bool
    """Whether the cheapest layout replaces the one of the answer spec."""
    started: float
    """When the job started, by `time.perf_counter`."""

    @property
    def prompted(self) -> AnswerSpec:
        """The answer spec of a run whose model is asked by prompts."""
        assert isinstance(self.answer_spec, AnswerSpec)
        return self.answer_spec

    def identity(self) -> dict[str, Any]:
        """Returns what decides the result: runs with the same identity may share an output.

        Raises:
            InputError: if the run of `--previous` has not finished.
        """
        config, answer, serving = self.config, self.answer_spec.identity(), self.config.serving
        identity = {
            **answer,
            **({"prompt": answer["prompt"] | {"layout": "auto"}} if self.auto_layout else {}),
            "shard_pairs": config.shard_pairs,
            "requests": storage.describe(self.files, config.requests),
            "titles": storage.describe_files(config.titles),
            "artworks": storage.describe_files(config.artworks),
            "previous": _digest(config.previous) if config.previous else None,
            "explore": [serving.explore, serving.epsilon, serving.temperature, serving.seed],
        }
        # Earlier runs do not have these in their identity.
        optional = {"permutation": config.permutation, "image_root": config.image_root}
        if config.prior:
            optional["prior_files"] = storage.describe(prediction_files(config.prior), config.prior)
            optional["llm_share"] = config.llm_share
        return identity | {name: value for name, value in optional.items() if value} | limits_identity(config.limits)

    def with_layout(self, layout: Layout) -> "ScoringRun":
        """Returns the run with this layout."""
        prompt = dataclasses.replace(self.prompted.spec, layout=layout)
        answer_spec = dataclasses.replace(self.prompted, spec=prompt)
        return dataclasses.replace(self, answer_spec=answer_spec, auto_layout=False)

    def on_this_cluster(self) -> "ScoringRun":
        """Returns the run with the number format that `auto` means on this cluster: float32 on CPUs."""
        spec = self.answer_spec
        if isinstance(spec, NetworkSpec) or spec.dtype != "auto" or gpus_per_engine(self.config.engine_pool):
            return self
        return dataclasses.replace(self, answer_spec=dataclasses.replace(spec, dtype="float32"))

    def assign(self, counts: Counter[str]) -> Assignment:
        """Returns which shard each title's pairs belong to."""
        if isinstance(self.answer_spec, NetworkSpec):
            assignment = assign_titles(counts, self.config.shard_pairs, {})
            return dataclasses.replace(assignment, history_length=self.answer_spec.history_length)
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
    has_clock = isinstance(run.answer_spec, AnswerSpec) and run.answer_spec.has_clock
    added = () if has_clock else (FRAME,)
    claimed = begin(output, run.identity(), resolved(run.config), added)
    key, previous = run_key(output, run.config.previous), run.config.previous
    previous_key = finished_key(previous) if previous else b""
    start_ray()
    run = run.on_this_cluster()
    seconds = {"start": time.perf_counter() - run.started}

    # Requests are by user; shards hold what shares the start of its prompts.
    shuffle_started = time.perf_counter()
    counts = count_pairs(run.files, run.config.limits)
    if run.auto_layout:
        run = run.with_layout(_cheapest_layout(run, counts))
    assignment = run.assign(counts)
    earlier = finished_parts(previous) if previous else []
    prior = prediction_files(run.config.prior) if run.config.prior else []
    shuffled = shuffle_all(output, run.files, assignment, earlier, prior, run.config.limits)
    if not shuffled.pairs:
        raise InputError(f"{run.config.requests} asks for no title; {shuffled.rejected_rows} rows were rejected")
    seconds["shuffle"] = time.perf_counter() - shuffle_started

    source = ShardSource(
        shuffled.uris, shuffled.previous, run.files, run.catalog, shuffled.prior, key, previous_key
    )  # fmt: skip
    job = _sharded_job(run, claimed, shuffled, source, assignment.shards)
    score_started = time.perf_counter()
    job.resume()
    seconds["score"] = time.perf_counter() - score_started
    seconds["total"] = time.perf_counter() - run.started
    _publish(run, job, shuffled, seconds)


def _cheapest_layout(run: ScoringRun, counts: Counter[str]) -> Layout:
    counter = TokenCounter(run.prompted, cache_block_tokens())
    totals = counter.count(run.files, counter.measure_titles(counts, run.catalog))
    layout = totals.cheapest_layout()
    print(f"layout {layout}: " + ", ".join(f"{totals.computed(name):,.0f} tokens {name}" for name in LAYOUTS))
    return layout


def _sharded_job(
    run: ScoringRun, claimed: Run, shuffled: ShuffledRequests, source: ShardSource, shards: int
) -> ShardedJob:
    config, pool = run.config, run.config.engine_pool
    if isinstance(run.answer_spec, NetworkSpec):  # small, and faster without a GPU
        pool = dataclasses.replace(pool, gpus_per_engine=0, tensor_parallel=1)
    prepare, engine = _stages(run, source)
    return ShardedJob(
        run=claimed,
        table="predictions",
        unit="pairs",
        shards=shards,
        rows=shuffled.pairs,
        model_id=run.answer_spec.model_id,
        started=run.started,
        prepare=prepare,
        engine=engine,
        pool=pool,
        max_memory_gib=pool.engine_memory,
        finish=partial(serve, policy=config.serving),
        max_reject_rate=config.max_reject_rate,
        known_invalid=shuffled.rejected_pairs,
        inputs=InputRows(shuffled.rows, shuffled.rejected_rows, "requests") if shuffled.rows else None,
    )


def _stages(run: ScoringRun, source: ShardSource) -> tuple[PrepareStage, EngineStage]:
    config, spec = run.config, run.answer_spec
    if isinstance(spec, NetworkSpec):
        load: Any = partial(load_network, spec)
        prepare = PrepareStage("render", partial(make_encoder, spec), partial(_network_source, run, spec, source))
        return prepare, EngineStage("score", partial(make_network_scorer, spec), load)
    max_candidates = int(np.diff(run.catalog.offsets).max(initial=1))
    load = EngineLoader(spec, config.engine_pool, max_candidates, config.tokens_per_second)
    prepare = PrepareStage("render", partial(make_renderer, spec), lambda: source)
    return prepare, EngineStage("score", partial(make_scorer, spec), load)


def _network_source(run: ScoringRun, spec: NetworkSpec, source: ShardSource) -> NetworkSource:
    config = run.config
    kept, encoders = config.vectors or storage.join(config.output, VECTORS), config.engine_pool.engines
    gpus = gpus_per_engine(config.engine_pool)
    return NetworkSource(source, network_vectors(spec, run.catalog, run.files, config.limits, kept, encoders, gpus))


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
        **({"layout": answer_spec.spec.layout} if isinstance(answer_spec, AnswerSpec) else {}),
        MEMORY: round(totals[MEMORY], 2),
        "seconds": {**seconds, "stages": stage_seconds(totals)},
    }
    if run.config.prior:
        _report_prior(run.config.prior, run.config.llm_share, counted)
    if cut := counted["histories_cut"]:
        longest = f"{run.prompted.max_model_length:,} tokens"
        print(f"{cut:,} histories lost their oldest items: prompt and answer have at most {longest}", flush=True)
    rejected = counted["rejected"] + shuffled.rejected_pairs
    job.publish(summary, {"pairs": counted["pairs"], "rejected": rejected, **model, **in_manifest(output)})
    storage.delete(storage.join(output, SPILL_FOLDER))
    print(f"{counted['pairs']:,} pairs scored, {rejected:,} rejected{_cached(totals)}; {output}", flush=True)


def _report_prior(prior: str, llm_share: float, counted: dict[str, int]) -> None:
    """Prints for how many pairs the prior chose, or knew nothing; raises an InputError if it knew none."""
    asked, unknown = counted["pairs"] - counted.get("reused", 0), counted["without_prior"]
    if counted["pairs"] and unknown == counted["pairs"]:
        raise InputError(f"--prior {prior} knows none of the pairs; was it made for these requests?")
    if unknown:
        print(f"warning: --prior does not know {unknown:,} of {counted['pairs']:,} pairs", flush=True)
    if llm_share < 1 and asked:
        share = 1 - counted["by_prior"] / asked
        print(f"the language model was asked for {share:.1%} of the pairs (--llm-share {llm_share:g})", flush=True)


def _cached(totals: Counter[str]) -> str:
    if not totals["prompt_tokens"]:
        return ""
    share = totals["cached_tokens"] / totals["prompt_tokens"]
    return f", {share:.0%} of {totals['prompt_tokens']:,.0f} prompt tokens from cache"
