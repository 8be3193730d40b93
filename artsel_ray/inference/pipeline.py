"""Bulk scoring on Ray Data: shards are rendered by tasks, scored by a pool of engines, written by tasks."""

import collections
import dataclasses
import json
import time
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from artsel_ray import storage
from artsel_ray.cluster import start_ray
from artsel_ray.config import ScoreConfig, resolved
from artsel_ray.errors import InputError
from artsel_ray.inference import resume
from artsel_ray.inference.catalogue import Catalogue, read_catalogue
from artsel_ray.inference.engine import NullEngine, VllmEngine
from artsel_ray.inference.exchange import Assignment, assign, count_titles, exchange_file
from artsel_ray.inference.rendering import RenderedShard, Rendering, render_shard
from artsel_ray.inference.scoring import score_shard
from artsel_ray.models.load import Model, load
from artsel_ray.prompts.spec import PromptSpec

_WORK = "_work"
_REJECTED = "rejected"
_SUMMARY = "summary.json"
_PROGRESS_SECONDS = 5.0
# Rendering and writing are light beside an engine; together they may take what one engine leaves of two cores.
_LIGHT_CPUS = 0.5


def score(config: ScoreConfig) -> None:
    """Chooses an artwork for every pair of the requests, resuming what an earlier run has left undone.

    Raises:
        InputError: for wrong input, another run's output, or too many rejected pairs.
    """
    begun = time.perf_counter()
    catalogue = read_catalogue(config.titles, config.artworks)
    model = load(config.model)
    spec = prompt_spec(config, model)
    length = min(config.max_model_length, model_length(model))
    rendering = Rendering(config.model, model.model_id, spec, length, config.decoding)
    resume.begin(config.output, _run(config, rendering, catalogue), resolved(config))
    start_ray()
    seconds = {"start": time.perf_counter() - begun}
    assignment, work = _exchange(config, seconds)
    print(f"{assignment.pairs:,} pairs in {assignment.shards:,} shards; model {model.model_id}", flush=True)
    done = resume.done(config.output)
    if done:
        print(f"{len(done):,} shards are done already", flush=True)
    missing = [shard for shard in range(assignment.shards) if shard not in done]
    scoring_begun = time.perf_counter()
    if missing:
        _score_shards(config, rendering, catalogue, work, missing, assignment)
    seconds["score"] = time.perf_counter() - scoring_begun
    seconds["total"] = time.perf_counter() - begun
    _publish(config, rendering, catalogue, assignment, seconds)


def prompt_spec(config: ScoreConfig, model: Model) -> PromptSpec:
    """Returns the prompt that the model was trained for, or for a model without one what the flags say.

    Raises:
        InputError: if flags ask for another prompt than the model's, or `labels` of a model that answers in text.
    """
    flags: dict[str, Any] = {
        "layout": config.layout,
        "output": config.output_format or ("number" if config.decoding == "labels" and not model.spec else None),
        "history_length": config.history_length,
    }
    given = {name: value for name, value in flags.items() if value is not None}
    if model.spec is None:
        spec = PromptSpec(**given)
    else:
        spec = model.spec
        wrong = [f"{name} {value}" for name, value in given.items() if getattr(spec, name) != value]
        if wrong:
            raise InputError(f"{config.model} was trained for another prompt than {', '.join(wrong)}; leave these out")
    if config.decoding == "labels" and spec.output != "number":
        raise InputError("--decoding labels needs a model that answers with numbers; take rank")
    return spec


def model_length(model: Model) -> int:
    """Returns the most tokens that a model takes."""
    settings = json.loads((model.path / "config.json").read_text())
    return int(settings.get("text_config", settings)["max_position_embeddings"])


def _run(config: ScoreConfig, rendering: Rendering, catalogue: Catalogue) -> dict[str, Any]:
    return {
        "model": rendering.model_id,
        "prompt": dataclasses.asdict(rendering.spec),
        "max_model_length": rendering.max_model_length,
        "decoding": rendering.decoding,
        "shard_pairs": config.shard_pairs,
        "requests": resume.describe_files(config.requests),
        "titles and artworks": storage.fingerprint(catalogue.titles.to_pydict()),
        "engine": config.engine,
    }


