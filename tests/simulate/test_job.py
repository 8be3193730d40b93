from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest

from artsel_ray import storage
from artsel_ray.data.checked_reader import read_table
from artsel_ray.errors import InputError
from artsel_ray.simulate import synthetic
from artsel_ray.simulate.job import simulate
from artsel_ray.simulate.settings import SimulateConfig

SMALL = SimulateConfig(output="", users=60, titles=20, interactions_per_user=8, caption_tokens=24)


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
    monkeypatch.setattr(synthetic, "GROUP_USERS", 25)
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
