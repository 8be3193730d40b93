"""The job that writes a simulated world, one group of users after another, so that memory does not grow."""

import time
from dataclasses import replace

import numpy as np
import pyarrow as pa

from artsel_ray import schema, storage
from artsel_ray.config import AssetKind, resolved
from artsel_ray.runtime.run import begin
from artsel_ray.simulate.artworks import CaptionStyle, draw
from artsel_ray.simulate.histories import LICENSE, Histories, Viewings, movielens_histories, synthetic_histories
from artsel_ray.simulate.lexicon import Theme, vocabularies
from artsel_ray.simulate.settings import SimulateConfig
from artsel_ray.simulate.world import Behavior, Best, Impressions, World, best_possible, calibrate, make_world, show

# Impressions that are in memory at once, and that the rate of engagement is calibrated on.
_BATCH_PAIRS = 20_000


def simulate(config: SimulateConfig) -> None:
    """Writes titles, artworks, interactions, impressions, the oracle, config.json, summary.json, and the manifest.

    Raises:
        InputError: if the output holds a world of other flags, or MovieLens cannot be fetched.
    """
    started, output, flags = time.monotonic(), config.output, resolved(config)
    run = begin(output, {name: value for name, value in flags.items() if name != "output"}, flags)
    known, new = vocabularies(config.lexicon, config.new_words > 0, config.seed)
    histories = _histories(config, known[: config.themes])
    is_new_x = new_titles(len(histories.themes_xt), config.new_words, config.seed)
    style = CaptionStyle(config.caption_tokens, config.shared_words, config.asset_kind, known)
    styles = [replace(style, themes=new) if is_new else style for is_new in is_new_x]
    candidates = (config.min_candidates, config.max_candidates)
    world = make_world(histories.themes_xt, candidates, config.noise, styles, config.seed)
    artworks = write_catalog(output, histories.titles, world, config.asset_kind, config.images)
    behavior = Behavior(config.taste_strength, config.exploration)
    counts, best = {"users": 0, "interactions": 0, "engaged": 0}, Best()
    for number, watched in enumerate(histories.groups):
        group = watched.released_late(is_new_x)
        if number == 0:
            sample = group.part(0, _BATCH_PAIRS)
            behavior = calibrate(world, sample.titles, sample.taste_ut[sample.users], behavior, config.engagement_rate)
        rng = np.random.default_rng([config.seed, 5, number])
        tables, reached = _log(group, world, behavior, artworks, rng)
        for name, table in tables.items():
            _write_part(output, name, number, table)
        best += reached
        counts["users"] += len(group.user_ids)
        counts["interactions"] += len(group)
        print(f"simulate: {counts['users']:,} users, {counts['interactions']:,} interactions", flush=True)
    counts["engaged"], means = best.examples, best.means()
    summary = {
        "simulated": ["artworks", "captions", "impressions", "engagement", *["images"] * config.images],
        "source": config.source,
        "license": LICENSE if config.source == "movielens" else None,
        "titles": len(world.counts_x),
        "new_titles": int(is_new_x.sum()),
        "artworks": int(world.counts_x.sum()),
        **counts,
        "best_possible": means,
        "seconds": round(time.monotonic() - started, 1),
    }
    storage.write_json(storage.join(output, "summary.json"), summary)
    run.publish(counts)
    print(
        f"simulate: {counts['interactions']:,} interactions, {counts['engaged']:,} engaged impressions, best possible "
        f"accuracy {means['accuracy']:.3f} (random {means['random_accuracy']:.3f}) and IPS {means['ips']:.2f} "
        f"(random 1.00); {output}",
        flush=True,
    )


def _histories(config: SimulateConfig, themes: tuple[Theme, ...]) -> Histories:
    if config.source == "movielens":
        print(LICENSE, flush=True)
        return movielens_histories(config.users, config.titles, config.themes)
    users, titles = config.users or 1_000, config.titles or 500
    interactions, shared_words = config.interactions_per_user, config.shared_words
    return synthetic_histories(users, titles, themes, interactions, shared_words, config.seed)


def new_titles(count: int, share: float, seed: int) -> np.ndarray:
    """Draws which titles are new, [X] bool; exactly `share` of them, rounded."""
    return np.random.default_rng([seed, 6]).permutation(count) < round(share * count)


