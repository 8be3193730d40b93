import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from artsel_ray.errors import InputError
from artsel_ray.evaluate.impressions import evaluate_impressions, read_impressions
from artsel_ray.evaluate.job import evaluate
from artsel_ray.evaluate.settings import EvaluateConfig
from artsel_ray.evaluation.metrics import LOG_METRICS
from artsel_ray.evaluation.policies import EstimateSettings
from artsel_ray.storage import read_json
from tests.support.evaluation_tables import impression, ranked, write


@pytest.fixture
def log(small: Path) -> Path:
    """The examples of `small` and a log, worked out by hand below.

    | user | title | shown | engaged | propensity | baseline         | model |
    |------|-------|-------|---------|------------|------------------|-------|
    | u1   | t1    | t1-0  | yes     | 0.5        | 0.75 0.25        | t1-0  |
    | u1   | t2    | t2-1  | no      | 0.25       | 0.4 0.2 0.2 0.2  | t2-3  |
    | u2   | t1    | t1-1  | no      | 0.2        | 0.6 0.4          | t1-0  |
    | u2   | t1    | t1-0  | yes     | 0.8        | the same         | t1-0  |
    """
    write(
        small / "baseline",
        "predictions",
        [ranked("u1", "t1", [0.75, 0.25]), ranked("u1", "t2", [0.4, 0.2, 0.2, 0.2]), ranked("u2", "t1", [0.6, 0.4])],
    )
    rows = [
        impression("u1", "t1", "t1-0", True, 0.5),
        impression("u1", "t2", "t2-1", False, 0.25),
        impression("u2", "t1", "t1-1", False, 0.2),
        impression("u2", "t1", "t1-0", True, 0.8),
        # Left out: no prediction, an artwork that is no candidate, no propensity.
        impression("u2", "t2", "t2-0", True, 0.5),
        impression("u1", "t1", "t1-9", False, 0.5),
        impression("u1", "t1", "t1-1", False, None),
    ]
    write(small / "impressions", "impressions", rows)
    return small


def evaluated(path: Path, **changes: Any) -> dict[str, Any]:
    default = EvaluateConfig(
        examples=str(path / "examples/test"),
        predictions=str(path / "predictions"),
        output=str(path / "E"),
        baseline=str(path / "baseline"),
        impressions=str(path / "impressions"),
        resamples=100,
    )
    evaluate(dataclasses.replace(default, **changes))
    return read_json(str(path / "E/metrics.json"))


