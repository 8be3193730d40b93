"""Bulk scoring on Ray Data: requests are exchanged into shards, which actors render, score and write."""

import collections
import dataclasses
import time
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray

from artsel_ray import storage
from artsel_ray.config import resolved
from artsel_ray.data.catalog import Catalog, permuted, read_catalog
from artsel_ray.errors import InputError
from artsel_ray.prompts.spec import PromptSpec
from artsel_ray.runtime import run as runs
from artsel_ray.runtime import shards as resume
from artsel_ray.runtime.engine_pool import engine_pool, of_shards
from artsel_ray.runtime.metrics import RunMetrics
from artsel_ray.runtime.progress import Progress
from artsel_ray.runtime.ray_cluster import start_ray
from artsel_ray.runtime.run import Run, begin
from artsel_ray.runtime.task_result import map_files, values
from artsel_ray.score.requests import (
    Assignment,
    assign_titles,
    assign_users,
    count_titles,
    shuffle_previous,
    shuffle_requests,
)
from artsel_ray.score.resolve import ScoringSettings, check, resolve
from artsel_ray.score.settings import ScoreConfig
from artsel_ray.score.stages import INVALID_ROWS, Renderer, Scorer, Starts, Writer
from artsel_ray.score.token_counts import block_tokens, cheapest

_WORK = "_work"
_SUMMARY = "summary.json"
# Rendering and writing are light beside an engine: they claim no CPU, so that engines on all CPUs never wait for them.
_LIGHT_CPUS = 0
# Of an earlier night, that become one work object.
_PREVIOUS_PARTS = 8
_LETTERS_A_TOKEN, _PIXELS_A_TOKEN, _TOKENS_AN_ITEM, _PICTURES = 4, 28 * 28, 20, 12


def score(config: ScoreConfig) -> None:
    """Chooses an artwork for every pair of the requests, resuming what an earlier run has left undone.

    Raises:
        InputError: for wrong input, another run's output, or too many rejected pairs.
    """
    check(config)
    begun = time.perf_counter()
    files = storage.list_files(config.requests)
    titles, artworks = storage.list_files(config.titles), storage.list_files(config.artworks)
    rendering = resolve(config)
    catalog, contents, bad = read_catalog(
        titles, artworks, rendering.spec.asset_kind, rendering.spec.assets, config.artworks
    )
    catalog, contents = permuted(catalog, contents, config.permutation)
    run = begin(config.output, _run(config, rendering), resolved(config))
    start_ray()
    seconds = {"start": time.perf_counter() - begun}
    exchange_begun = time.perf_counter()
    counts = count_pairs(files)
    if config.layout == "auto":
        rendering = cheapest(counts, files, catalog, contents, rendering, block_tokens())
    assignment = assign(counts, config, catalog, contents, rendering.spec)
    work = _shuffle(config, files, assignment)
    seconds["exchange"] = time.perf_counter() - exchange_begun
    _check_reject_rate(config, 0, work)
    print(f"{work['pairs']:,} pairs in {assignment.shards:,} shards; model {rendering.model_id}", flush=True)
    done = resume.done(config.output)
    if done:
        print(f"{len(done):,} shards are done already", flush=True)
    missing = [shard for shard in range(assignment.shards) if shard not in done]
    night = RunMetrics(config.output, assignment.shards, len(done), 0 if done else work["rejected_pairs"])
    scoring_begun = time.perf_counter()
    if missing:
        _score_shards(run, night, config, rendering, (catalog, contents), files, work, missing)
    seconds["score"] = time.perf_counter() - scoring_begun
    seconds["total"] = time.perf_counter() - begun
    _publish(run, config, rendering, bad, assignment.shards, work, seconds)
    night.publish()