def _exchange(config: ScoreConfig, seconds: dict[str, float]) -> tuple[Assignment, list[str]]:
    """Counts the pairs and writes the work objects, or takes those of an earlier run."""
    begun = time.perf_counter()
    work = storage.join(config.output, _WORK)
    files = list(enumerate(storage.list_files(config.requests)))
    blocks = [{"index": index, "file": file} for index, file in files]
    counted = ray.data.from_items(blocks, override_num_blocks=len(blocks)).map(
        lambda row: {"counts": json.dumps(count_titles(row["file"]))}
    )
    counts: collections.Counter[str] = collections.Counter()
    for row in counted.iter_rows():
        counts.update(json.loads(row["counts"]))
    assignment = assign(counts, config.shard_pairs)
    known = storage.read_manifest(work)
    if known is not None:
        return assignment, known["objects"]
    shared, rejected = ray.put(assignment), storage.join(config.output, _REJECTED)

    def exchange(row: dict[str, Any]) -> dict[str, Any]:
        return {"uris": json.dumps(exchange_file(row["file"], row["index"], ray.get(shared), work, rejected))}

    moved = ray.data.from_items(blocks, override_num_blocks=len(blocks)).map(exchange)
    objects = sorted(uri for row in moved.iter_rows() for uri in json.loads(row["uris"]))
    storage.write_manifest(work, {"objects": objects})
    seconds["exchange"] = time.perf_counter() - begun
    return assignment, objects


def _score_shards(
    config: ScoreConfig,
    rendering: Rendering,
    catalogue: Catalogue,
    work: list[str],
    shards: list[int],
    assignment: Assignment,
) -> None:
    titles, objects = ray.put(catalogue.titles), ray.put(work)
    cpus, gpus = ray.cluster_resources().get("CPU", 1.0), ray.cluster_resources().get("GPU", 0.0)
    gpus_per_engine = config.gpus_per_engine if config.gpus_per_engine is not None else float(gpus > 0)
    threads = max(1, int(cpus // config.engines))

    def render(batch: dict[str, np.ndarray]) -> dict[str, Any]:
        begun = time.perf_counter()
        rendered = render_shard(int(batch["shard"][0]), ray.get(objects), ray.get(titles), rendering)
        return {"shard": _boxed(rendered), "render_seconds": [time.perf_counter() - begun]}

    def write(batch: dict[str, Any]) -> dict[str, Any]:
        return {"statistics": [json.dumps(write_shard(config.output, batch["scored"][0]))]}

    dataset = (
        ray.data.from_items([{"shard": shard} for shard in shards], override_num_blocks=len(shards))
        .map_batches(render, batch_size=1, num_cpus=_LIGHT_CPUS)
        .map_batches(
            Scorer,
            fn_constructor_args=[config, rendering, _most_candidates(catalogue)],
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=config.engines),
            num_cpus=1,
            num_gpus=gpus_per_engine,
            runtime_env={"env_vars": {"OMP_NUM_THREADS": str(threads), "VLLM_CPU_OMP_THREADS_BIND": "nobind"}},
        )
        .map_batches(write, batch_size=1, num_cpus=_LIGHT_CPUS)
    )
    progress = Progress(assignment.pairs, len(shards))
    try:
        for row in dataset.iter_rows():
            progress.add(json.loads(row["statistics"]))
            _check_reject_rate(config, progress.rejected, assignment.pairs)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, InputError):
            raise error.cause from None
        raise


def _boxed(value: Any) -> np.ndarray:
    """Returns an array of one object: Ray Data then moves it as it is."""
    box = np.empty(1, dtype=object)
    box[0] = value
    return box


def _most_candidates(catalogue: Catalogue) -> int:
    lengths = catalogue.titles["artwork_ids"].combine_chunks().value_lengths().drop_null()
    return max(lengths.to_pylist(), default=1)


