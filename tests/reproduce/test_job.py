"""The paper's tables on the smallest scale, with all jobs: simulated, distilled, trained, scored, reported."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from artsel_ray import storage
from artsel_ray.data.checked_reader import read_table
from artsel_ray.errors import InputError
from artsel_ray.reproduce.job import reproduce
from artsel_ray.reproduce.paper import ROWS
from artsel_ray.reproduce.settings import ReproduceConfig
from tests.support.canary import logged


def test_flags_that_do_not_fit_are_named(tmp_path: Path) -> None:
    config = ReproduceConfig(output=str(tmp_path))
    with pytest.raises(InputError, match="--models names 3 models; it must be one or two"):
        reproduce(replace(config, models=("a", "b", "c")))
    with pytest.raises(InputError, match="--scale smoke trains in this process and needs a local --output"):
        reproduce(replace(config, output="s3://bucket/R"))
    reproduce_of_another = {"run": {"scale": "paper"}, "config": {}}
    storage.write_json(str(tmp_path / "config.json"), reproduce_of_another)
    with pytest.raises(InputError, match="holds another run, which differs in: "):
        reproduce(config)


@pytest.mark.slow
def test_every_row_runs_and_only_what_is_lost_runs_again(
    tmp_path: Path, ray_cluster: None, capfd: pytest.CaptureFixture[str]
) -> None:
    config = ReproduceConfig(output=str(tmp_path / "R"))
    reproduce(config)
    results = pq.read_table(tmp_path / "R/results.parquet").to_pylist()
    assert [(row["table"], row["row"]) for row in results] == [(row.table, row.label) for row in ROWS]
    for row in results:
        assert row["error"] is None
        for metric in ("accuracy", "ips"):
            assert row[f"{metric}_low"] <= row[metric] <= row[f"{metric}_high"]
    of_run = {row["run"]: row["accuracy"] for row in results}
    assert len(of_run) == 13  # twelve and the random draw
    report = (tmp_path / "R/report.html").read_text()
    for text in ("Table 1", "Table 2", "Table 3", "Table 4", "Figure 1", "nothing about quality", "Simulated"):
        assert text in report
    assert not re.search(r"<script|https?://", report)

    output = "".join(capfd.readouterr())
    captions = read_table(str(tmp_path / "R/world/artworks"), "artworks")["caption"].to_pylist()
    assert not [caption for caption in captions if caption in output or caption in report]
    assert not logged(word=captions[0])

    lost, kept = "tiny-sft-text-64", "tiny-dpo-text-64-from-sft"
    shutil.rmtree(tmp_path / "R/runs" / lost / "predictions")
    before = (tmp_path / "R/runs" / kept / "predictions/_manifest.json").stat().st_mtime_ns
    reproduce(config)
    printed = capfd.readouterr().out
    assert printed.count("starting 1 engine(s)") == 1
    assert f"runs/{lost}/model is complete already" in printed
    assert (tmp_path / "R/runs" / kept / "predictions/_manifest.json").stat().st_mtime_ns == before
    again = pq.read_table(tmp_path / "R/results.parquet").to_pylist()
    assert again == results


@pytest.mark.slow
def test_a_failed_experiment_does_not_stop_the_others(tmp_path: Path, ray_cluster: None) -> None:
    world = tmp_path / "R/world"
    config = ReproduceConfig(output=str(tmp_path / "R"), table="2", models=("tiny", str(tmp_path / "no-model")))
    with pytest.raises(InputError, match=r"2 of 4 experiments failed, the first being no-model-zero-shot-"):
        reproduce(config)
    assert world.exists()
    results = pq.read_table(tmp_path / "R/results.parquet").to_pylist()
    assert [row["error"] is None for row in results] == [True, True, False, False]
    assert "is neither" in results[2]["error"]
    assert [row["accuracy"] is None for row in results] == [False, False, True, True]
    assert "failed: model" in (tmp_path / "R/report.html").read_text()
