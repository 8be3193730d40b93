"""The job that writes a simulated world, one group of users after another, so that memory does not grow."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from artsel_ray import schema, storage
from artsel_ray.config import resolved
from artsel_ray.errors import InputError
from artsel_ray.runtime.run import begin
from artsel_ray.simulate import movielens
from artsel_ray.simulate.drawing import draw
from artsel_ray.simulate.settings import SimulateConfig
from artsel_ray.simulate.themes import THEMES
from artsel_ray.simulate.world import (
    Behavior,
    Best,
    World,
    best_possible,
    calibrate,
    engagement,
    genre_themes,
    make_world,
    match,
    propensities,
)

# Scores of users for titles that are held at once, and users of one group of files.
_CHUNK_SCORES = 4_000_000
_CHUNK_USERS = 10_000
_PAIRS = 20_000
_START_SECONDS = 1_672_531_200  # 2023-01-01
_YEAR_SECONDS = 365 * 86_400
_TASTE_SHARPNESS = 3.0
_MAX_THEMES = len(THEMES)


@dataclass(frozen=True)
class Viewings:
    """What some users watched: users ascending, each user's viewings by time."""

    user_ids: list[str]
    taste_ut: np.ndarray
    """[U, T] rows sum to 1."""
    users: np.ndarray
    """[I] index into `user_ids`."""
    titles: np.ndarray
    """[I] index of the title."""
    seconds: np.ndarray
    """[I] seconds since 1970."""
    watch_seconds: np.ndarray | None
    """[I] or None where it is not known."""


def simulate(config: SimulateConfig) -> None:
    """Writes titles, artworks, interactions, impressions, the oracle, config.json, summary.json, and the manifest.

    Raises:
        InputError: if a flag is out of range, or the output holds a world of other flags.
    """
    _check(config)
    begun = time.monotonic()
    world_flags = {name: value for name, value in resolved(config).items() if name != "output"}
    run = begin(config.output, world_flags, resolved(config))
    if config.source == "movielens":
        print(movielens.LICENSE, flush=True)
        titles, world, groups = _movielens(config)
    else:
        titles, world, groups = _synthetic(config)
    _write_catalog(config, titles, world)
    if config.images:
        _draw(config, titles["title_id"], world)
    counts, best = _write_groups(config, world, titles["title_id"], groups)
    summary = {
        "simulated": ["artworks", "captions", "impressions", "engagement", *["pictures"] * config.images],
        "source": config.source,
        "licence": movielens.LICENSE if config.source == "movielens" else None,
        "titles": len(titles["title_id"]),
        "artworks": int(world.counts_x.sum()),
        **counts,
        "best_possible": best.means(),
        "seconds": round(time.monotonic() - begun, 1),
    }
    storage.write_json(storage.join(config.output, "summary.json"), summary)
    run.publish(counts)
    means = best.means()
    print(
        f"simulate: {counts['interactions']:,} interactions, {counts['engaged']:,} engaged impressions, best possible "
        f"accuracy {means['accuracy']:.3f} (random {means['random_accuracy']:.3f}) and IPS {means['ips']:.2f} "
        f"(random 1.00); {config.output}",
        flush=True,
    )


def _check(config: SimulateConfig) -> None:
    limits = {
        "themes": (2, _MAX_THEMES), "min_candidates": (1, 1000), "max_candidates": (config.min_candidates, 1000),
        "caption_tokens": (8, 10_000), "shared_words": (0, 1), "exploration": (0.001, 1), "noise": (0, 100),
        "engagement_rate": (0.001, 0.999), "taste_strength": (0, 100), "interactions_per_user": (1, 100_000),
        "users": (1, 943 if config.source == "movielens" else 10**9),
        "titles": (2, 1682 if config.source == "movielens" else 10**6),
    }  # fmt: skip
    for name, (least, most) in limits.items():
        value = getattr(config, name)
        if value is not None and not least <= value <= most:
            raise InputError(f"--{name.replace('_', '-')} is {value}, expected a number from {least} to {most}")


Titles = dict[str, list[Any]]
"""Columns of the titles table."""


def _movielens(config: SimulateConfig) -> tuple[Titles, World, Iterator[Viewings]]:
    data = movielens.read_movielens(config.users, config.titles)
    titles: Titles = {"title_id": data.title_ids, "name": data.names, "year": data.years, "genres": data.genres}
    world = _world(config, genre_themes(data.genres, config.themes))
    # A user's taste is what this user watched more of than others do, sharpened.
    share_ut = np.zeros((len(data.user_ids), config.themes))
    np.add.at(share_ut, data.users, world.themes_xt[data.titles])
    share_ut /= share_ut.sum(axis=1, keepdims=True)
    taste_ut = (share_ut / share_ut.mean(axis=0)) ** _TASTE_SHARPNESS
    taste_ut /= taste_ut.sum(axis=1, keepdims=True)
    return titles, world, iter([Viewings(data.user_ids, taste_ut, data.users, data.titles, data.seconds, None)])


