"""Synopses go the way that artworks go, from a simulated world to an evaluation."""

from pathlib import Path

import pytest

from artsel_ray import storage
from artsel_ray.config import EvaluateConfig, PrepareConfig, ScoreConfig, SimulateConfig, TrainConfig
from artsel_ray.data.prepare import prepare
from artsel_ray.data.simulate import simulate
from artsel_ray.inference.pipeline import score
from artsel_ray.models.spec import read_spec
from artsel_ray.models.tiny import write_tiny
from artsel_ray.report.evaluate import evaluate
from artsel_ray.training.launch import train


@pytest.mark.usefixtures("ray_cluster")
def test_synopses_from_simulation_to_evaluation(tmp_path: Path) -> None:
    folders = {name: str(tmp_path / name) for name in "WDTPE"}
    world, data = folders["W"], folders["D"]
    simulate(SimulateConfig(world, users=60, titles=20, max_candidates=6, caption_tokens=30, asset_kind="synopsis"))
    # A table may hold all of a title's assets, and a log impressions of them all.
    synopses = storage.read_table(f"{world}/artworks", "artworks")
    assert set(synopses["asset_kind"].to_pylist()) == {"synopsis"}
    posters = synopses.to_pylist()
    for row in posters:
        row.update(artwork_id=f"poster-{row['artwork_id']}", caption="A poster.", asset_kind=None)
    storage.write_table(f"{world}/artworks/posters.parquet", synopses.from_pylist(posters, synopses.schema), "artworks")
    shown = storage.read_table(f"{world}/impressions", "impressions").slice(0, 10).to_pylist()
    for row in shown:
        row["artwork_id"] = f"poster-{row['artwork_id']}"
    impressions = storage.read_table(f"{world}/impressions", "impressions").schema
    storage.write_table(f"{world}/impressions/posters.parquet", synopses.from_pylist(shown, impressions), "impressions")
    prepare(PrepareConfig(world, data, history_length=5, asset_kind="synopsis", validation_size=20, test_size=40))
    summary = storage.read_json(f"{data}/summary.json")
    assert summary["other_kind"] == 10
    assert set(summary["reasons"]["impressions"]) == {"timestamp: empty history: no interaction before the impression"}
    write_tiny(f"{world}/titles", f"{world}/artworks", tmp_path / "tiny")
    tiny = str(tmp_path / "tiny")
    train(
        TrainConfig(
            "sft",
            f"{data}/examples",
            tiny,
            folders["T"],
            history_length=5,
            asset_kind="synopsis",
            max_steps=2,
            batch_size=4,
            workers=0,
        )
    )
    spec = read_spec(folders["T"])
    assert spec is not None
    assert spec.asset_kind == "synopsis"
    night = ScoreConfig(
        f"{data}/requests/test",
        f"{world}/titles",
        f"{world}/artworks",
        folders["P"],
        folders["T"],
        engine="transformers",
    )
    score(night)
    evaluate(EvaluateConfig(f"{data}/examples/test", folders["P"], folders["E"], oracle=f"{world}/oracle"))
    metrics = storage.read_json(f"{folders['E']}/metrics.json")
    assert metrics["missing"] == 0
    assert metrics["examples"] == summary["examples"]["test"] > 0
    chosen = set(storage.read_table(folders["P"], "predictions")["artwork_id"].to_pylist())
    assert chosen <= set(synopses["artwork_id"].to_pylist())
