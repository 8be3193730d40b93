"""A log of an exploring run in a world whose truth is known, evaluated with that run's own predictions."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from artsel_ray import schema
from artsel_ray.errors import InputError
from artsel_ray.evaluate.example_table import read_examples
from artsel_ray.evaluate.exploration import explores
from artsel_ray.evaluate.job import evaluate
from artsel_ray.evaluate.permutations import read_permuted
from artsel_ray.evaluate.settings import EvaluateConfig
from artsel_ray.score.serving import serve
from artsel_ray.score.settings import ServingSettings
from artsel_ray.storage import read_json
from tests.support.evaluation_tables import example, impression, ranked, write

ARTWORKS = [f"t1-{index}" for index in range(4)]


def write_run(path: Path, explore: Literal["none", "epsilon", "softmax"], users: int = 4_000) -> dict[str, float]:
    """Writes a log and its examples, and the predictions that were served; returns the true values of policies."""
    rng = np.random.default_rng(0)
    score_nm = rng.normal(size=(users, 4))
    probability_nm = np.exp(score_nm) / np.exp(score_nm).sum(1, keepdims=True)
    right_nm = np.exp((score_nm + rng.normal(size=score_nm.shape)) / 2)
    right_nm /= right_nm.sum(1, keepdims=True)
    engaging_nm = 0.8 * right_nm
    rows = [ranked(f"u{n:04}", "t1", each.tolist()) for n, each in enumerate(probability_nm)]
    greedy = pa.Table.from_pylist(rows, schema.PREDICTIONS)
    served = serve(greedy, ServingSettings(explore=explore, epsilon=0.6, temperature=1.5))
    write(path / "predictions", "predictions", served.to_pylist())
    write(path / "greedy", "predictions", rows)
    baseline = [ranked(f"u{n:04}", "t1", each.tolist()) for n, each in enumerate(right_nm)]
    write(path / "baseline", "predictions", baseline)

    position_n = np.array([ARTWORKS.index(artwork) for artwork in served["artwork_id"].to_pylist()])
    engaged_n = rng.random(users) < engaging_nm[np.arange(users), position_n]
    propensity_n = served["propensity"].to_pylist()
    log, examples = [], []
    for n in range(users):
        log.append(impression(f"u{n:04}", "t1", ARTWORKS[position_n[n]], bool(engaged_n[n]), propensity_n[n] or 1.0))
        if engaged_n[n]:
            examples.append(example(f"u{n:04}", "t1", ARTWORKS, int(position_n[n]), propensity_n[n] or 1.0))
    write(path / "impressions", "impressions", log)
    write(path / "examples/test", "examples", examples)
    best_n = probability_nm.argmax(1)
    softmax_nm = np.exp(score_nm / 1.5) / np.exp(score_nm / 1.5).sum(1, keepdims=True)
    greedy_nm = np.eye(4)[best_n]
    served_nm = {"none": greedy_nm, "epsilon": 0.6 / 4 + 0.4 * greedy_nm, "softmax": softmax_nm}[explore]
    return {
        "model": float(engaging_nm[np.arange(users), best_n].mean()),
        "served": float((served_nm * engaging_nm).sum(1).mean()),
        "accuracy": float((best_n == position_n)[engaged_n].mean()),
        "served_accuracy": float(served_nm[np.arange(users), position_n][engaged_n].mean()),
    }


def evaluated(path: Path, **flags: Any) -> dict[str, Any]:
    uris = {name: str(path / name) for name in ("predictions", "baseline", "impressions")}
    config = {"examples": str(path / "examples/test"), "output": str(path / "E"), "resamples": 200, **uris, **flags}
    evaluate(EvaluateConfig(**config))
    return read_json(str(path / "E/metrics.json"))


def covers(measured: dict[str, float], truth: float) -> bool:
    return measured["low"] <= truth <= measured["high"]


@pytest.mark.parametrize("explore", ["epsilon", "softmax"])
def test_explored_run_is_judged_as_a_distribution(
    tmp_path: Path, explore: Literal["epsilon", "softmax"], capsys: pytest.CaptureFixture[str]
) -> None:
    truth = write_run(tmp_path, explore)
    found = evaluated(tmp_path)
    # The drawn artworks are always the engaged ones: judged as choices, they had an accuracy of 1.
    assert found["accuracy"]["value"] == pytest.approx(truth["accuracy"])
    served = found["references"]["served"]
    assert served["accuracy"]["value"] == pytest.approx(truth["served_accuracy"], abs=1e-4)
    on_log = found["log"]["policies"]
    for metric in ("ips", "snips", "dr", "sndr"):
        assert covers(on_log["model"][metric], truth["model"]), metric
        assert covers(on_log["served"][metric], truth["served"]), metric
    # The served policy is the one that logged: all its weights are 1.
    assert on_log["served"]["ips"]["value"] == pytest.approx(found["log"]["logged"]["value"], rel=1e-3)
    assert not [text for text in found["warnings"] if "mean weight" in text or "propensities are neither" in text]
    assert "served" in capsys.readouterr().out
    assert "Model, as served" in (tmp_path / "E/report.html").read_text()


def test_run_that_did_not_explore_is_judged_by_its_choices(tmp_path: Path) -> None:
    truth = write_run(tmp_path, "none", users=500)
    found = evaluated(tmp_path)
    assert "served" not in found["references"]
    assert found["accuracy"]["value"] == truth["accuracy"] == 1
    assert covers(found["log"]["policies"]["model"]["ips"], truth["model"])


def test_explored_baseline_and_permutations_are_judged_by_their_most_likely_artworks(tmp_path: Path) -> None:
    truth = write_run(tmp_path, "epsilon", users=500)
    served, greedy = str(tmp_path / "predictions"), str(tmp_path / "greedy")
    found = evaluated(tmp_path, predictions=greedy, baseline=served)
    for name, expected in (("baseline", "accuracy"), ("baseline_served", "served_accuracy")):
        assert found["references"][name]["accuracy"]["value"] == pytest.approx(truth[expected])
    assert found["log"]["policies"]["baseline"]["ips"] == found["log"]["policies"]["model"]["ips"]
    # The same run with its candidates listed the other way around agrees with itself.
    table = pq.read_table(f"{served}/part-0.parquet")
    rows = [row | {"candidates": row["candidates"][::-1]} for row in table.to_pylist()]
    other = write(tmp_path / "other", "predictions", rows)
    runs = read_permuted([served, other], read_examples(str(tmp_path / "examples/test")))
    assert (runs.choice_rn[0] == runs.choice_rn[1]).all()
    assert runs.hit_rn.mean() == pytest.approx(truth["accuracy"])
    np.testing.assert_array_equal(runs.chosen_rn[0], 3 - runs.chosen_rn[1])


def test_explored_predictions_without_candidates_are_refused(tmp_path: Path) -> None:
    write_run(tmp_path, "epsilon", users=50)
    file = tmp_path / "predictions/part-0.parquet"
    rows = pq.read_table(file).to_pylist()
    assert explores([str(file)])
    write(tmp_path / "predictions", "predictions", [row | {"artwork_id": "gone"} for row in rows])
    with pytest.raises(InputError, match="50 predictions have a propensity, and an artwork that is none of their"):
        evaluated(tmp_path)
    write(tmp_path / "predictions", "predictions", [row | {"candidates": None} for row in rows])
    with pytest.raises(InputError, match="50 predictions have a propensity and no candidates"):
        evaluated(tmp_path)


def test_propensities_of_another_policy_are_a_warning(tmp_path: Path) -> None:
    write_run(tmp_path, "epsilon", users=200)
    rows = pq.read_table(tmp_path / "predictions/part-0.parquet").to_pylist()
    other = [row | {"propensity": 0.1 + 0.001 * index} for index, row in enumerate(rows)]
    write(tmp_path / "predictions", "predictions", other)
    found = evaluated(tmp_path)
    assert "served" not in found["references"]
    assert any(text.startswith("model: its propensities are neither those of --explore") for text in found["warnings"])