def _run(config: ScoreConfig, rendering: ScoringSettings) -> dict[str, Any]:
    return {
        "model": rendering.model_id,
        "prompt": dataclasses.asdict(rendering.spec) | ({"layout": "auto"} if config.layout == "auto" else {}),
        "max_model_length": rendering.max_model_length,
        "decoding": rendering.decoding,
        "shard_pairs": config.shard_pairs,
        "requests": resume.describe_files(config.requests),
        "titles": resume.describe_files(config.titles),
        "artworks": resume.describe_files(config.artworks),
        "engine": config.engine,
        "dtype": config.dtype,
        "previous": _described(config.previous) if config.previous else None,
        "explore": [config.explore, config.epsilon, config.temperature, config.seed],
    } | {
        name: value
        for name, value in (("permutation", config.permutation), ("label_prior", rendering.label_prior))
        if value
    }


def _described(previous: str) -> str:
    """Returns a hash of an earlier night, which must be over."""
    runs.parts(previous)
    return storage.fingerprint(storage.read_manifest(previous))


def assign(
    counts: collections.Counter[str], config: ScoreConfig, catalog: Catalog, contents: pa.Array, spec: PromptSpec
) -> Assignment:
    """Cuts a night into shards of about the same work.

    Both what options cost and what a pair does are guessed: by the captions' letters or the pictures'
    pixels, and as a full history.
    """
    if spec.layout == "user_first":
        return assign_users(counts, config.shard_pairs)
    if spec.assets == "image":
        # The same for all titles, whichever of their pictures can be used: a night that goes on finds its own shards.
        tokens = _PICTURES * spec.resize_to_pixels / _PIXELS_A_TOKEN
        options = np.full(len(catalog.title_ids), tokens)
    else:
        letters = pc.fill_null(pc.utf8_length(contents), 0).to_numpy()
        sums = np.concatenate([[0.0], np.cumsum(np.minimum(letters / _LETTERS_A_TOKEN, spec.caption_tokens))])
        options = np.diff(sums[catalog.offsets])
    pair = min(_TOKENS_AN_ITEM * spec.history_length, spec.history_tokens) + 1
    cost = dict(zip(catalog.title_ids.to_pylist(), options / pair, strict=True))
    return assign_titles(counts, config.shard_pairs, cost)


def count_pairs(files: list[str]) -> collections.Counter[str]:
    """Returns how often each title is asked for."""
    counts: collections.Counter[str] = collections.Counter()
    for counted in map_files(len(files), lambda index: count_titles(files[index])):
        counts.update(counted)
    return counts


def _shuffle(config: ScoreConfig, files: list[str], assignment: Assignment) -> dict[str, Any]:
    """Writes the work objects, or takes those of an earlier run.

    Returns:
        The work folder's manifest: `uris`, `previous`, `pairs`, `rejected_rows` and `rejected_previous_rows`.
    """
    work, invalid = storage.join(config.output, _WORK), storage.join(config.output, INVALID_ROWS)
    known = storage.read_manifest(work)
    if known is None:
        shared = ray.put(assignment)

        def move(index: int) -> dict[str, Any]:
            return dataclasses.asdict(shuffle_requests(files, index, ray.get(shared), work, invalid))

        moved = list(map_files(len(files), move))
        known = {"uris": sorted(uri for part in moved for uri in part["uris"])}
        known |= {name: sum(part[name] for part in moved) for name in ("pairs", "rejected_rows", "rejected_pairs")}
        carried = _shuffle_previous(config, shared, work) if config.previous else []
        known["previous"] = sorted(uri for uri, _ in carried)
        known["rejected_previous_rows"] = sum(rows for _, rows in carried)
        storage.write_manifest(work, known)
    if not known["pairs"]:
        raise InputError(f"{config.requests} asks for no title; {known['rejected_rows']} rows were rejected")
    return known


def _shuffle_previous(config: ScoreConfig, assignment: ray.ObjectRef, work: str) -> list[tuple[str, int]]:
    """Writes an earlier night's predictions as work objects; returns each one's URI and the rows that it left out."""
    parts = runs.parts(config.previous or "")
    slices = [parts[start : start + _PREVIOUS_PARTS] for start in range(0, len(parts), _PREVIOUS_PARTS)]

    def move(index: int) -> tuple[str, int]:
        uri = storage.join(work, f"previous-{index:05d}.arrow")
        invalid = storage.join(config.output, INVALID_ROWS, f"previous-{index:05d}.parquet")
        return uri, shuffle_previous(slices[index], uri, ray.get(assignment), invalid)

    return list(map_files(len(slices), move))


