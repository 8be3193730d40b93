"""The job that writes a simulated world, one group of users after another, so that memory does not grow."""

import time
from typing import Any

import numpy as np

from artsel_ray import storage
from artsel_ray.config import resolved
from artsel_ray.runtime.run import begin
from artsel_ray.simulate import movielens
from artsel_ray.simulate.histories import Histories, Viewings
from artsel_ray.simulate.settings import SimulateConfig
from artsel_ray.simulate.synthetic import synthetic_histories
from artsel_ray.simulate.tables import CatalogIds, catalog_ids, log_tables, write_catalog, write_group
from artsel_ray.simulate.world import Behavior, Best, CaptionStyle, World, best_possible, calibrate, make_world, show

# Impressions that are in memory at once, and that the rate of engagement is calibrated on.
_BATCH_PAIRS = 20_000
_SYNTHETIC_USERS, _SYNTHETIC_TITLES = 1_000, 500


def simulate(config: SimulateConfig) -> None:
    """Writes titles, artworks, interactions, impressions, the oracle, config.json, summary.json, and the manifest.

    Raises:
        InputError: if the output holds a world of other flags, or MovieLens cannot be fetched.
    """
    started = time.monotonic()
    flags = resolved(config)
    run = begin(config.output, {name: value for name, value in flags.items() if name != "output"}, flags)
    histories = _histories(config)
    world = make_world(
        histories.themes_xt,
        (config.min_candidates, config.max_candidates),
        config.noise,
        CaptionStyle(config.caption_tokens, config.shared_words, config.asset_kind),
        config.seed,
    )
    ids = catalog_ids(histories.titles.title_ids, world.counts_x)
    write_catalog(config.output, histories.titles, ids, world, config.asset_kind, config.images)
    behavior = Behavior(config.taste_strength, config.exploration)
    counts, best = {"users": 0, "interactions": 0, "engaged": 0}, Best()
    for number, group in enumerate(histories.groups):
        if number == 0:
            sample = group.part(0, _BATCH_PAIRS)
            taste_nt = sample.taste_ut[sample.users]
            behavior = calibrate(world, sample.titles, taste_nt, behavior, config.engagement_rate)
        rng = np.random.default_rng([config.seed, 5, number])
        best += _write_log(config.output, number, group, world, behavior, ids, rng)
        counts["users"] += len(group.user_ids)
        counts["interactions"] += len(group)
        print(f"simulate: {counts['users']:,} users, {counts['interactions']:,} interactions", flush=True)
    counts["engaged"] = best.examples
    summary = _summary(config, world, counts, best, round(time.monotonic() - started, 1))
    storage.write_json(storage.join(config.output, "summary.json"), summary)
    run.publish(counts)
    means = best.means()
    print(
        f"simulate: {counts['interactions']:,} interactions, {counts['engaged']:,} engaged impressions, best possible "
        f"accuracy {means['accuracy']:.3f} (random {means['random_accuracy']:.3f}) and IPS {means['ips']:.2f} "
        f"(random 1.00); {config.output}",
        flush=True,
    )


def _histories(config: SimulateConfig) -> Histories:
    if config.source == "movielens":
        print(movielens.LICENSE, flush=True)
        return movielens.movielens_histories(config.users, config.titles, config.themes)
    return synthetic_histories(
        config.users or _SYNTHETIC_USERS,
        config.titles or _SYNTHETIC_TITLES,
        config.themes,
        config.interactions_per_user,
        config.shared_words,
        config.seed,
    )


def _write_log(
    output: str,
    number: int,
    group: Viewings,
    world: World,
    behavior: Behavior,
    ids: CatalogIds,
    rng: np.random.Generator,
) -> Best:
    """Writes a group's interactions, impressions and oracle; returns what the best predictors reach on them."""
    parts, best = [], Best()
    for start in range(0, len(group), _BATCH_PAIRS):
        viewings = group.part(start, start + _BATCH_PAIRS)
        shown = show(world, viewings.titles, viewings.taste_ut[viewings.users], behavior, rng)
        parts.append(log_tables(viewings, shown, world, ids))
        engaged_n = shown.engaged_n
        counts_n = world.counts_x[viewings.titles]
        best += best_possible(shown.policy_nm[engaged_n], shown.engagement_nm[engaged_n], counts_n[engaged_n])
    write_group(output, number, parts)
    return best


def _summary(
    config: SimulateConfig, world: World, counts: dict[str, int], best: Best, seconds: float
) -> dict[str, Any]:
    return {
        "simulated": ["artworks", "captions", "impressions", "engagement", *["images"] * config.images],
        "source": config.source,
        "licence": movielens.LICENSE if config.source == "movielens" else None,
        "titles": len(world.counts_x),
        "artworks": int(world.counts_x.sum()),
        **counts,
        "best_possible": best.means(),
        "seconds": seconds,
    }
