"""Captions of artworks: shards of artworks, whose images are loaded next to the engines that describe them."""

import time
from functools import partial
from typing import Any

from artsel_ray import storage
from artsel_ray.caption.captioner import COUNTS, Captioner, load_engine, stop_tokens
from artsel_ray.caption.loading import CaptionSettings, KnownCaptions, Sources, load_shard, read_title_names
from artsel_ray.caption.prompts import WORDING, CaptionPrompts
from artsel_ray.caption.settings import CaptionConfig
from artsel_ray.config import LIMIT_FLAGS, limits_identity, resolved
from artsel_ray.data.checked_reader import row_ranges
from artsel_ray.errors import InputError
from artsel_ray.models.load import load
from artsel_ray.models.weights import model_length, read_config, read_processor
from artsel_ray.runtime.engine_pool import EngineStage
from artsel_ray.runtime.run import ENGINE_NOT_IDENTITY, FRAME, begin, finished_parts, identity_length
from artsel_ray.runtime.sharded_job import PrepareStage, ShardedJob


def caption(config: CaptionConfig) -> None:
    """Writes artworks with captions of their images; resumes an earlier run.

    Raises:
        InputError: for wrong input or flags, another run's output, or too many invalid artworks.
    """
    started = time.perf_counter()
    files = storage.list_files(config.artworks)
    shards = row_ranges(files, "artworks", config.shard_artworks)
    captioning = resolve(config)
    previous = finished_parts(config.previous) if config.previous else []
    run = begin(config.output, _identity(config, captioning.model_id), resolved(config), added=(FRAME,))
    job = ShardedJob(
        run, table="captioned", unit="artworks", shards=len(shards), rows=sum(shard.rows for shard in shards),
        model_id=captioning.model_id, started=started, pool=config.engine_pool, max_reject_rate=config.max_reject_rate,
        redo_transient=True,
        prepare=PrepareStage(
            "fetch",
            make=lambda sources: lambda index: load_shard(files, shards[index], sources),
            share=partial(_read_sources, config, captioning, previous),
        ),
        engine=EngineStage(
            "caption",
            make=partial(Captioner, config.model, files, captioning),
            load=partial(load_engine, config.model, config.engine, config.engine_pool),
            starts_at_once=False,
        ),
    )  # fmt: skip
    job.resume()
    totals = job.totals()
    counts = {name: int(totals[name]) for name in COUNTS}
    usage = {name: int(totals[name]) for name in ("unfinished", "prompt_tokens", "decoded_tokens")}
    job.publish(job.summary(counts | usage, totals), {**counts, "model_id": captioning.model_id})
    print(
        f"{counts['artworks']:,} artworks: {counts['captioned']:,} captioned, {counts['reused']:,} captions reused, "
        f"{counts['kept']:,} kept without an image, {counts['rejected']:,} rejected; {config.output}",
        flush=True,
    )
    if counts["transient"]:
        print(
            f"{counts['transient']:,} images could not be read this time; the same command tries them again", flush=True
        )


def resolve(config: CaptionConfig) -> CaptionSettings:
    """Prepares the model on this machine, and returns what captions depend on.

    Raises:
        InputError: if there is no such model, it takes no images, or the engine does not have it.
    """
    model = load(config.model, options=False)
    settings = read_config(model.base)
    if getattr(settings, "vision_config", None) is None:
        raise InputError(
            f"{config.model} takes no images: its config has no vision_config; take a vision-language model"
        )
    if settings.model_type == "mllama" and config.engine == "vllm":
        raise InputError(f"vLLM no longer has models such as {config.model}; add --engine transformers")
    processor = read_processor(model.base)
    CaptionPrompts(processor)  # refuses a template that it cannot use, before a run starts
    stop_tokens(model.base, processor.tokenizer)
    pool, tokens, pixels = config.engine_pool, config.caption_tokens, config.resize_to_pixels
    return CaptionSettings(model.model_id + pool.precision, config.engine, pool.dtype, tokens, pixels)


def _identity(config: CaptionConfig, model_id: str) -> dict[str, Any]:
    indifferent = ("model", "output", "image_root", "max_reject_rate", "tensor_parallel")
    left_out = (*indifferent, *ENGINE_NOT_IDENTITY, *LIMIT_FLAGS)
    decisive = {name: value for name, value in resolved(config).items() if name not in left_out}
    decisive |= limits_identity(config.limits)
    base = load(config.model, options=False).base
    frame, length = CaptionPrompts(read_processor(base)).frame(), model_length(base)
    decisive["max_model_length"] = identity_length(config.engine_pool.max_model_length, length)
    titles = storage.describe_files(config.titles) if config.titles else None
    described = {"artworks": storage.describe_files(config.artworks), "titles": titles}
    fixed = {"model_id": model_id, "wording": WORDING, FRAME: storage.fingerprint(frame)}
    return {**decisive, **described, **fixed}


def _read_sources(config: CaptionConfig, captioning: CaptionSettings, previous: list[str]) -> Sources:
    """Reads the titles' names and all captions that are known, those of this run's earlier drivers included."""
    limits, roots = config.limits, (storage.folder(config.artworks), *config.image_root)
    names = read_title_names(config.titles, limits) if config.titles else None
    known = KnownCaptions([*previous, *storage.find_files(config.output)], limits)
    return Sources(roots, names, known, captioning, config.max_pixels, limits)
