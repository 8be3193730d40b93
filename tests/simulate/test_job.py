import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from PIL import Image

from artsel_ray import schema, storage
from artsel_ray.data.checked_reader import read_table
from artsel_ray.errors import InputError
from artsel_ray.simulate import histories
from artsel_ray.simulate import world as w
from artsel_ray.simulate.artworks import CaptionStyle, draw
from artsel_ray.simulate.histories import Viewings, genre_themes
from artsel_ray.simulate.job import artwork_ids, log_tables, new_titles, simulate, write_catalog
from artsel_ray.simulate.lexicon import vocabularies
from artsel_ray.simulate.settings import SimulateConfig

SMALL = SimulateConfig(output="", users=60, titles=20, interactions_per_user=8, caption_tokens=24)
GENRES = [["Comedy"], ["War", "Drama"]]
TITLES = pa.table({"title_id": ["t0", "t1"], "name": ["Zero", "One"], "year": [1999, None], "genres": GENRES})
WORLD = w.make_world(genre_themes(GENRES, 3), (2, 3), 0.5, [CaptionStyle(20, 0.3)] * 2, seed=1)
IDS = artwork_ids(["t0", "t1"], WORLD.counts_x)
ARTWORKS = pa.table({"artwork_id": IDS, "title_id": [artwork_id.partition("-")[0] for artwork_id in IDS]})


@pytest.mark.parametrize("source", ["synthetic", "movielens"])
def test_tables_refer_to_each_other(tmp_path: Path, source: str) -> None:
    simulate(replace(SMALL, output=str(tmp_path), source=source))  # type: ignore[arg-type]
    read = {
        name: read_table(str(tmp_path / name), name)
        for name in ("titles", "artworks", "interactions", "impressions", "oracle")
    }
    assert set(read["interactions"]["title_id"].to_pylist()) <= set(read["titles"]["title_id"].to_pylist())
    title_of = dict(zip(*(read["artworks"][name].to_pylist() for name in ("artwork_id", "title_id")), strict=True))
    impressions, oracle = read["impressions"].to_pylist(), read["oracle"].to_pylist()
    assert len(impressions) == len(oracle) == read["interactions"].num_rows
    for row, truth in zip(impressions, oracle, strict=True):
        assert (row["user_id"], row["title_id"]) == (truth["user_id"], truth["title_id"])
        assert title_of[row["artwork_id"]] == row["title_id"]
        assert {title_of[each] for each in truth["artwork_ids"]} == {row["title_id"]}
        assert row["propensity"] == truth["propensities"][truth["artwork_ids"].index(row["artwork_id"])]
        assert sum(truth["propensities"]) == pytest.approx(1)
    pairs = list(zip(*(read["interactions"][name].to_pylist() for name in ("user_id", "title_id")), strict=True))
    assert len(set(pairs)) == len(pairs)
    assert (read["interactions"]["watch_seconds"].null_count > 0) == (source == "movielens")
    summary = storage.read_json(str(tmp_path / "summary.json"))
    assert summary["engaged"] == pc.sum(read["impressions"]["engaged"]).as_py()
    assert summary["best_possible"]["accuracy"] > summary["best_possible"]["random_accuracy"]