def _synthetic(config: SimulateConfig) -> tuple[Titles, World, Iterator[Viewings]]:
    count, users = config.titles or 500, config.users or 1000
    rng = np.random.default_rng([config.seed, 2])
    known = sorted({genre for theme in THEMES[: config.themes] for genre in theme.genres})
    genres = [rng.choice(known, size=int(rng.integers(1, 4)), replace=False).tolist() for _ in range(count)]
    themes_xt = genre_themes(genres, config.themes)
    titles: Titles = {
        "title_id": [f"t{number:06d}" for number in range(count)],
        "name": [_name(config, themes, rng) for themes in themes_xt],
        "year": rng.integers(1950, 2025, count).tolist(),
        "genres": genres,
    }
    return titles, _world(config, themes_xt), _synthetic_groups(config, themes_xt, users)


def _name(config: SimulateConfig, themes: np.ndarray, rng: np.random.Generator) -> str:
    """Returns a title's name; with `shared_words` its word is one that captions of its themes use."""
    theme = THEMES[int(rng.choice(len(themes), p=themes))]
    words = theme.objects if rng.random() < config.shared_words else ("the old road", "a long week", "the other side")
    word = str(rng.choice(words)).removeprefix("a ").removeprefix("the ").title()
    return f"The {word} {rng.integers(2, 1000)}"


