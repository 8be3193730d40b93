"""Captions of artworks on Ray Data: shards of artworks, their pictures loaded beside the engines that describe them."""

import collections
import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import ray

from artsel_ray import storage
from artsel_ray.caption.captioner import COUNTS, Captioner, Loader
from artsel_ray.caption.loading import CaptionSettings, KnownCaptions
from artsel_ray.caption.prompts import WORDING
from artsel_ray.caption.settings import CaptionConfig
from artsel_ray.config import resolved
from artsel_ray.data import checks
from artsel_ray.data.row_ranges import Shard, plan_shards
from artsel_ray.errors import InputError, one_line
from artsel_ray.models.load import load
from artsel_ray.runtime import run as runs
from artsel_ray.runtime import shards as resume
from artsel_ray.runtime.engine_pool import engine_pool, of_shards
from artsel_ray.runtime.progress import Progress
from artsel_ray.runtime.ray_cluster import start_ray
from artsel_ray.runtime.run import Run, begin
from artsel_ray.runtime.task_result import values
from artsel_ray.score.resolve import check_limits
from artsel_ray.score.stages import INVALID_ROWS, Starts

_SUMMARY = "summary.json"


def caption(config: CaptionConfig) -> None:
    """Writes artworks with captions of their pictures, resuming what an earlier run has left undone.

    Raises:
        InputError: for wrong input or flags, another run's output, or too many rejected artworks.
    """
    begun = time.perf_counter()
    files = storage.list_files(config.artworks)
    shards = plan_shards(files, "artworks", config.shard_artworks)
    captioning = resolve(config)
    parts = runs.parts(config.previous) if config.previous else []
    run = begin(config.output, _run(config, captioning), resolved(config))
    # A shard with rejected artworks is looked at again: their pictures may have been mended.
    written = resume.done(config.output)
    done = {index for index in written if not resume.read_statistics(config.output, index)["rejected"]}
    missing = [index for index in range(len(shards)) if index not in done]
    artworks = sum(shard.rows for shard in shards)
    print(
        f"{artworks:,} artworks in {len(shards):,} shards, {len(done):,} done; model {captioning.model_id}", flush=True
    )
    if missing:
        start_ray()
        parts += [storage.join(config.output, resume.part_name(index)) for index in sorted(written)]
        _caption_shards(run, config, captioning, (files, shards, parts), missing, artworks)
    _publish(run, config, captioning, len(shards), artworks, time.perf_counter() - begun)


def resolve(config: CaptionConfig) -> CaptionSettings:
    """Makes the model ready on this machine and settles what captions depend on.

    Raises:
        InputError: if there is no such model, it sees no pictures, or for numbers that cannot be.
    """
    from transformers import AutoConfig

    limits: dict[str, tuple[float, float]] = {
        "caption_tokens": (1, 10**5), "max_pixels": (256, 10**9), "kept_pixels": (256, 10**9), "engines": (1, 10**6),
        "tensor_parallel": (1, 10**3), "max_reject_rate": (0, 1), "shard_artworks": (1, 10**6),
    }  # fmt: skip
    check_limits(config, limits)
    model = load(config.model, options=False)
    try:
        settings = AutoConfig.from_pretrained(model.path, trust_remote_code=False)
    except (ValueError, OSError, KeyError) as error:
        raise InputError(f"{config.model}: transformers cannot read its config: {one_line(error)}") from None
    if getattr(settings, "vision_config", None) is None:
        raise InputError(
            f"{config.model} sees no pictures: its config has no vision_config; take a vision-language model"
        )
    if settings.model_type == "mllama" and config.engine == "vllm":
        raise InputError(f"vLLM no longer has models such as {config.model}; add --engine transformers")
    if config.engine == "transformers" and config.tensor_parallel > 1:
        raise InputError("--tensor-parallel is for --engine vllm only")
    return CaptionSettings(model.model_id, config.engine, config.dtype, config.caption_tokens, config.resize_to_pixels)


def _run(config: CaptionConfig, captioning: CaptionSettings) -> dict[str, Any]:
    return {
        **dataclasses.asdict(captioning),
        "wording": WORDING,
        "max_pixels": config.max_pixels,
        "max_model_length": config.max_model_length,
        "shard_artworks": config.shard_artworks,
        "artworks": resume.describe_files(config.artworks),
        "titles": resume.describe_files(config.titles) if config.titles else None,
        "previous": config.previous,
    }


def _names(titles: str | None) -> dict[str, str] | None:
    """Returns the names of titles by their ids; of a repeated id the first row is kept."""
    if titles is None:
        return None
    table = storage.read_table(titles, "titles", ["title_id", "name"])
    good = table.filter(pa.array(~checks.missing(table["title_id"]) & ~checks.missing(table["name"])))
    pairs = list(zip(good["title_id"].to_pylist(), good["name"].to_pylist(), strict=True))
    return dict(reversed(pairs))


def _caption_shards(
    run: Run,
    config: CaptionConfig,
    captioning: CaptionSettings,
    plan: tuple[list[str], list[Shard], list[str]],
    missing: Sequence[int],
    artworks: int,
) -> None:
    files, shards, parts = plan
    shared = ray.put((files, shards, _names(config.titles), KnownCaptions(parts)))
    dataset = (
        of_shards(missing)
        .map_batches(
            Loader,
            fn_constructor_args=[config, captioning, shared],
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=config.engines),
            num_cpus=0,  # an engine on all CPUs must not wait for it
        )
        .map_batches(
            Captioner,
            fn_constructor_args=[config, captioning, files, Starts.remote()],
            **engine_pool(config.engines, config.tensor_parallel),
        )
    )
    print("an engine starts with the first new picture, which takes a minute or more", flush=True)
    progress = Progress(len(missing), "artworks")
    for statistics in values(dataset):
        progress.add(statistics)
        run.check()
        _check_reject_rate(config, progress.invalid, artworks)


def _check_reject_rate(config: CaptionConfig, invalid: int, artworks: int) -> None:
    if invalid > config.max_reject_rate * artworks:
        raise InputError(
            f"{invalid:,} of {artworks:,} artworks were rejected, more than --max-reject-rate "
            f"{config.max_reject_rate}; the reasons are in {storage.join(config.output, INVALID_ROWS)}. Mend the pictures "
            "or give a higher rate, and run the same command again: captions are kept"
        )


def _publish(
    run: Run, config: CaptionConfig, captioning: CaptionSettings, shards: int, artworks: int, seconds: float
) -> None:
    """Sums up the shards, writes the summary, and last the manifest."""
    totals: collections.Counter[str] = collections.Counter()
    for shard in range(shards):
        totals.update(resume.read_statistics(config.output, shard))
    _check_reject_rate(config, int(totals["rejected"]), artworks)
    summary = {
        **{name: int(totals[name]) for name in (*COUNTS, "unfinished", "prompt_tokens", "decoded_tokens")},
        "model_id": captioning.model_id,
        "seconds": {"total": seconds, **{name: totals[f"{name}_seconds"] for name in ("load", "engine", "shard")}},
    }
    storage.write_json(storage.join(config.output, _SUMMARY), summary)
    parts = [resume.part_name(shard) for shard in range(shards)]
    counts = {name: int(totals[name]) for name in COUNTS}
    run.publish({"parts": parts, **counts, "model_id": captioning.model_id})
    print(
        f"{counts['artworks']:,} artworks: {counts['captioned']:,} captioned, {counts['carried']:,} captions carried "
        f"over, {counts['kept']:,} kept without a picture, {counts['invalid']:,} rejected; {config.output}",
        flush=True,
    )