def test_values_by_hand(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = evaluated(log)["log"]
    assert (found["impressions"], found["left_out"], found["logged"]["value"]) == (4, 3, 0.5)
    values = {
        name: [found["policies"][name][metric.name]["value"] for metric in LOG_METRICS] for name in found["policies"]
    }
    # The mean reward is 0.5, so r̂ is q̂ · m / 2: 0.75 0.25; 0.8 0.4 0.4 0.4; 0.6 0.4. The model's weights are 2, 0, 0
    # and 1.25; it expects 0.75, 0.4, 0.6, 0.6; its residuals are 2 · 0.25 and 1.25 · 0.4.
    assert values["model"] == pytest.approx([3.25 / 4, 1, 2.35 / 4, 2.35 / 4 + 1 / 4, 2.35 / 4 + 1 / 3.25])
    # Random expects 0.5 everywhere; weights 1, 1, 2.5, 0.625; residuals 0.25, -0.4, -1, 0.25.
    assert values["random"] == pytest.approx([1.625 / 4, 1.625 / 5.125, 0.5, 0.5 - 0.9 / 4, 0.5 - 0.9 / 5.125])
    # The baseline chooses t1-0, t2-0, t1-0, t1-0.
    assert values["baseline"] == pytest.approx([3.25 / 4, 1, 2.75 / 4, 2.75 / 4 + 1 / 4, 2.75 / 4 + 1 / 3.25])
    assert found["difference"]["baseline"]["dr"]["value"] == pytest.approx(-0.1)
    assert "warning: model on the log: the weights rest on 2 of 4 examples" in capsys.readouterr().out
    assert "On the log of all impressions" in (log / "E/report.html").read_text()


def test_baseline_is_the_examples_reward_model_too(log: Path) -> None:
    better = [
        ranked("u1", "t1", [0.75, 0.25]),
        ranked("u1", "t2", [0.2, 0.2, 0.2, 0.4]),
        ranked("u2", "t1", [0.4, 0.6]),
    ]
    write(log / "baseline", "predictions", better)
    # m · q̂ of the choices: t1-0 of u1 1.5, t2-3 of u1 1.6, t1-0 of u2 0.8; the fourth example the baseline lacks.
    found = evaluated(log)
    assert (found["dm"]["value"], found["dm_left_out"]) == (pytest.approx(3.9 / 3), None)


def test_reward_model_no_better_than_a_constant_is_left_out(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    worse = [ranked("u1", "t1", [0.25, 0.75]), ranked("u1", "t2", [0.2, 0.4, 0.2, 0.2]), ranked("u2", "t1", [0.5, 0.5])]
    write(log / "baseline", "predictions", worse)
    found = evaluated(log)
    values = {
        name: measured["value"]
        for name, measured in found["log"]["policies"]["model"].items()
        if name != "effective_sample_size"
    }
    assert values == {"ips": pytest.approx(3.25 / 4), "snips": 1, "dm": None, "dr": None, "sndr": None}
    assert found["dm"]["value"] is None
    why = "the baseline's probabilities predict no better than a constant"
    for place in (found["dm_left_out"], found["log"]["dm_left_out"]):
        assert place.startswith(why)
    assert f"DM and DR are left out: {why}" in capsys.readouterr().out
    page = (log / "E/report.html").read_text()
    assert "DM is left out: the baseline" in page
    assert "DM and DR are left out: the baseline" in page


def test_invalid_impressions_are_written(log: Path) -> None:
    rows = [impression("u1", "t1", "t1-0", True, 0.5), impression("", "t1", "t1-0", True, 0.5)]
    write(log / "impressions", "impressions", rows)
    found = evaluated(log)
    assert found["log"]["rejected_impressions"] == 1
    (invalid,) = pq.read_table(log / "E/rejected/impressions.parquet").to_pylist()
    assert (invalid["row"], invalid["column"]) == (1, "user_id")
    assert any("every impression of the log is engaged with" in text for text in found["warnings"])


def test_repeated_impressions_count_once(log: Path) -> None:
    rows = pq.read_table(log / "impressions/part-0.parquet").to_pylist()
    once = evaluated(log)["log"]
    write(log / "impressions", "impressions", [*rows, rows[0], rows[1], rows[0]])
    twice = evaluated(log)["log"]
    assert twice.pop("rejected_impressions") == once.pop("rejected_impressions") + 3
    assert twice == once
    invalid = pq.read_table(log / "E/rejected/impressions.parquet").to_pylist()
    assert {(row["row"], row["reason"]) for row in invalid} == {(n, "the same as an earlier row") for n in (7, 8, 9)}


def test_pairs_selected_by_engagement_are_warned_about(tmp_path: Path) -> None:
    # Predictions for the pairs that were engaged with, and few others, as `prepare` makes requests.
    rng = np.random.default_rng(0)
    engaged = rng.random(2_000) < 0.2
    shown = rng.integers(2, size=2_000)
    rows = [impression(f"u{n}", "t1", f"t1-{shown[n]}", bool(engaged[n]), 0.5) for n in range(2_000)]
    uri = write(tmp_path / "impressions", "impressions", rows)

    def warnings(asked: np.ndarray) -> list[str]:
        pairs = [ranked(f"u{n}", "t1", [0.5, 0.5]) for n in np.flatnonzero(asked)]
        model = write(tmp_path / "model", "predictions", pairs)
        found = evaluate_impressions(read_impressions(uri, model), model, model, EstimateSettings(10, 0))
        return found.warnings + found.results.policies["model"].warnings

    assert warnings(rng.random(2_000) < 0.5) == []
    (text,) = warnings(engaged | (rng.random(2_000) < 0.1))
    assert "selected by engagement" in text


def test_logs_that_cannot_be_used_are_refused(log: Path) -> None:
    with pytest.raises(InputError, match="--impressions needs --baseline"):
        evaluated(log, baseline=None)
    with pytest.raises(InputError, match=r"--max-weight is 0\.0; it must be more than 0"):
        evaluated(log, max_weight=0.0)
    with pytest.raises(InputError, match="no impression of a pair whose candidates are in"):
        evaluated(log, baseline=str(log / "predictions"))
    write(log / "impressions", "impressions", [])
    with pytest.raises(InputError, match="has no row"):
        evaluated(log)
