"""Captions of artworks: shards of artworks, whose images are loaded next to the engines that describe them."""

import dataclasses
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import ray

from artsel_ray import storage
from artsel_ray.caption.captioner import COUNTS, Captioner, load_engine
from artsel_ray.caption.loading import (
    CaptionSettings,
    KnownCaptions,
    LoadedShard,
    Sources,
    load_shard,
    read_title_names,
)
from artsel_ray.caption.prompts import WORDING
from artsel_ray.caption.settings import CaptionConfig
from artsel_ray.config import resolved
from artsel_ray.data.checked_reader import RowRange, row_ranges
from artsel_ray.errors import InputError, one_line
from artsel_ray.models.load import load
from artsel_ray.runtime.engine_pool import EngineStage
from artsel_ray.runtime.ray_cluster import start_ray
from artsel_ray.runtime.run import begin, finished_parts
from artsel_ray.runtime.sharded_job import PrepareStage, RejectLimit, ShardedJob, stage_seconds
from artsel_ray.runtime.shards import done_shards, part_name, read_statistics


def caption(config: CaptionConfig) -> None:
    """Writes artworks with captions of their images; resumes an earlier run.

    Raises:
        InputError: for wrong input or flags, another run's output, or too many invalid artworks.
    """
    started = time.perf_counter()
    files = storage.list_files(config.artworks)
    shards = row_ranges(files, "artworks", config.shard_artworks)
    captioning = resolve(config)
    known = finished_parts(config.previous) if config.previous else []
    run = begin(config.output, _identity(config, captioning), resolved(config))
    written = done_shards(config.output)
    # A shard with invalid artworks is done again: their images may have been fixed since.
    done = {index for index in written if not read_statistics(config.output, index)["rejected"]}
    missing = [index for index in range(len(shards)) if index not in done]
    artworks = sum(shard.rows for shard in shards)
    print(
        f"{artworks:,} artworks in {len(shards):,} shards, {len(done):,} done; model {captioning.model_id}", flush=True
    )
    known += [storage.join(config.output, part_name(index)) for index in sorted(written)]
    sources = _share_sources(config, captioning, known) if missing else None
    job = ShardedJob(
        run,
        table="captioned",
        unit="artworks",
        shards=len(shards),
        prepare=PrepareStage("fetch", partial(_loader, files, shards, sources)),
        engine=EngineStage(
            "caption",
            make=partial(Captioner, config.model, files, captioning),
            load=partial(load_engine, config.model, config.engine, config.engine_pool),
            starts_at_once=False,
        ),
        pool=config.engine_pool,
        limit=RejectLimit(config.max_reject_rate, artworks, "artworks", config.output),
    )
    job.process(missing)
    _publish(job, captioning.model_id, started)


def resolve(config: CaptionConfig) -> CaptionSettings:
    """Prepares the model on this machine, and returns what captions depend on.

    Raises:
        InputError: if there is no such model, it takes no images, or the engine does not have it.
    """
    from transformers import AutoConfig

    model = load(config.model, options=False)
    try:
        settings = AutoConfig.from_pretrained(model.path, trust_remote_code=False)
    except (ValueError, OSError, KeyError) as error:
        raise InputError(f"{config.model}: transformers cannot read its config: {one_line(error)}") from None
    if getattr(settings, "vision_config", None) is None:
        raise InputError(
            f"{config.model} takes no images: its config has no vision_config; take a vision-language model"
        )
    if settings.model_type == "mllama" and config.engine == "vllm":
        raise InputError(f"vLLM no longer has models such as {config.model}; add --engine transformers")
    return CaptionSettings(
        model.model_id, config.engine, config.engine_pool.dtype, config.caption_tokens, config.resize_to_pixels
    )


def _identity(config: CaptionConfig, captioning: CaptionSettings) -> dict[str, Any]:
    return {
        **dataclasses.asdict(captioning),
        "wording": WORDING,
        "max_pixels": config.max_pixels,
        "max_model_length": config.engine_pool.max_model_length,
        "shard_artworks": config.shard_artworks,
        "artworks": storage.describe_files(config.artworks),
        "titles": storage.describe_files(config.titles) if config.titles else None,
        "previous": config.previous,
    }


def _share_sources(config: CaptionConfig, captioning: CaptionSettings, known: list[str]) -> Any:
    """Starts Ray, and puts into its object store what all processes that load shards read."""
    names = read_title_names(config.titles) if config.titles else None
    start_ray()
    return ray.put(Sources(config.artworks, names, KnownCaptions(known), captioning, config.max_pixels))


def _loader(files: list[str], shards: list[RowRange], sources: Any) -> Callable[[int], LoadedShard]:
    shared: Sources = ray.get(sources)
    return lambda index: load_shard(files, shards[index], shared)


def _publish(job: ShardedJob, model_id: str, started: float) -> None:
    totals = job.totals()
    counts = {name: int(totals[name]) for name in COUNTS}
    summary = {
        **counts,
        **{name: int(totals[name]) for name in ("unfinished", "prompt_tokens", "decoded_tokens")},
        "model_id": model_id,
        "seconds": {"total": time.perf_counter() - started, "stages": stage_seconds(totals)},
    }
    job.publish(summary, {**counts, "model_id": model_id})
    print(
        f"{counts['artworks']:,} artworks: {counts['captioned']:,} captioned, {counts['reused']:,} captions reused, "
        f"{counts['kept']:,} kept without an image, {counts['rejected']:,} rejected; {job.run.output}",
        flush=True,
    )
