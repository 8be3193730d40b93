"""Self-contained HTML from Jinja templates, with everything escaped that comes from data."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from artsel_ray.evaluation.metrics import LOG_METRICS, METRICS
from artsel_ray.report.plots import plot_formats, plot_learning_rates, plot_positions, plot_references

TITLES = {
    "1": "Table 1: every method, largest model",
    "2": "Table 2: zero-shot, size and output",
    "3": "Table 3: SFT against the same model zero-shot",
    "4": "Table 4: DPO",
}
LABELS = {
    "model": "Model",
    "random": "Random draw",
    "popularity": "Most engaged with",
    "oracle": "Oracle",
    "baseline": "Baseline",
}


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:+,.1f} %".replace("-", "−")


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("artsel_ray.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": _number, "percent": _percent}
    return environment


def render_evaluation(metrics: dict[str, Any], shown: list[dict[str, Any]], sources: dict[str, str]) -> str:
    """Returns the report of an evaluation as one HTML file without scripts or links.

    Args:
        metrics: the content of metrics.json.
        shown: examples of choices, ids only.
        sources: what was evaluated, by the name of the flag.
    """
    model = {name: metrics[name] for name in (*METRICS, "effective_sample_size")}
    rows = _labeled({"model": model, **metrics["references"]})
    log = metrics["log"] or {"policies": {}, "difference": {}}
    return (
        _environment()
        .get_template("evaluation.html")
        .render(
            metrics=metrics,
            rows=rows,
            columns=METRICS,
            relative=_labeled(metrics["relative"]),
            difference=_labeled(metrics["difference"]),
            log_columns=LOG_METRICS,
            log_rows=_labeled(log["policies"]),
            log_difference=_labeled(log["difference"]),
            shown=shown,
            sources=sources,
            positions=Markup(plot_positions(metrics["by_position"])),
            references=Markup(plot_references(rows)),
        )
    )


def _labeled(rows: dict[str, Any]) -> dict[str, Any]:
    return {LABELS[name]: row for name, row in rows.items()}


def render_sweep(trials: list[dict[str, Any]], best: dict[str, Any], flags: dict[str, Any]) -> str:
    """Returns the report of a sweep as one HTML file without scripts or links.

    Args:
        trials: rows of the table of trials.
        best: the row that was chosen.
        flags: what to show of the sweep's flags, by name.
    """
    return (
        _environment()
        .get_template("sweep.html")
        .render(
            trials=sorted(trials, key=lambda row: row["learning_rate"]),
            best=best,
            flags=flags,
            image=Markup(plot_learning_rates(trials, best["learning_rate"])),
        )
    )


def render_reproduction(
    rows: list[dict[str, Any]], positions: dict[str, list[dict[str, Any]]], facts: dict[str, Any]
) -> str:
    """Returns the report of a reproduction as one HTML file without scripts or links.

    Args:
        rows: rows of the table of results.
        positions: for each label of Figure 1, `by_position` as in metrics.json.
        facts: scale, models, simulated, examples and users.
    """
    tables = {title: [row for row in rows if row["table"] == number] for number, title in TITLES.items()}
    return (
        _environment()
        .get_template("reproduction.html")
        .render(
            tables={title: of_table for title, of_table in tables.items() if of_table},
            positions=Markup(plot_formats(positions)) if positions else None,
            facts=facts,
        )
    )


def render(template: str, **values: Any) -> str:
    """Returns a template of this package with its values filled in."""
    return _environment().get_template(template).render(**values)