def test_world_depends_on_the_seed_alone(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        simulate(replace(SMALL, output=str(tmp_path / name), seed=seed))
    tables = [read_table(str(tmp_path / name / "impressions"), "impressions") for name in "abc"]
    assert tables[0].equals(tables[1])
    assert not tables[0].equals(tables[2])


def test_impressions_follow_their_propensities(tmp_path: Path) -> None:
    simulate(replace(SMALL, output=str(tmp_path), users=400))
    oracle = read_table(str(tmp_path / "oracle"), "oracle").to_pylist()
    shown = read_table(str(tmp_path / "impressions"), "impressions").to_pylist()
    both = list(zip(shown, oracle, strict=True))
    # Each row's z is its shown artwork's probability less that probability's expectation under the policy.
    z = [row["propensity"] - sum(p * p for p in truth["propensities"]) for row, truth in both]
    assert abs(np.mean(z)) < 4 * np.std(z) / np.sqrt(len(z))
    p = [truth["engagement_probabilities"][truth["artwork_ids"].index(row["artwork_id"])] for row, truth in both]
    engaged = [row["engaged"] for row in shown]
    assert np.mean(engaged) == pytest.approx(np.mean(p), abs=4 * np.sqrt(np.mean(p) / len(p)))


def test_each_group_of_users_is_written_as_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(histories, "GROUP_USERS", 25)
    simulate(replace(SMALL, output=str(tmp_path)))
    assert len(storage.list_files(str(tmp_path / "impressions"))) == 3
    users = read_table(str(tmp_path / "interactions"), "interactions")["user_id"]
    assert len(users.unique()) == 60


def test_stronger_taste_makes_an_easier_world(tmp_path: Path) -> None:
    best = []
    for strength in (0.2, 1.0, 4.0):
        output = str(tmp_path / str(strength))
        simulate(replace(SMALL, output=output, users=300, taste_strength=strength))
        best.append(storage.read_json(f"{output}/summary.json")["best_possible"]["ips"])
    assert best == sorted(best)


def test_output_of_other_flags_is_refused(tmp_path: Path) -> None:
    simulate(replace(SMALL, output=str(tmp_path)))
    assert storage.read_manifest(str(tmp_path))
    with pytest.raises(InputError, match="holds another run, which differs in: seed"):
        simulate(replace(SMALL, output=str(tmp_path), seed=5))


def test_new_titles_come_last_and_have_phrases_of_their_own(tmp_path: Path) -> None:
    simulate(replace(SMALL, output=str(tmp_path), users=300, new_words=0.25))
    new = {f"t{number:06d}" for number in np.flatnonzero(new_titles(20, 0.25, SMALL.seed))}
    assert len(new) == storage.read_json(str(tmp_path / "summary.json"))["new_titles"] == 5
    impressions = read_table(str(tmp_path / "impressions"), "impressions")
    first = impressions.group_by("title_id").aggregate([("timestamp", "min")]).sort_by("timestamp_min")
    assert set(first["title_id"].to_pylist()[-5:]) == new
    known_phrases, new_phrases = (
        {phrase.casefold() for theme in themes for phrase in theme.subjects}
        for themes in vocabularies("rich", True, SMALL.seed)
    )
    for row in read_table(str(tmp_path / "artworks"), "artworks").to_pylist():
        subject = row["caption"].partition(".")[0].casefold()
        assert any(phrase in subject for phrase in (new_phrases if row["title_id"] in new else known_phrases))


def test_artwork_ids_are_by_title() -> None:
    assert artwork_ids(["x", "y"], np.array([1, 2])) == ["x-a00", "y-a00", "y-a01"]


@pytest.mark.parametrize("images", [False, True])
def test_catalog_holds_titles_artworks_and_their_images(tmp_path: Path, images: bool) -> None:
    written = write_catalog(str(tmp_path), TITLES, WORLD, "synopsis", images)
    titles = read_table(f"{tmp_path}/titles", "titles").to_pylist()
    assert [(row["name"], row["year"], row["genres"]) for row in titles] == [
        ("Zero", 1999, ["Comedy"]),
        ("One", None, ["War", "Drama"]),
    ]
    artworks = read_table(f"{tmp_path}/artworks", "artworks")
    assert artworks.select(written.column_names).to_pylist() == written.to_pylist()
    assert artworks["artwork_id"].to_pylist() == IDS
    assert artworks["caption"].to_pylist() == WORLD.captions[0] + WORLD.captions[1]
    assert set(artworks["asset_kind"].to_pylist()) == {"synopsis"}
    paths = [f"images/{artwork_id}.png" if images else None for artwork_id in IDS]
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
    tables = log_tables(viewings, shown, WORLD, ARTWORKS)
    interactions, impressions, oracle = (tables[name].to_pylist() for name in ("interactions", "impressions", "oracle"))
    assert [(row["user_id"], row["title_id"], row["watch_seconds"]) for row in interactions] == [
        ("u", "t1", None), ("u", "t0", None), ("v", "t1", None),
    ]  # fmt: skip
    assert tables["interactions"]["timestamp"].cast(pa.int64()).to_pylist() == [5_000_000, 6_000_000, 7_000_000]
    for n, (row, truth) in enumerate(zip(impressions, oracle, strict=True)):
        position = truth["artwork_ids"].index(row["artwork_id"])
        assert position == shown.positions_n[n]
        assert truth["artwork_ids"] == [id_ for id_ in IDS if id_.startswith(row["title_id"])]
        assert row["propensity"] == truth["propensities"][position]
        assert truth["engagement_probabilities"] == shown.engagement_nm[n, : len(truth["artwork_ids"])].tolist()
        assert row["engaged"] == shown.engaged_n[n]
    assert all(tables[name].column_names == schema.TABLES[name].names for name in tables)