class Scorer:
    """An actor with one engine."""

    def __init__(self, config: ScoreConfig, rendering: Rendering, most_candidates: int) -> None:
        """Loads the model."""
        begun = time.perf_counter()
        self._rendering = rendering
        self._engine: NullEngine | VllmEngine = (
            NullEngine()
            if config.engine == "null"
            else VllmEngine(load(config.model).path, rendering.max_model_length, most_candidates + 1, config.dtype)
        )
        self._load_seconds = time.perf_counter() - begun

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Scores one shard."""
        shard: RenderedShard = batch["shard"][0]
        begun = time.perf_counter()
        predictions, counts = score_shard(shard, self._engine, self._rendering)
        usage = self._engine.take_usage()
        statistics = {
            **shard.counts,
            **counts,
            "prompt_tokens": usage.prompt_tokens,
            "cached_tokens": usage.cached_tokens,
            "decoded_tokens": usage.decoded_tokens,
            "load_seconds": self._load_seconds,
            "render_seconds": float(batch["render_seconds"][0]),
            "engine_seconds": usage.seconds,
            "score_seconds": time.perf_counter() - begun,
        }
        self._load_seconds = 0.0
        return {"scored": _boxed((shard.index, predictions, shard.rejected, statistics))}


def write_shard(output: str, scored: tuple[int, pa.Table, pa.Table, dict[str, float]]) -> dict[str, float]:
    """Writes a shard's rejected rows, then its predictions: their object says that the shard is done."""
    index, predictions, rejected, statistics = scored
    name = resume.part_name(index)
    if rejected.num_rows:
        storage.write_table(storage.join(output, _REJECTED, name), rejected, "rejected")
    metadata = resume.statistics_metadata(statistics)
    storage.write_table(storage.join(output, name), predictions, "predictions", metadata)
    return statistics


class Progress:
    """Prints how far a run is, at most every few seconds."""

    def __init__(self, pairs: int, shards: int) -> None:
        """Takes what is to be done."""
        self._pairs, self._shards = pairs, shards
        self._begun = self._printed = time.perf_counter()
        self._done_shards = self._done_pairs = 0
        self.rejected = 0

    def add(self, statistics: dict[str, float]) -> None:
        """Counts one more shard."""
        self._done_shards += 1
        self._done_pairs += int(statistics["pairs"])
        self.rejected += int(statistics["rejected"])
        now = time.perf_counter()
        if now - self._printed > _PROGRESS_SECONDS or self._done_shards == self._shards:
            self._printed, elapsed = now, now - self._begun
            left = elapsed / self._done_shards * (self._shards - self._done_shards)
            print(
                f"{self._done_shards:,}/{self._shards:,} shards, {self._done_pairs:,} pairs, "
                f"{self._done_pairs / elapsed:,.1f} pairs/s, {left:,.0f} s left",
                flush=True,
            )


def _check_reject_rate(config: ScoreConfig, rejected: int, pairs: int) -> None:
    if rejected > config.max_reject_rate * pairs:
        raise InputError(
            f"{rejected:,} of {pairs:,} pairs were rejected, more than --max-reject-rate {config.max_reject_rate}; "
            f"the reasons are in {storage.join(config.output, _REJECTED)}"
        )


def _publish(
    config: ScoreConfig, rendering: Rendering, catalogue: Catalogue, assignment: Assignment, seconds: dict[str, float]
) -> None:
    """Sums up the shards, writes the summary, and last the manifest."""
    totals: collections.Counter[str] = collections.Counter()
    for shard in range(assignment.shards):
        totals.update(resume.read_statistics(config.output, shard))
    _check_reject_rate(config, int(totals["rejected"]), assignment.pairs)
    if catalogue.rejected.num_rows:
        target = storage.join(config.output, _REJECTED, "catalogue.parquet")
        storage.write_table(target, catalogue.rejected, "rejected")
    counted = {name: value for name, value in totals.items() if not name.endswith("_seconds")}
    stages = {name.removesuffix("_seconds"): value for name, value in totals.items() if name.endswith("_seconds")}
    summary = {
        **{name: int(value) for name, value in counted.items()},
        "catalogue_rejected": catalogue.rejected.num_rows,
        "model_id": rendering.model_id,
        "decoding": rendering.decoding,
        "seconds": {**seconds, "stages": stages},
    }
    storage.write_json(storage.join(config.output, _SUMMARY), summary)
    parts = [resume.part_name(shard) for shard in range(assignment.shards)]
    manifest = {"parts": parts, "pairs": int(totals["pairs"]), "rejected": int(totals["rejected"])}
    storage.write_manifest(config.output, {**manifest, "model_id": rendering.model_id, "decoding": config.decoding})
    storage.delete(storage.join(config.output, _WORK))
    share = totals["cached_tokens"] / max(totals["prompt_tokens"], 1)
    print(
        f"{int(totals['pairs']):,} pairs scored, {int(totals['rejected']):,} rejected, "
        f"{share:.0%} of {int(totals['prompt_tokens']):,} prompt tokens from cache; {config.output}",
        flush=True,
    )
