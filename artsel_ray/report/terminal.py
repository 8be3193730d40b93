"""The table that an evaluation prints."""

from collections.abc import Sequence
from typing import Any

from artsel_ray.evaluation.metrics import LOG_METRICS, Metric, headline, summary_metrics

_COUNTS = (
    "missing", "unknown_artwork", "other_predictions", "unusable_predictions", "rejected_examples",
    "invalid_propensities",
)  # fmt: skip
_NAME_WIDTH, _CELL_WIDTH = 11, 28


def evaluation_lines(metrics: dict[str, Any]) -> list[str]:
    """Returns metrics.json's summary of every policy, what was left out or invalid, and the warnings."""
    is_logged = metrics["headline"] == headline(has_propensities=True)
    columns = summary_metrics(is_logged)
    lines = [_row("", [_with_policy(metric) if is_logged else _short(metric) for metric in columns])]
    for name, row in {"model": metrics, **metrics["references"]}.items():
        lines.append(_policy(name, row, columns))
        if expected := row.get("expected_best"):
            lines.append(_policy("- expected", expected, columns))
    lines += [_policy("- baseline", row, columns) for name, row in metrics["difference"].items() if name == "baseline"]
    if is_logged:
        sizes = {"model": metrics, **metrics["references"]}.items()
        lines.append(
            "SNIPS with logged π is the headline, IPS with uniform π the paper's metric; effective sample sizes: "
            + ", ".join(f"{name} {row['effective_sample_size']:,.0f}" for name, row in sizes)
        )
    lines.append(f"{metrics['examples']:,} examples of {metrics['users']:,} users, 95 % intervals over users")
    for kind, of_kind in (metrics["titles"] or {}).items():
        lines += _titles_lines(kind, of_kind, columns)
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


def _titles_lines(kind: str, of_kind: dict[str, Any], columns: Sequence[Metric[Any]]) -> list[str]:
    intervals = "users and titles" if kind == "new" else "users"
    size = f"{of_kind['examples']:,} examples of {of_kind['users']:,} users and {of_kind['titles']:,} titles"
    missing = f", {of_kind['missing']:,} without a prediction" if of_kind["missing"] else ""
    lines = [f"{kind} titles: {size}{missing}, intervals over {intervals}"]
    lines += [_policy(name, row, columns) for name, row in {"model": of_kind, **of_kind["references"]}.items()]
    return lines + [
        _policy("- baseline", row, columns) for name, row in of_kind["difference"].items() if name == "baseline"
    ]


def _log_lines(log: dict[str, Any]) -> list[str]:
    columns = [metric for metric in LOG_METRICS if metric.is_headline]
    of_what = f"of {log['impressions']:,} impressions; logged {_cell(log['logged'])}"
    head = _row("", [*(_short(metric) for metric in columns), of_what])
    lines = [head, *(_policy(name, row, columns) for name, row in log["policies"].items())]
    what = "DM is" if log["dm_left_out"] and log["policies"]["model"]["dr"]["value"] is not None else "DM and DR are"
    return lines + ([f"{what} left out: {log['dm_left_out']}"] if log["dm_left_out"] else [])


def _policy(name: str, row: dict[str, Any], columns: Sequence[Metric[Any]]) -> str:
    return _row(name, [_cell(row[metric.name]) if metric.name in row else "-" for metric in columns])


def _row(name: str, cells: list[str]) -> str:
    return f"{name:{_NAME_WIDTH}} {''.join(f'{cell:{_CELL_WIDTH}}' for cell in cells)}".rstrip()


def _short(metric: Metric[Any]) -> str:
    heading = metric.heading.partition("\n")[0]
    return heading if heading.isupper() else heading.lower()


def _with_policy(metric: Metric[Any]) -> str:
    _, _, policy = metric.heading.partition("\n")
    return f"{_short(metric)}{', ' if policy else ''}{policy}"


def _cell(measurement: dict[str, float | None]) -> str:
    value, low, high = ("-" if number is None else f"{number:.4f}" for number in measurement.values())
    return f"{value} [{low}, {high}]"
