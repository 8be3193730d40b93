from pathlib import Path
from typing import Any

import pytest

from artsel_ray.evaluation.metrics import LOG_METRICS, METRICS, Metric

DOCS = Path(__file__).parent.parent.parent / "docs" / "evaluation.md"


@pytest.mark.parametrize("metric", [*METRICS, *LOG_METRICS], ids=lambda metric: metric.name)
def test_docs_describe_every_metric_as_the_table_does(metric: Metric[Any]) -> None:
    row = f"| `{metric.name}` | {metric.formula} | {metric.description} |"
    assert row in DOCS.read_text().splitlines(), f"docs/evaluation.md lacks the row: {row}"


@pytest.mark.parametrize("table", [METRICS, LOG_METRICS], ids=["examples", "log"])
def test_names_are_unique_and_sums_refer_to_earlier_metrics(table: tuple[Metric[Any], ...]) -> None:
    names = [metric.name for metric in table]
    assert len(set(names)) == len(names)
    for index, metric in enumerate(table):
        assert metric.plus is None or metric.plus in names[:index]