def _score_shards(
    run: Run,
    night: RunMetrics,
    config: ScoreConfig,
    rendering: ScoringSettings,
    catalog: tuple[Catalog, pa.Array],
    files: list[str],
    work: dict[str, Any],
    shards: list[int],
) -> None:
    shared = ray.put((work["uris"], work["previous"], files, *catalog))
    dataset = (
        of_shards(shards)
        .map_batches(
            Renderer,
            fn_constructor_args=[shared, rendering],
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=config.engines),
            num_cpus=_LIGHT_CPUS,
        )
        .map_batches(
            Scorer,
            fn_constructor_args=[config, rendering, int(np.diff(catalog[0].offsets).max(initial=1)), Starts.remote()],
            **engine_pool(config.engines, config.tensor_parallel, config.gpus_per_engine),
        )
        .map_batches(
            Writer,
            fn_constructor_args=[config],
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=1),
            num_cpus=_LIGHT_CPUS,
        )
    )
    print(f"starting {config.engines} engine(s), which takes a minute or more", flush=True)
    progress = Progress(len(shards))
    for statistics in values(dataset):
        progress.add(statistics)
        night.add(statistics, progress.seconds_left)
        run.check()
        _check_reject_rate(config, progress.invalid, work)


def _check_reject_rate(config: ScoreConfig, invalid: int, work: dict[str, Any]) -> None:
    """Stops a run of which too much was rejected: with whole rows of the requests, or as pairs."""
    asked, lost = work["pairs"] + work["rejected_pairs"], invalid + work["rejected_pairs"]
    if lost > config.max_reject_rate * asked:
        raise InputError(
            f"{lost:,} of {asked:,} pairs were rejected, more than --max-reject-rate {config.max_reject_rate}; "
            f"the reasons are in {storage.join(config.output, INVALID_ROWS)}"
        )


def _publish(
    run: Run,
    config: ScoreConfig,
    rendering: ScoringSettings,
    bad: pa.Table,
    shards: int,
    work: dict[str, Any],
    seconds: dict[str, float],
) -> None:
    """Sums up the shards, writes the summary, and last the manifest."""
    totals: collections.Counter[str] = collections.Counter()
    memory = 0.0
    for shard in range(shards):
        statistics = resume.read_statistics(config.output, shard)
        memory = max(memory, statistics.pop(resume.MEMORY))
        totals.update(statistics)
    _check_reject_rate(config, int(totals["rejected"]), work)
    if bad.num_rows:
        storage.write_table(storage.join(config.output, INVALID_ROWS, "catalogue.parquet"), bad, "rejected")
    counted = {name: value for name, value in totals.items() if not name.endswith("_seconds")}
    stages = {name.removesuffix("_seconds"): value for name, value in totals.items() if name.endswith("_seconds")}
    summary = {
        **{name: int(value) for name, value in counted.items()},
        "rejected_request_rows": work["rejected_rows"],
        "rejected_request_pairs": work["rejected_pairs"],
        "rejected_previous_rows": work["rejected_previous_rows"],
        "rejected_catalogue_rows": bad.num_rows,
        "model_id": rendering.model_id,
        "decoding": rendering.decoding,
        "layout": rendering.spec.layout,
        resume.MEMORY: round(memory, 2),
        "seconds": {**seconds, "stages": stages},
    }
    storage.write_json(storage.join(config.output, _SUMMARY), summary)
    parts = [resume.part_name(shard) for shard in range(shards)]
    manifest = {"parts": parts, "pairs": int(totals["pairs"])}
    manifest["rejected"] = int(totals["rejected"]) + work["rejected_pairs"]
    run.publish({**manifest, "model_id": rendering.model_id, "decoding": config.decoding})
    storage.delete(storage.join(config.output, _WORK))
    share = totals["cached_tokens"] / max(totals["prompt_tokens"], 1)
    print(
        f"{int(totals['pairs']):,} pairs scored, {manifest['invalid']:,} rejected, "
        f"{share:.0%} of {int(totals['prompt_tokens']):,} prompt tokens from cache; {config.output}",
        flush=True,
    )
