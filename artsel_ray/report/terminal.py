"""The table that an evaluation prints."""

from collections.abc import Sequence
from typing import Any

from artsel_ray.evaluation.metrics import LOG_METRICS, METRICS, Metric

_COUNTS = (
    "missing", "unknown_artwork", "other_predictions", "unusable_predictions", "rejected_examples",
    "invalid_propensities",
)  # fmt: skip
_NAME_WIDTH, _CELL_WIDTH = 12, 28


def evaluation_lines(metrics: dict[str, Any]) -> list[str]:
    """Returns metrics.json's headline metrics of every policy, what was left out or invalid, and the warnings."""
    columns = [metric for metric in METRICS if metric.is_headline]
    lines = [_row("", [_short(metric) for metric in columns])]
    lines += [_policy(name, row, columns) for name, row in {"model": metrics, **metrics["references"]}.items()]
    lines += [_policy("- baseline", row, columns) for name, row in metrics["difference"].items() if name == "baseline"]
    lines.append(f"{metrics['examples']:,} examples of {metrics['users']:,} users, 95 % intervals over users")
    if log := metrics["log"]:
        lines += _log_lines(log)
    if found := metrics["permutations"]:
        shares = " ".join(f"{row['chosen']['value'] or 0:.2f}" for row in found["by_place"])
        agreement = _cell(found["agreement"])
        lines.append(f"{found['runs']} orders of the candidates: agreement {agreement}, chosen at {shares}")
    lines += [f"{name.replace('_', ' ')}: {metrics[name]:,}" for name in _COUNTS if metrics[name]]
    if metrics["known_propensities"] < metrics["examples"]:
        lines.append(f"usable propensities: {metrics['known_propensities']:,} of {metrics['examples']:,}")
    return lines + [f"warning: {text}" for text in metrics["warnings"]]


def _log_lines(log: dict[str, Any]) -> list[str]:
    columns = [metric for metric in LOG_METRICS if metric.is_headline]
    of_what = f"of {log['impressions']:,} impressions; logged {_cell(log['logged'])}"
    head = _row("", [*(_short(metric) for metric in columns), of_what])
    return [head, *(_policy(name, row, columns) for name, row in log["policies"].items())]


def _policy(name: str, row: dict[str, Any], columns: Sequence[Metric[Any]]) -> str:
    return _row(name, [_cell(row[metric.name]) for metric in columns])


def _row(name: str, cells: list[str]) -> str:
    return f"{name:{_NAME_WIDTH}}{''.join(f'{cell:{_CELL_WIDTH}}' for cell in cells)}".rstrip()


def _short(metric: Metric[Any]) -> str:
    heading = metric.heading.partition("\n")[0]
    return heading if heading.isupper() else heading.lower()


def _cell(measurement: dict[str, float | None]) -> str:
    value, low, high = ("-" if number is None else f"{number:.4f}" for number in measurement.values())
    return f"{value} [{low}, {high}]"
