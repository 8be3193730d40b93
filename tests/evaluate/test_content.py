import dataclasses
import math
from pathlib import Path

import pytest

from artsel_ray.evaluate.choices import policies_of, read_choices
from artsel_ray.evaluate.content import Findings, metrics_content
from artsel_ray.evaluate.example_table import read_examples
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
        "examples", "users", "accuracy", "ips", "snips", "dm", "ips_logged", "snips_logged", "effective_sample_size",
        "warnings", "missing", "unknown_artwork", "other_predictions", "unusable_predictions", "rejected_examples",
        "rejected_predictions", "known_propensities", "invalid_propensities", "max_weight", "simulated", "note",
        "by_position", "relative", "difference", "references", "log", "permutations",
    ]  # fmt: skip
    assert content["rejected_predictions"] == 7
    assert list(content["by_position"][0]) == ["position", "examples", "accuracy", "low", "high", "random"]
    assert list(content["references"]["random"])[-1] == "effective_sample_size"
    assert all(text.startswith(("model, ", "random, ")) for text in content["warnings"])


@pytest.mark.parametrize(("max_weight", "expected"), [(math.inf, None), (3.0, 3.0)])
def test_clipping_is_noted(findings: Findings, max_weight: float, expected: float | None) -> None:
    settings = EstimateSettings(50, 0, max_weight)
    content = metrics_content(dataclasses.replace(findings, settings=settings))
    assert content["max_weight"] == expected
    assert ("Their weights are clipped at 3." in content["note"]) == (expected is not None)
