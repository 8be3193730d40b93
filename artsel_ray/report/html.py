"""Self-contained HTML pages from Jinja templates, which escape everything that comes from data."""

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from artsel_ray.console import visible
from artsel_ray.evaluation.metrics import LOG_METRICS, METRICS, headline, summary_metrics
from artsel_ray.report.plots import plot_formats, plot_learning_rates, plot_positions, plot_references

_PAPER_TABLES = {
    "1": "Table 1: every method, largest model",
    "2": "Table 2: zero-shot, size and output",
    "3": "Table 3: SFT against the same model zero-shot",
    "4": "Table 4: DPO",
}
_POLICIES = {
    "model": "Model", "served": "Model, as served", "random": "Random draw", "popularity": "Most engaged with",
    "oracle": "Oracle", "baseline": "Baseline", "baseline_served": "Baseline, as served",
}  # fmt: skip
# What selects a trained model, by its column.
_VALIDATION = {"validation_snips_logged": "SNIPS, logged π", "validation_ips": "IPS, uniform π"}
# A page of more titles would not open.
_MAX_TITLES = 200


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:+,.1f} %".replace("-", "−")


def _with_breaks(text: str) -> Markup:
    return Markup("<br>").join(map(escape, text.split("\n")))


def render(template: str, **values: Any) -> str:
    """Returns a template of this package with its values filled in."""
    loader = PackageLoader("artsel_ray.report", ".")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": _number, "percent": _percent, "with_breaks": _with_breaks}
    return visible(environment.get_template(template).render(values))


def render_evaluation(metrics: dict[str, Any], shown: list[dict[str, Any]], sources: dict[str, str]) -> str:
    """Returns the page of an evaluation: metrics.json, examples of choices (ids only), and the inputs by flag."""
    rows = _labeled({"model": metrics, **metrics["references"]})
    is_logged = metrics["headline"] == headline(has_propensities=True)
    summary = summary_metrics(is_logged)
    log = metrics["log"] or {"policies": {}, "difference": {}}
    return render(
        "evaluation.html",
        metrics=metrics,
        columns=METRICS,
        summary=summary,
        is_logged=is_logged,
        rows=rows,
        relative=_labeled(metrics["relative"]),
        difference=_labeled(metrics["difference"]),
        titles={
            kind: {
                "size": of_kind,
                "rows": _labeled({"model": of_kind, **of_kind["references"]}),
                "difference": _labeled(of_kind["difference"]),
            }
            for kind, of_kind in (metrics["titles"] or {}).items()
        },
        log_columns=LOG_METRICS,
        log_rows=_labeled(log["policies"]),
        log_difference=_labeled(log["difference"]),
        shown=shown,
        sources=sources,
        positions=Markup(plot_positions(metrics["by_position"])),
        references=Markup(plot_references(rows, {metric.name: metric.heading for metric in summary})),
    )


def _labeled(rows: dict[str, Any]) -> dict[str, Any]:
    return {_POLICIES[name]: row for name, row in rows.items()}


def render_sweep(
    trials: list[dict[str, Any]], best: dict[str, Any], flags: dict[str, Any], selected: str = "validation_ips",
    note: str = "",
) -> str:  # fmt: skip
    """Returns the page of a sweep.

    Args:
        trials: rows of the table of trials; `best` is the chosen one.
        flags: what to show of the flags.
        selected: column of the metric that it was chosen by.
        note: what its value there is, and what other examples say.
    """
    return render(
        "sweep.html",
        trials=sorted(trials, key=lambda row: row["learning_rate"]),
        best=best,
        flags=flags,
        selected=selected,
        heading=_VALIDATION[selected],
        note=note,
        image=Markup(plot_learning_rates(trials, best["learning_rate"], selected, _VALIDATION[selected])),
    )


def render_reproduction(
    rows: list[dict[str, Any]], positions: dict[str, list[dict[str, Any]]], facts: dict[str, Any]
) -> str:
    """Returns the page of a reproduction.

    Args:
        positions: for each label of Figure 1, `by_position` as in metrics.json.
        facts: scale, models, simulated, examples and users.
    """
    tables = {title: [row for row in rows if row["table"] == number] for number, title in _PAPER_TABLES.items()}
    return render(
        "reproduction.html",
        tables={title: of_table for title, of_table in tables.items() if of_table},
        positions=Markup(plot_formats(positions)) if positions else None,
        facts=facts,
    )


def render_user_segments(
    rows: Sequence[dict[str, Any]], names: Mapping[str, str], captions: Mapping[str, str], min_users: int
) -> str:
    """Returns the page of user segments: which segment gets which artwork.

    Args:
        rows: of the table `user_segments`.
        names: of the titles, by title id.
        captions: of the artworks, by artwork id; where one is missing, the id is shown.
        min_users: smallest segment that is described.
    """
    return render("user_segments.html", **_by_title(rows), names=names, captions=captions, min_users=min_users)


def render_proposals(rows: Sequence[dict[str, Any]], names: Mapping[str, str], min_users: int) -> str:
    """Returns the page of proposals: which artwork is missing.

    Args:
        rows: of the table `proposals`.
        names: of the titles, by title id.
        min_users: smallest group that gets a proposal.
    """
    return render("proposals.html", **_by_title(rows), names=names, min_users=min_users)


def _by_title(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Returns the rows to show for each title, titles of most users first, and how many titles there are."""
    by_title: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: -row["users"]):
        by_title.setdefault(row["title_id"], []).append(row)
    shown = dict(sorted(by_title.items(), key=lambda item: -sum(row["users"] for row in item[1]))[:_MAX_TITLES])
    return {"by_title": shown, "titles": len(by_title)}
