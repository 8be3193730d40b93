import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from artsel_ray import schema
from artsel_ray.data.checked_reader import read_table
from artsel_ray.simulate import world as w
from artsel_ray.simulate.drawing import draw
from artsel_ray.simulate.histories import Titles, Viewings
from artsel_ray.simulate.tables import catalog_ids, log_tables, write_catalog

TITLES = Titles(["t0", "t1"], ["Zero", "One"], [1999, None], [["Comedy"], ["War", "Drama"]])
WORLD = w.make_world(w.genre_themes(TITLES.genres, 3), (2, 3), 0.5, w.CaptionStyle(20, 0.3), seed=1)
IDS = catalog_ids(TITLES.title_ids, WORLD.counts_x)


def test_artwork_ids_are_by_title() -> None:
    ids = catalog_ids(["x", "y"], np.array([1, 2]))
    assert ids.artworks.to_pylist() == ["x-a00", "y-a00", "y-a01"]
    assert ids.first_x.tolist() == [0, 1]


@pytest.mark.parametrize("images", [False, True])
def test_catalog_holds_titles_artworks_and_their_images(tmp_path: Path, images: bool) -> None:
    write_catalog(str(tmp_path), TITLES, IDS, WORLD, "synopsis", images)
    titles = read_table(f"{tmp_path}/titles", "titles").to_pylist()
    assert [(row["name"], row["year"], row["genres"]) for row in titles] == [
        ("Zero", 1999, ["Comedy"]),
        ("One", None, ["War", "Drama"]),
    ]
    artworks = read_table(f"{tmp_path}/artworks", "artworks")
    assert artworks["artwork_id"].to_pylist() == IDS.artworks.to_pylist()
    assert artworks["caption"].to_pylist() == WORLD.captions[0] + WORLD.captions[1]
    assert set(artworks["asset_kind"].to_pylist()) == {"synopsis"}
    paths = [f"images/{artwork_id}.png" if images else None for artwork_id in IDS.artworks.to_pylist()]
    assert artworks["image_uri"].to_pylist() == paths
    if images:
        last = (tmp_path / "artworks" / str(paths[-1])).read_bytes()
        assert last == draw(WORLD.mix_xmt[1, WORLD.counts_x[1] - 1])
        assert Image.open(io.BytesIO(last)).size == (64, 64)
    else:
        assert not (tmp_path / "artworks/images").exists()


def test_rows_of_the_log_agree_with_the_arrays() -> None:
    viewings = Viewings(["u", "v"], np.eye(3)[:2], np.array([0, 0, 1]), np.array([1, 0, 1]), np.array([5, 6, 7]), None)
    shown = w.show(
        WORLD, viewings.titles, viewings.taste_ut[viewings.users], w.Behavior(1.0, 0.2), np.random.default_rng(0)
    )
    tables = log_tables(viewings, shown, WORLD, IDS)
    interactions, impressions, oracle = (tables[name].to_pylist() for name in ("interactions", "impressions", "oracle"))
    assert [(row["user_id"], row["title_id"], row["watch_seconds"]) for row in interactions] == [
        ("u", "t1", None), ("u", "t0", None), ("v", "t1", None),
    ]  # fmt: skip
    assert tables["interactions"]["timestamp"].cast(pa.int64()).to_pylist() == [5_000_000, 6_000_000, 7_000_000]
    for n, (row, truth) in enumerate(zip(impressions, oracle, strict=True)):
        position = truth["artwork_ids"].index(row["artwork_id"])
        assert position == shown.positions_n[n]
        assert truth["artwork_ids"] == [id_ for id_ in IDS.artworks.to_pylist() if id_.startswith(row["title_id"])]
        assert row["propensity"] == truth["propensities"][position]
        assert truth["engagement_probabilities"] == shown.engagement_nm[n, : len(truth["artwork_ids"])].tolist()
        assert row["engaged"] == shown.engaged_n[n]
    assert all(tables[name].column_names == schema.TABLES[name].names for name in tables)
