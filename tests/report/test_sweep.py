import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pyarrow as pa
import pytest

from artsel_ray import schema, storage
from artsel_ray.errors import InputError
from artsel_ray.report.html import render_sweep
from artsel_ray.report.plots import plot_learning_rates
from artsel_ray.report.sweep import report_sweep


def trial(rate: float, status: str, ips: float | None, error: str | None = None) -> dict[str, Any]:
    numbers = {
        "validation_ips": ips,
        "validation_accuracy": ips and ips / 8,
        "loss": ips and 2 / ips,
        "step": ips and 40,
    }
    return {"learning_rate": rate, "status": status, **numbers, "seconds": 3.0, "error": error}


TRIALS = [
    trial(1e-4, "failed", None, "the loss is nan at step 3"),
    trial(1e-6, "finished", 1.25),
    trial(1e-5, "finished", 1.75),
    trial(1e-7, "stopped", 1.0),
]


def test_the_picture_shows_every_kind_of_end() -> None:
    svg = plot_learning_rates(TRIALS, 1e-5)
    for text in ("finished", "stopped early", "best", "failed", "learning rate"):
        assert f">{text}</text>" in svg or f"> {text}</text>" in svg
    ElementTree.fromstring(svg.replace("xlink:href", "href"))
    assert "stopped" not in plot_learning_rates(TRIALS[1:3], 1e-5)


def test_the_page_has_a_row_for_each_trial_by_learning_rate_and_escapes() -> None:
    page = render_sweep([*TRIALS, trial(1.0, "failed", None, "<script>")], TRIALS[2], {"model": "<b>"})
    rows = re.findall(r"<tr[^>]*><td>([^<]*)</td>", page)
    assert rows == ["1e-07", "1e-06", "1e-05", "0.0001", "1.0"]
    assert page.count('<tr class="model">') == 1
    assert "<script>" not in page
    assert "<b>" not in page.replace("<b>1", "")
    assert "http" not in page


def test_the_report_is_written_beside_the_table(tmp_path: Path) -> None:
    output = str(tmp_path)
    with pytest.raises(InputError, match=r"trials\.parquet"):
        report_sweep(output)
    storage.write_table(storage.join(output, "trials.parquet"), pa.Table.from_pylist(TRIALS, schema.TRIALS), "trials")
    storage.write_json(storage.join(output, "summary.json"), {"best": TRIALS[2]})
    flags: dict[str, Any] = {
        "method": "sft",
        "model": "s3://bucket/secret-place/a/model?key=k3y",
        "examples": "s3://bucket/private",
    }
    flags |= dict.fromkeys(("output_format", "reason", "layout", "epochs", "max_steps", "batch_size", "lora_rank"))
    storage.write_json(storage.join(output, "config.json"), {"config": flags | {"seed": 3}})
    report_sweep(output)
    page = (tmp_path / "report.html").read_text()
    assert "1.750" in page
    assert "a/model" in page
    assert not [word for word in ("secret-place", "k3y", "private") if word in page]
    assert json.loads((tmp_path / "config.json").read_text())["config"]["seed"] == 3
