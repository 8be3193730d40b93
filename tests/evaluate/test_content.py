import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from artsel_ray.evaluate.choices import read_choices
from artsel_ray.evaluate.content import Findings, metrics_content
from artsel_ray.evaluate.example_table import read_examples
from artsel_ray.evaluate.policies import policies_of
from artsel_ray.evaluation.metrics import METRICS
from artsel_ray.evaluation.policies import EstimateSettings, evaluate_policies


@pytest.fixture
def findings(small: Path) -> Findings:
    table = read_examples(str(small / "examples/test"))
    choices = {"model": read_choices(str(small / "predictions"), table)}
    settings = EstimateSettings(50, 0)
    return Findings(
        table=table,
        choices=choices,
        results=evaluate_policies(policies_of(table, choices, None), settings),
        log=None,
        position_bias=None,
        settings=settings,
        scoring_invalid=7,
        simulated=False,
    )


def test_keys_and_their_order(findings: Findings) -> None:
    content = metrics_content(findings)
    assert list(content) == [
        "headline", "examples", "users", *(metric.name for metric in METRICS), "effective_sample_size",
        "warnings", "missing", "unknown_artwork", "other_predictions", "unusable_predictions", "rejected_examples",
        "rejected_predictions", "known_propensities", "invalid_propensities", "max_weight",
        "dm_left_out", "simulated", "note", "by_position", "relative", "difference", "references", "titles", "log",
        "permutations",
    ]  # fmt: skip
    assert content["rejected_predictions"] == 7
    assert list(content["by_position"][0]) == ["position", "examples", "accuracy", "low", "high", "random"]
    assert list(content["references"]["random"])[-1] == "effective_sample_size"
    assert content["headline"] == "snips_logged"
    far, support, few, *others = content["warnings"]
    assert far.startswith("the log is far from uniform")
    assert support.startswith("SNIPS with logged π, of every policy: the weights rest on 3 of 4 examples")
    # Without the fourth example: 11.25 of 16.25, 11.25 of three, two hits of three, a mean of 2, 4 and 0.
    assert few == (
        "model: 25% of the examples have no prediction of a candidate and count as wrong; on those that have one: "
        "SNIPS, logged π 0.6923 (on all 0.6164); IPS, logged π 3.7500 (on all 2.8125); "
        "Accuracy 0.6667 (on all 0.5000); IPS, uniform π (paper) 2.0000 (on all 1.5000)"
    )
    assert all(text.startswith(("model, ", "random, ")) for text in others)


def test_without_propensities_the_papers_metric_stays_the_headline(findings: Findings) -> None:
    examples = dataclasses.replace(findings.table.examples, propensity_n=np.full(4, np.nan))
    table = dataclasses.replace(findings.table, examples=examples)
    content = metrics_content(dataclasses.replace(findings, table=table))
    assert content["headline"] == "ips"
    assert "SNIPS" not in " ".join(content["warnings"])


def test_popularity_that_knows_no_candidate_is_warned_about(findings: Findings) -> None:
    nothing = np.zeros(len(findings.table.candidate_c), np.int64)
    warnings = metrics_content(dataclasses.replace(findings, engagements_c=nothing))["warnings"]
    assert [text for text in warnings if text.startswith("popularity: no train example engages with any")]


@pytest.mark.parametrize(("max_weight", "expected"), [(math.inf, None), (3.0, 3.0)])
def test_clipping_is_noted(findings: Findings, max_weight: float, expected: float | None) -> None:
    settings = EstimateSettings(50, 0, max_weight)
    content = metrics_content(dataclasses.replace(findings, settings=settings))
    assert content["max_weight"] == expected
    assert ("Their weights are clipped at 3." in content["note"]) == (expected is not None)
