"""A simulated world's arrays as the Parquet tables of `schema`."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from artsel_ray import schema, storage
from artsel_ray.config import AssetKind
from artsel_ray.simulate.drawing import draw
from artsel_ray.simulate.histories import Titles, Viewings
from artsel_ray.simulate.world import Impressions, World


@dataclass(frozen=True)
class CatalogIds:
    """Ids of X titles and of their artworks."""

    titles: pa.Array
    artworks: pa.Array
    """By title."""
    first_x: np.ndarray
    """Index of each title's first artwork."""


def catalog_ids(title_ids: list[str], counts_x: np.ndarray) -> CatalogIds:
    """Names the artworks of titles that have `counts_x` artworks each."""
    artworks = [f"{title}-a{i:02d}" for title, count in zip(title_ids, counts_x, strict=True) for i in range(count)]
    return CatalogIds(pa.array(title_ids), pa.array(artworks), np.cumsum(counts_x) - counts_x)


def write_catalog(output: str, titles: Titles, ids: CatalogIds, world: World, kind: AssetKind, images: bool) -> None:
    """Writes titles and artworks, and with `images` an image of each artwork below artworks/images."""
    rows = {"title_id": ids.titles, "name": titles.names, "year": titles.years, "genres": titles.genres}
    _write(output, "titles", 0, pa.table(rows))
    paths = [f"images/{artwork_id}.png" if images else None for artwork_id in ids.artworks.to_pylist()]
    artworks = {
        "artwork_id": ids.artworks,
        "title_id": np.repeat(titles.title_ids, world.counts_x),
        "caption": [caption for captions in world.captions for caption in captions],
        "image_uri": pa.array(paths, pa.string()),
        "asset_kind": pa.repeat(kind, len(ids.artworks)),
    }
    _write(output, "artworks", 0, pa.table(artworks))
    for path, mix in zip(paths, world.mix_xmt[world.mask_xm], strict=True):
        if path is not None:
            storage.write_object(storage.join(output, "artworks", path), draw(mix))


def write_group(output: str, number: int, parts: list[dict[str, pa.Table]]) -> None:
    """Writes one group's interactions, impressions and oracle, each as one file."""
    for name in parts[0]:
        _write(output, name, number, pa.concat_tables([part[name] for part in parts]))


def _write(output: str, name: str, number: int, table: pa.Table) -> None:
    storage.write_table(storage.join(output, name, f"part-{number:06d}.parquet"), table, name)


def log_tables(viewings: Viewings, shown: Impressions, world: World, ids: CatalogIds) -> dict[str, pa.Table]:
    """Returns the rows of interactions, impressions and oracle of viewings, each with its impression at its time."""
    titles_n = viewings.titles
    common = {
        "user_id": pa.array(viewings.user_ids).take(pa.array(viewings.users)),
        "title_id": ids.titles.take(pa.array(titles_n)),
    }
    times = pa.array(viewings.seconds * 1_000_000).cast(schema.TIMESTAMP)
    watched = viewings.watch_seconds
    watch_seconds = pa.nulls(len(viewings), pa.float32()) if watched is None else pa.array(watched)
    impressions = {
        "artwork_id": ids.artworks.take(pa.array(ids.first_x[titles_n] + shown.positions_n)),
        "timestamp": times,
        "engaged": pa.array(shown.engaged_n),
        "propensity": pa.array(shown.propensities_n),
    }
    mask = world.mask_xm[titles_n]
    offsets = pa.array(np.concatenate([[0], np.cumsum(world.counts_x[titles_n])]).astype(np.int32))
    candidates = (ids.first_x[titles_n][:, None] + np.arange(mask.shape[1]))[mask]
    oracle = {
        "artwork_ids": pa.ListArray.from_arrays(offsets, ids.artworks.take(pa.array(candidates))),
        "engagement_probabilities": pa.ListArray.from_arrays(offsets, pa.array(shown.engagement_nm[mask])),
        "propensities": pa.ListArray.from_arrays(offsets, pa.array(shown.policy_nm[mask])),
    }
    return {
        "interactions": pa.table({**common, "timestamp": times, "watch_seconds": watch_seconds}),
        "impressions": pa.table({**common, **impressions}),
        "oracle": pa.table({**common, **oracle}),
    }
