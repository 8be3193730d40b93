"""Synopses and images go through all jobs, from a simulated world to an evaluation."""

from dataclasses import replace
from pathlib import Path

import pytest

from artsel_ray import storage
from artsel_ray.config import from_flags
from artsel_ray.data.checked_reader import read_table
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
    world, data, model, scored, evaluated = (
        str(tmp_path / name) for name in ("world", "data", "model", "predictions", "evaluation")
    )
    simulate(
        SimulateConfig(output=world, users=60, titles=20, max_candidates=6, caption_tokens=30, asset_kind="synopsis")
    )
    # A table may hold all assets of a title, and a log impressions of all of them.
    synopses = read_table(f"{world}/artworks", "artworks")
    assert set(synopses["asset_kind"].to_pylist()) == {"synopsis"}
    posters = synopses.to_pylist()
    for row in posters:
        row.update(artwork_id=f"poster-{row['artwork_id']}", caption="A poster.", asset_kind=None)
    storage.write_table(f"{world}/artworks/posters.parquet", synopses.from_pylist(posters, synopses.schema), "artworks")
    shown = read_table(f"{world}/impressions", "impressions").slice(0, 10).to_pylist()
    for row in shown:
        row["artwork_id"] = f"poster-{row['artwork_id']}"
    impressions = read_table(f"{world}/impressions", "impressions").schema
    storage.write_table(f"{world}/impressions/posters.parquet", synopses.from_pylist(shown, impressions), "impressions")
    prepare(
        PrepareConfig(
            input=world, output=data, history_length=5, asset_kind="synopsis", validation_size=20, test_size=40
        )
    )
    summary = storage.read_json(f"{data}/summary.json")
    assert summary["other_kind"] == 10
    assert set(summary["reasons"]["impressions"]) == {"timestamp: empty history: no interaction before the impression"}
    write_tiny(f"{world}/titles", f"{world}/artworks", tmp_path / "tiny")
    tiny = str(tmp_path / "tiny")
    train(
        from_flags(
            TrainConfig, method="sft", examples=f"{data}/examples", model=tiny, output=model, history_length=5,
            asset_kind="synopsis", max_steps=2, batch_size=4, workers=0,
        )
    )  # fmt: skip
    spec = read_spec(model)
    assert spec is not None
    assert spec.asset_kind == "synopsis"
    score(
        from_flags(
            ScoreConfig, requests=f"{data}/requests/test", titles=f"{world}/titles", artworks=f"{world}/artworks",
            output=scored, model=model, engine="transformers",
        )
    )  # fmt: skip
    evaluate(
        EvaluateConfig(examples=f"{data}/examples/test", predictions=scored, output=evaluated, oracle=f"{world}/oracle")
    )
    metrics = storage.read_json(f"{evaluated}/metrics.json")
    assert metrics["missing"] == 0
    assert metrics["examples"] == summary["examples"]["test"] > 0
    chosen = set(read_table(scored, "predictions")["artwork_id"].to_pylist())
    assert chosen <= set(synopses["artwork_id"].to_pylist())


@pytest.mark.usefixtures("ray_cluster")
def test_images_from_simulation_to_evaluation(tmp_path: Path, smollm2: Model) -> None:
    world, data, sft, dpo, scored, evaluated = (
        str(tmp_path / name) for name in ("world", "data", "sft", "dpo", "predictions", "evaluation")
    )
    simulate(SimulateConfig(output=world, users=60, titles=20, max_candidates=6, caption_tokens=30, images=True))
    # There are no captions; one image is broken, one is missing.
    table = read_table(f"{world}/artworks/part-000000.parquet", "artworks")
    uncaptioned = [row | {"caption": None} for row in table.to_pylist()]
    storage.write_table(
        f"{world}/artworks/part-000000.parquet", table.from_pylist(uncaptioned, table.schema), "artworks"
    )
    Path(world, "artworks", uncaptioned[0]["image_uri"]).write_bytes(b"not an image")
    Path(world, "artworks", uncaptioned[1]["image_uri"]).unlink()
    prepare(PrepareConfig(input=world, output=data, history_length=5, assets="image", validation_size=20, test_size=40))
    reasons = storage.read_json(f"{data}/summary.json")["reasons"]["artworks"]
    assert reasons == {"image_uri: no JPEG, PNG, WebP or GIF": 1, "image_uri: no file there": 1}
    tiny = write_tiny_vision("idefics3", smollm2.path, tmp_path / "tiny")
    train(
        from_flags(
            TrainConfig, method="sft", examples=f"{data}/examples", model=tiny, output=sft, history_length=5,
            assets="image", image_root=(f"{world}/artworks",), max_steps=2, batch_size=4, workers=0,
            shuffle_candidates=True,
        )
    )  # fmt: skip
    spec = read_spec(sft)
    assert spec is not None
    assert (spec.assets, spec.output) == ("image", "number")
    # DPO continues with the prompt that the model was trained for.
    train(
        from_flags(
            TrainConfig, method="dpo", examples=f"{data}/examples", model=sft, output=dpo, max_steps=2, batch_size=4,
            workers=0, image_root=(f"{world}/artworks",),
        )
    )  # fmt: skip
    assert read_spec(dpo) == spec
    scoring = from_flags(
        ScoreConfig, requests=f"{data}/requests/test", titles=f"{world}/titles", artworks=f"{world}/artworks",
        output=scored, model=dpo, engine="transformers", decoding="labels",
    )  # fmt: skip
    score(scoring)
    evaluate(
        EvaluateConfig(examples=f"{data}/examples/test", predictions=scored, output=evaluated, oracle=f"{world}/oracle")
    )
    metrics = storage.read_json(f"{evaluated}/metrics.json")
    assert metrics["missing"] == 0
    assert metrics["examples"] == 40
    rows = read_table(scored, "predictions").to_pylist()
    unusable = {row["artwork_id"] for row in uncaptioned[:2]}
    assert not unusable & {each["artwork_id"] for row in rows for each in row["candidates"]}
    # A changed image changes the fingerprints of its title only.
    changed = uncaptioned[2]
    other = Path(world, "artworks", uncaptioned[-1]["image_uri"])
    Path(world, "artworks", changed["image_uri"]).write_bytes(other.read_bytes())
    again = replace(scoring, output=f"{scored}2", previous=scored)
    score(again)
    fingerprints = {(row["user_id"], row["title_id"]): row["fingerprint"] for row in rows}
    for row in read_table(again.output, "predictions").to_pylist():
        is_same = row["fingerprint"] == fingerprints[row["user_id"], row["title_id"]]
        assert is_same == (row["title_id"] != changed["title_id"])


@pytest.mark.usefixtures("ray_cluster")
def test_missing_images_and_unfit_models_are_one_line(tmp_path: Path) -> None:
    world, data = str(tmp_path / "world"), str(tmp_path / "data")
    simulate(SimulateConfig(output=world, users=20, titles=5, max_candidates=4, caption_tokens=10))
    with pytest.raises(InputError, match="the title has no candidates"):
        prepare(PrepareConfig(input=world, output=data, assets="image"))
    prepare(PrepareConfig(input=world, output=data))
    flags = {"method": "sft", "examples": f"{data}/examples", "model": "smollm2", "assets": "image", "workers": 0}
    with pytest.raises(InputError, match="--assets image needs a vision-language model"):
        train(from_flags(TrainConfig, **flags, output=str(tmp_path / "number")))
    with pytest.raises(InputError, match="the answer is a number: add --output-format number"):
        train(from_flags(TrainConfig, **flags, output=str(tmp_path / "text"), output_format="text"))
