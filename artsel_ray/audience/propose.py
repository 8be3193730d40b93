"""Artwork that is missing: finds the users whom none of a title's artworks suits, and has a model write a brief."""

import dataclasses
import itertools
import time
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from artsel_ray import storage
from artsel_ray.audience import brief
from artsel_ray.audience.settings import ProposeConfig
from artsel_ray.audience.user_segments import (
    ScoredRun,
    UserGenres,
    asset_kind_of,
    over_indexed_genres,
    read_scored_run,
    read_user_genres,
)
from artsel_ray.config import resolved
from artsel_ray.data.catalog import Catalog, read_catalog
from artsel_ray.engines.base import Sampling
from artsel_ray.engines.vllm import VllmEngine
from artsel_ray.errors import InputError
from artsel_ray.models.load import load
from artsel_ray.prompts.spec import PromptSpec
from artsel_ray.runtime import run as runs
from artsel_ray.runtime import shards as resume
from artsel_ray.runtime.engine_pool import engine_pool, of_shards
from artsel_ray.runtime.progress import Progress
from artsel_ray.runtime.ray_cluster import start_ray
from artsel_ray.runtime.task_result import answer, values
from artsel_ray.schema import PROPOSALS
from artsel_ray.score.rendering import prompt_tokenizer, tokenize_title
from artsel_ray.score.resolve import model_length

_SHARD = 64
# A brief that is decoded greedily repeats itself, the more so the smaller its writer.
_TEMPERATURE, _TOP_P = 0.7, 0.95


@dataclasses.dataclass(frozen=True)
class Gap:
    """Users of a title whom no artwork suits."""

    title: int
    """Place in the catalogue."""
    users: int
    asked: int
    """All of the title's users."""
    over_indexed_genres: list[dict[str, Any]]


def propose(config: ProposeConfig) -> None:
    """Writes part-*.parquet with one proposal a row, those for most users first; resumes what is undone.

    Raises:
        InputError: for wrong input or flags, a night that is not finished or not ranked, or another run's output.
    """
    begun = time.perf_counter()
    if config.min_users < 2 or not 0 < config.share < 1:
        raise InputError(f"--least-users {config.min_users} must be 2 or more, --share {config.share} between 0 and 1")
    parts = runs.parts(config.predictions)
    spec = PromptSpec(asset_kind=asset_kind_of(config.predictions))
    tables = storage.list_files(config.titles), storage.list_files(config.artworks)
    catalog, captions, _ = read_catalog(*tables, spec.asset_kind)
    model = load(config.model)
    decides = {name: value for name, value in resolved(config).items() if name not in ("output", "engines", "model")}
    decides |= {"model": model.model_id, "wording": brief.WORDING}
    run = runs.begin(config.output, decides, resolved(config))
    user_genres = read_user_genres(storage.list_files(config.requests))
    scored = read_scored_run(parts, catalog, user_genres, ranked=True)
    gaps = find_gaps(scored, user_genres, config.share, config.min_users)[: config.most]
    print(f"{len(gaps):,} titles have users whom none of their artworks suits; model {model.model_id}", flush=True)
    shards = [gaps[first : first + _SHARD] for first in range(0, len(gaps), _SHARD)]
    done = resume.done(config.output)
    missing = [index for index in range(len(shards)) if index not in done]
    if missing:
        start_ray()
        shared = ray.put((catalog, captions, shards))
        length = min(config.max_model_length, model_length(model))
        dataset = of_shards(missing).map_batches(
            BriefWriter,
            fn_constructor_args=[config, model.model_id, spec, length, shared],
            **engine_pool(config.engines, config.tensor_parallel),
        )
        print(f"starting {config.engines} engine(s), which takes a minute or more", flush=True)
        progress = Progress(len(missing), "proposals")
        for statistics in values(dataset):
            progress.add(statistics)
            run.check()
    summary = {
        "pairs": len(scored.user_n),
        "titles": len(np.unique(scored.title_n)),
        "proposals": len(gaps),
        "users": sum(gap.users for gap in gaps),
        "model_id": model.model_id,
        "seconds": round(time.perf_counter() - begun, 1),
    }
    storage.write_json(storage.join(config.output, "summary.json"), summary)
    run.publish({"parts": [resume.part_name(index) for index in range(len(shards))], "proposals": len(gaps)})
    print(f"{len(gaps):,} proposals for {summary['users']:,} users; {config.output}", flush=True)


