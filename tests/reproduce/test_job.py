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
from artsel_ray.reproduce.paper import FEW, MANY, ROWS, SCALES
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
def test_every_row_runs_and_only_what_is_lost_or_failed_runs_again(
    tmp_path: Path, ray_cluster: None, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # As on the small scale: one set of examples, so that the paper's two share their experiments.
    monkeypatch.setitem(SCALES, "smoke", replace(SCALES["smoke"], examples={FEW: 64, MANY: 64}))
    config = ReproduceConfig(output=str(tmp_path / "R"))
    failed, kept = tmp_path / "R/runs/tiny-sft-text-64", tmp_path / "R/runs/tiny-dpo-text-64-from-sft"
    storage.write_json(str(failed / "predictions/config.json"), {"run": {"of": "another"}, "config": {}})
    with pytest.raises(InputError, match=r"1 of 8 experiments failed, .* tiny-sft-text-64: .*another run"):
        reproduce(config)
    results = pq.read_table(tmp_path / "R/results.parquet").to_pylist()
    assert [(row["table"], row["row"]) for row in results] == [(row.table, row.label) for row in ROWS]
    for row in results:
        assert (row["error"] is None) == (row["run"] != failed.name)
        for metric in ("accuracy", "ips") if row["error"] is None else ():
            assert row[f"{metric}_low"] <= row[metric] <= row[f"{metric}_high"]
        if row["error"]:
            assert "another run" in row["error"]
            assert row["accuracy"] is None
    assert len({row["run"] for row in results}) == 9  # eight and the random draw
    report = (tmp_path / "R/report.html").read_text()
    for text in ("Table 1", "Table 2", "Table 3", "Table 4", "Figure 1", "nothing about quality", "Simulated"):
        assert text in report
    assert "failed: " in report
    assert not re.search(r"<script|https?://", report)

    output = "".join(capfd.readouterr())
    captions = read_table(str(tmp_path / "R/world/artworks"), "artworks")["caption"].to_pylist()
    assert not [caption for caption in captions if caption in output or caption in report]
    assert not logged(word=captions[0])

    shutil.rmtree(failed / "predictions")
    before = (kept / "predictions/_manifest.json").stat().st_mtime_ns
    reproduce(config)
    printed = capfd.readouterr().out
    assert printed.count("starting 1 engine(s)") == 1
    assert f"runs/{failed.name}/model is complete already" in printed
    assert (kept / "predictions/_manifest.json").stat().st_mtime_ns == before
    again = pq.read_table(tmp_path / "R/results.parquet").to_pylist()
    assert not [row for row in again if row["error"] or row["accuracy"] is None]
    assert [row for row in again if row["run"] != failed.name] == [row for row in results if not row["error"]]
    assert "failed: " not in (tmp_path / "R/report.html").read_text()