def _synthetic_groups(config: SimulateConfig, themes_xt: np.ndarray, users: int) -> Iterator[Viewings]:
    count, themes = themes_xt.shape
    popularity_x = -0.8 * np.log(np.random.default_rng([config.seed, 3]).permutation(count) + 5.0)
    size = max(1, min(_CHUNK_USERS, _CHUNK_SCORES // count))
    for first in range(0, users, size):
        rng = np.random.default_rng([config.seed, 4, first])
        group = min(size, users - first)
        taste_ut = rng.dirichlet(np.full(themes, 0.3), group)
        scores = popularity_x + 2.0 * themes * (taste_ut @ themes_xt.T) / 2.0 + rng.gumbel(size=(group, count))
        lengths = np.rint(rng.lognormal(math.log(config.interactions_per_user) - 0.08, 0.4, group))
        lengths = lengths.clip(1, count).astype(np.int64)
        # The best of Gumbel scores are a draw without replacement in proportion to the weights.
        ranked = np.argpartition(-scores, min(int(lengths.max()), count - 1), axis=1)[:, : int(lengths.max())]
        inner = np.argsort(-np.take_along_axis(scores, ranked, axis=1), axis=1)
        ranked = np.take_along_axis(ranked, inner, axis=1)
        watched = np.arange(ranked.shape[1]) < lengths[:, None]
        owners = np.repeat(np.arange(group), lengths)
        seconds = _START_SECONDS + rng.integers(0, _YEAR_SECONDS, len(owners))
        titles, order = ranked[watched], np.lexsort((rng.random(len(owners)), owners))
        by_time = np.lexsort((seconds, owners))
        yield Viewings(
            [f"u{number:08d}" for number in range(first, first + group)],
            taste_ut, owners, titles[order], seconds[by_time], rng.gamma(2.0, 1800.0, len(owners)).round(),
        )  # fmt: skip


def _world(config: SimulateConfig, themes_xt: np.ndarray) -> World:
    candidates = (config.min_candidates, config.max_candidates)
    kind, tokens = config.asset_kind, config.caption_tokens
    return make_world(themes_xt, candidates, config.noise, tokens, config.shared_words, config.seed, kind)


def _artwork_ids(title_ids: list[str], counts_x: np.ndarray) -> list[list[str]]:
    return [[f"{title}-a{i:02d}" for i in range(count)] for title, count in zip(title_ids, counts_x, strict=True)]


def _write_catalog(config: SimulateConfig, titles: Titles, world: World) -> None:
    count = len(titles["title_id"])
    table = pa.table({**titles, "synopsis": pa.nulls(count, pa.string())}, schema=_loose(schema.TITLES))
    storage.write_table(storage.join(config.output, "titles", "part-000000.parquet"), table, "titles")
    ids = [artwork for of_title in _artwork_ids(titles["title_id"], world.counts_x) for artwork in of_title]
    artworks = {
        "artwork_id": ids,
        "title_id": np.repeat(titles["title_id"], world.counts_x),
        "caption": [caption for of_title in world.captions for caption in of_title],
        "image_uri": pa.array([_image_path(each) if config.images else None for each in ids], pa.string()),
        "asset_kind": pa.repeat(config.asset_kind, int(world.counts_x.sum())),
    }
    storage.write_table(storage.join(config.output, "artworks", "part-000000.parquet"), pa.table(artworks), "artworks")


def _image_path(artwork_id: str) -> str:
    """Returns where an artwork's picture is, below the folder of the artworks."""
    return f"pictures/{artwork_id}.png"


def _draw(config: SimulateConfig, title_ids: list[str], world: World) -> None:
    for row, ids in enumerate(_artwork_ids(title_ids, world.counts_x)):
        for artwork_id, mix in zip(ids, world.mix_xmt[row], strict=False):
            storage.write_object(storage.join(config.output, "artworks", _image_path(artwork_id)), draw(mix))


def _loose(table: pa.Schema) -> pa.Schema:
    return pa.schema([field.with_nullable(True) for field in table])


def _write_groups(
    config: SimulateConfig, world: World, title_ids: list[str], groups: Iterator[Viewings]
) -> tuple[dict[str, int], Best]:
    behavior = Behavior(config.taste_strength, config.exploration)
    flat_ids = pa.array([artwork for ids in _artwork_ids(title_ids, world.counts_x) for artwork in ids])
    first_x = np.concatenate([[0], np.cumsum(world.counts_x)[:-1]])
    counts, best = {"users": 0, "interactions": 0, "engaged": 0}, Best()
    for number, group in enumerate(groups):
        if number == 0:
            sample = slice(0, _PAIRS)
            taste = group.taste_ut[group.users[sample]]
            behavior = calibrate(world, group.titles[sample], taste, behavior, config.engagement_rate)
        rng = np.random.default_rng([config.seed, 5, number])
        tables: dict[str, list[pa.Table]] = {"interactions": [], "impressions": [], "oracle": []}
        for start in range(0, len(group.users), _PAIRS):
            part = replace(
                group,
                **{name: getattr(group, name)[start : start + _PAIRS] for name in ("users", "titles", "seconds")},
                watch_seconds=None if group.watch_seconds is None else group.watch_seconds[start : start + _PAIRS],
            )
            rows, reached = _impressions(part, world, behavior, title_ids, flat_ids, first_x, rng)
            best += reached
            for name, table in rows.items():
                tables[name].append(table)
        for name, parts in tables.items():
            uri = storage.join(config.output, name, f"part-{number:06d}.parquet")
            storage.write_table(uri, pa.concat_tables(parts), name)
        counts["users"] += len(group.user_ids)
        counts["interactions"] += len(group.users)
        print(f"simulate: {counts['users']:,} users, {counts['interactions']:,} interactions", flush=True)
    counts["engaged"] = best.examples
    return counts, best


def _impressions(
    part: Viewings,
    world: World,
    behavior: Behavior,
    title_ids: list[str],
    flat_ids: pa.Array,
    first_x: np.ndarray,
    rng: np.random.Generator,
) -> tuple[dict[str, pa.Table], Best]:
    """Shows each viewing's user an artwork of the title at the time of the viewing, and lets the user engage."""
    matches = match(world, part.titles, part.taste_ut[part.users])
    policy = propensities(world, part.titles, matches, behavior)
    engaged_probability = engagement(world, part.titles, matches, behavior)
    rows = np.arange(len(part.users))
    shown = (rng.random((len(rows), 1)) >= np.cumsum(policy, axis=1)).sum(axis=1)
    shown = np.minimum(shown, world.counts_x[part.titles] - 1)
    engaged = rng.random(len(rows)) < engaged_probability[rows, shown]
    mask, counts_n = world.mask_xm[part.titles], world.counts_x[part.titles]
    users, titles = pa.array(part.user_ids).take(pa.array(part.users)), pa.array(title_ids).take(pa.array(part.titles))
    times = pa.array(part.seconds * 1_000_000).cast(schema.TIMESTAMP)
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts_n)]).astype(np.int32))
    of_pair = (first_x[part.titles][:, None] + np.arange(mask.shape[1]))[mask]
    watch = pa.nulls(len(rows), pa.float32()) if part.watch_seconds is None else pa.array(part.watch_seconds)
    tables = {
        "interactions": [users, titles, times, watch],
        "impressions": [
            users,
            titles,
            flat_ids.take(pa.array(first_x[part.titles] + shown)),
            times,
            pa.array(engaged),
            pa.array(policy[rows, shown]),
        ],
        "oracle": [
            users,
            titles,
            pa.ListArray.from_arrays(offsets, flat_ids.take(pa.array(of_pair))),
            pa.ListArray.from_arrays(offsets, pa.array(engaged_probability[mask])),
            pa.ListArray.from_arrays(offsets, pa.array(policy[mask])),
        ],
    }
    best = best_possible(policy[engaged], engaged_probability[engaged], counts_n[engaged])
    return {name: pa.table(columns, names=schema.TABLES[name].names) for name, columns in tables.items()}, best
