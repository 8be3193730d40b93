import dataclasses
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from artsel_ray import storage
from artsel_ray.reproduce.paper import FEW, SCALES, Experiment, Row
from artsel_ray.reproduce.results import publish
from artsel_ray.reproduce.settings import ReproduceConfig
from artsel_ray.reproduce.study import Study
from tests.support.evaluation_tables import prediction, write, write_small

ZERO_SHOT, SFT, LATE = Experiment("3B"), Experiment("3B", "text", "sft", FEW), Experiment("8B")
SCALE = dataclasses.replace(SCALES["small"], models=("m3", "m8"))
LATE_NAME = "m8-zero-shot-text"


@pytest.fixture
def small(tmp_path: Path) -> Path:
    write_small(tmp_path)
    (tmp_path / "data-10000").mkdir()
    (tmp_path / "examples").rename(tmp_path / "data-10000/examples")
    return tmp_path


def publish_small(small: Path, errors: dict[str, str]) -> None:
    """Production is right for one of the four examples, zero-shot for two, SFT for three."""
    study = Study(ReproduceConfig(output=str(small), scale="small"), SCALE)
    chosen = {
        study.production: ["t1-0"],
        study.predictions(ZERO_SHOT): ["t1-0", "t2-3"],
        study.predictions(SFT): ["t1-0", "t2-3", "t1-1"],
    }
    pairs = [("u1", "t1"), ("u1", "t2"), ("u2", "t1")]
    for folder, artworks in chosen.items():
        predicted = [prediction(*pair, artwork) for pair, artwork in zip(pairs, artworks, strict=False)]
        uri = write(Path(folder), "predictions", predicted)
        storage.write_manifest(uri, {"parts": ["part-0.parquet"]})
    rows = [
        Row("1", "random draw", None, "production", 1.0, 2.0),
        Row("1", "SFT", SFT, "production", 3.0, 4.0),
        Row("2", "late", LATE, "production", 5.0, 6.0),
    ]
    publish(study, rows, [ZERO_SHOT, LATE], errors)


def test_rows_by_hand(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    publish_small(small, {LATE_NAME: "no such model"})
    random, sft, late = pq.read_table(small / "results.parquet").to_pylist()
    # m is 2, 4, 2, 4: a random draw is right with 1/2, 1/4, 1/2, 1/4, production in the first example.
    assert (random["run"], random["accuracy"], random["accuracy_over_production"]) == ("random", 0.375, 50)
    assert random["accuracy_over_zero_shot"] is None
    assert (sft["accuracy"], sft["ips"]) == (0.75, (2 + 4 + 2) / 4)
    assert (sft["accuracy_over_production"], sft["accuracy_over_zero_shot"]) == (pytest.approx(200), pytest.approx(50))
    assert (sft["ips_over_zero_shot"], sft["error"]) == (pytest.approx(100 * (8 / 6 - 1)), None)
    assert (sft["paper_is_over"], sft["paper_accuracy"], sft["paper_ips"]) == ("production", 3.0, 4.0)
    assert (late["accuracy"], late["ips_low"], late["error"]) == (None, None, "no such model")
    assert "2 of 3 experiments are in " in capsys.readouterr().out


def test_report_has_the_curves_that_are_there_and_the_errors(small: Path) -> None:
    publish_small(small, {LATE_NAME: "no such model"})
    page = (small / "report.html").read_text()
    assert ">3B, text</text>" in page
    assert ">8B, text</text>" not in page
    assert "late failed: no such model" in page
