"""Synopses and pictures go the way that captions of artworks go, from a simulated world to an evaluation."""

from dataclasses import replace
from pathlib import Path

import pytest

from artsel_ray import storage
from artsel_ray.errors import InputError
from artsel_ray.evaluate.job import evaluate
from artsel_ray.evaluate.settings import EvaluateConfig
from artsel_ray.models.load import Model
from artsel_ray.models.spec import read_spec
from artsel_ray.models.tiny import write_tiny
from artsel_ray.prepare.job import prepare
from artsel_ray.prepare.settings import PrepareConfig
from artsel_ray.score.job import score
from artsel_ray.score.settings import ScoreConfig
from artsel_ray.simulate.job import simulate
from artsel_ray.simulate.settings import SimulateConfig
from artsel_ray.train.job import train
from artsel_ray.train.settings import TrainConfig
from tests.support.tiny_vision import write_tiny_vision


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


@pytest.mark.usefixtures("ray_cluster")
def test_pictures_from_simulation_to_evaluation(tmp_path: Path, smollm2: Model) -> None:
    folders = {name: str(tmp_path / name) for name in "WDTPQE"}
    world, data = folders["W"], folders["D"]
    simulate(SimulateConfig(world, users=60, titles=20, max_candidates=6, caption_tokens=30, images=True))
    # Nobody wrote captions; one picture is broken, one is gone.
    table = storage.read_table(f"{world}/artworks/part-000000.parquet", "artworks")
    uncaptioned = [row | {"caption": None} for row in table.to_pylist()]
    storage.write_table(
        f"{world}/artworks/part-000000.parquet", table.from_pylist(uncaptioned, table.schema), "artworks"
    )
    Path(world, "artworks", uncaptioned[0]["image_uri"]).write_bytes(b"no picture")
    Path(world, "artworks", uncaptioned[1]["image_uri"]).unlink()
    prepare(PrepareConfig(world, data, history_length=5, assets="image", validation_size=20, test_size=40))
    reasons = storage.read_json(f"{data}/summary.json")["reasons"]["artworks"]
    assert reasons == {"image_uri: no JPEG, PNG, WebP or GIF": 1, "image_uri: no file there": 1}
    tiny = write_tiny_vision("idefics3", smollm2.path, tmp_path / "tiny")
    flags = TrainConfig(
        "sft", f"{data}/examples", tiny, folders["T"], history_length=5, assets="image", max_steps=2, batch_size=4,
        workers=0, shuffle_candidates=True,
    )  # fmt: skip
    train(flags)
    spec = read_spec(folders["T"])
    assert spec is not None
    assert (spec.assets, spec.output) == ("image", "number")
    # DPO goes on from there, with the prompt that it was trained for.
    train(TrainConfig("dpo", f"{data}/examples", folders["T"], folders["Q"], max_steps=2, batch_size=4, workers=0))
    assert read_spec(folders["Q"]) == spec
    night = ScoreConfig(
        f"{data}/requests/test", f"{world}/titles", f"{world}/artworks", folders["P"], folders["Q"],
        engine="transformers", decoding="labels",
    )  # fmt: skip
    score(night)
    evaluate(EvaluateConfig(f"{data}/examples/test", folders["P"], folders["E"], oracle=f"{world}/oracle"))
    metrics = storage.read_json(f"{folders['E']}/metrics.json")
    assert metrics["missing"] == 0
    assert metrics["examples"] == 40
    rows = storage.read_table(folders["P"], "predictions").to_pylist()
    gone = {row["artwork_id"] for row in uncaptioned[:2]}
    assert not gone & {each["artwork_id"] for row in rows for each in row["candidates"]}
    # A picture that changes changes the fingerprints of its title alone.
    changed = uncaptioned[2]
    other = Path(world, "artworks", uncaptioned[-1]["image_uri"])
    Path(world, "artworks", changed["image_uri"]).write_bytes(other.read_bytes())
    again = replace(night, output=f"{folders['P']}2", previous=folders["P"])
    score(again)
    fingerprints = {(row["user_id"], row["title_id"]): row["fingerprint"] for row in rows}
    for row in storage.read_table(again.output, "predictions").to_pylist():
        is_same = row["fingerprint"] == fingerprints[row["user_id"], row["title_id"]]
        assert is_same == (row["title_id"] != changed["title_id"])


@pytest.mark.usefixtures("ray_cluster")
def test_what_cannot_be_done_with_pictures_is_one_line(tmp_path: Path) -> None:
    world = str(tmp_path / "W")
    simulate(SimulateConfig(world, users=20, titles=5, max_candidates=4, caption_tokens=10))
    with pytest.raises(InputError, match="the title has no candidates"):
        prepare(PrepareConfig(world, str(tmp_path / "D"), assets="image"))
    prepare(PrepareConfig(world, str(tmp_path / "D")))
    flags = TrainConfig("sft", str(tmp_path / "D/examples"), "smollm2", str(tmp_path / "T"), assets="image", workers=0)
    with pytest.raises(InputError, match="--assets image needs a vision-language model"):
        train(flags)
    with pytest.raises(InputError, match="a number, not text; add --output-format number"):
        train(replace(flags, output=str(tmp_path / "text"), output_format="text"))