def find_gaps(scored: ScoredRun, user_genres: UserGenres, share: float, min_users: int) -> list[Gap]:
    """Returns at most one gap a title, those with most users first.

    Of the title's users the `share` of whom the model knows least what they would like are compared with the others:
    where they watch more of a genre, no candidate answers that taste. Fewer than `min_users` are no group.
    """
    gaps = []
    for title in scored.titles():
        kl_divergence_n, share_ng = scored.kl_divergence_n[title], user_genres.share_ug[scored.user_n[title]]
        inside_n = kl_divergence_n <= np.quantile(kl_divergence_n, share)
        liked = over_indexed_genres(share_ng, inside_n, user_genres.genres)
        if not liked:
            continue
        places = [user_genres.genres.index(each["genre"]) for each in liked]
        outside = np.array([each["outside"] for each in liked])
        users = int((inside_n & (share_ng[:, places] > outside).any(axis=1)).sum())
        if users >= min_users:
            gaps.append(Gap(int(scored.title_n[title.start]), users, len(kl_divergence_n), liked))
    return sorted(gaps, key=lambda gap: -gap.users)


class BriefWriter:
    """Writes briefs with an engine of its own."""

    def __init__(
        self, config: ProposeConfig, model_id: str, spec: PromptSpec, length: int, shared: ray.ObjectRef
    ) -> None:
        """Loads the model."""
        self._config, self._model_id, self._spec, self._length = config, model_id, spec, length
        self._catalog, self._captions, self._shards = ray.get(shared)
        tokens = len(prompt_tokenizer(config.model, spec).tokenizer)
        self._engine = VllmEngine(
            load(config.model).path, length, tokens, config.dtype, config.tensor_parallel, seeded=True
        )

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Writes one shard and returns its statistics."""
        written = answer(self._write, int(batch["shard"][0]))
        return {name: [each] for name, each in written.items()}

    def _write(self, index: int) -> dict[str, float]:
        gaps, config = self._shards[index], self._config
        pieces = prompt_tokenizer(config.model, self._spec)
        options = [tokenize_title(pieces, self._catalog, self._captions, gap.title) for gap in gaps]
        asked = [
            brief.ask(pieces, each, [liked["genre"] for liked in gap.over_indexed_genres])
            for gap, each in zip(gaps, options, strict=True)
        ]
        fits = [len(ids) + config.max_tokens <= self._length for ids in asked]
        stop = [int(pieces.tokenizer.eos_token_id)]
        kept = list(itertools.compress(asked, fits))
        seeds = [
            (config.seed * len(self._catalog.title_ids) + gap.title) % 2**31 for gap in itertools.compress(gaps, fits)
        ]
        sampling = Sampling(_TEMPERATURE, _TOP_P, 0, seeds)
        texts = iter(pieces.tokenizer.batch_decode(self._engine.write(kept, config.max_tokens, stop, sampling)))
        briefs = [brief.read(next(texts)) if fit else None for fit in fits]
        rows = _rows(gaps, briefs, self._catalog, self._model_id)
        statistics: dict[str, float] = {"proposals": len(rows), "rejected": fits.count(False)}
        metadata = resume.statistics_metadata(statistics)
        storage.write_table(storage.join(config.output, resume.part_name(index)), rows, "proposals", metadata)
        return statistics


def _rows(gaps: list[Gap], briefs: list[str | None], catalog: Catalog, model_id: str) -> pa.Table:
    rows = [
        {
            "title_id": catalog.title_ids[gap.title].as_py(),
            "users": gap.users,
            "share": gap.users / gap.asked,
            "favourites": gap.over_indexed_genres,
            "brief": text,
            "model_id": model_id,
        }
        for gap, text in zip(gaps, briefs, strict=True)
    ]
    return pa.Table.from_pylist(rows, PROPOSALS)