def artwork_ids(title_ids: list[str], counts_x: np.ndarray) -> list[str]:
    """Names the artworks of titles that have `counts_x` artworks each."""
    return [f"{title}-a{i:02d}" for title, count in zip(title_ids, counts_x, strict=True) for i in range(count)]


def write_catalog(output: str, titles: pa.Table, world: World, kind: AssetKind, images: bool) -> pa.Table:
    """Writes titles and artworks, with `images` an image of each below artworks/images; returns the artworks."""
    title_ids = titles["title_id"].to_pylist()
    ids = artwork_ids(title_ids, world.counts_x)
    paths = [f"images/{artwork_id}.png" if images else None for artwork_id in ids]
    columns = {
        "artwork_id": ids,
        "title_id": np.repeat(title_ids, world.counts_x),
        "caption": [caption for captions in world.captions for caption in captions],
        "image_uri": pa.array(paths, pa.string()),
        "asset_kind": pa.repeat(kind, len(ids)),
    }
    artworks = pa.table(columns)
    _write_part(output, "titles", 0, titles)
    _write_part(output, "artworks", 0, artworks)
    for path, mix in zip(paths, world.mix_xmt[world.mask_xm], strict=True):
        if path is not None:
            storage.write_object(storage.join(output, "artworks", path), draw(mix))
    return artworks


def _log(
    group: Viewings, world: World, behavior: Behavior, artworks: pa.Table, rng: np.random.Generator
) -> tuple[dict[str, pa.Table], Best]:
    parts, best = [], Best()
    for start in range(0, len(group), _BATCH_PAIRS):
        viewings = group.part(start, start + _BATCH_PAIRS)
        shown = show(world, viewings.titles, viewings.taste_ut[viewings.users], behavior, rng)
        parts.append(log_tables(viewings, shown, world, artworks))
        engaged_n, counts_n = shown.engaged_n, world.counts_x[viewings.titles]
        best += best_possible(shown.policy_nm[engaged_n], shown.engagement_nm[engaged_n], counts_n[engaged_n])
    return {name: pa.concat_tables([part[name] for part in parts]) for name in parts[0]}, best


def log_tables(viewings: Viewings, shown: Impressions, world: World, artworks: pa.Table) -> dict[str, pa.Table]:
    """Returns the rows of interactions, impressions and oracle of viewings, each with its impression at its time."""
    titles_n, watched = viewings.titles, viewings.watch_seconds
    first_n, ids = world.first_x[titles_n], artworks["artwork_id"].combine_chunks()
    user_ids = pa.array(viewings.user_ids).take(pa.array(viewings.users))
    common = {"user_id": user_ids, "title_id": artworks["title_id"].take(pa.array(first_n))}
    times = pa.array(viewings.seconds * 1_000_000).cast(schema.TIMESTAMP)
    watch_seconds = pa.nulls(len(viewings), pa.float32()) if watched is None else pa.array(watched)
    impressions = {
        "artwork_id": ids.take(pa.array(first_n + shown.positions_n)),
        "timestamp": times,
        "engaged": pa.array(shown.engaged_n),
        "propensity": pa.array(shown.propensities_n),
    }
    mask = world.mask_xm[titles_n]
    offsets = pa.array(np.concatenate([[0], np.cumsum(world.counts_x[titles_n])]).astype(np.int32))
    candidates = (first_n[:, None] + np.arange(mask.shape[1]))[mask]
    oracle = {
        "artwork_ids": pa.ListArray.from_arrays(offsets, ids.take(pa.array(candidates))),
        "engagement_probabilities": pa.ListArray.from_arrays(offsets, pa.array(shown.engagement_nm[mask])),
        "propensities": pa.ListArray.from_arrays(offsets, pa.array(shown.policy_nm[mask])),
    }
    return {
        "interactions": pa.table({**common, "timestamp": times, "watch_seconds": watch_seconds}),
        "impressions": pa.table({**common, **impressions}),
        "oracle": pa.table({**common, **oracle}),
    }


def _write_part(output: str, name: str, number: int, table: pa.Table) -> None:
    storage.write_table(storage.join(output, name, f"part-{number:06d}.parquet"), table, name)
