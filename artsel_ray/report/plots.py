"""Plots as inline SVG: no scripts, no links, text that stays text."""

import io
import re
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

_INK, _MUTED, _GRID, _MODEL, _BAR, _ACCENT = "#1f2933", "#6b7785", "#e4e8ec", "#0b6e99", "#cfdde6", "#c2571a"
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["system-ui", "Segoe UI", "Helvetica", "Arial", "DejaVu Sans"],
    "font.size": 11,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _MUTED,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": _GRID,
    "legend.frameon": False,
    "legend.borderaxespad": 0,
}


def _svg(figure: Figure, name: str) -> str:
    """Returns the figure as an SVG element.

    Args:
        name: keeps the ids of two figures on one page apart.
    """
    stream = io.StringIO()
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    svg = stream.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    # Namespaces are URLs, and a page has none; the page scales the figure, so it has no size of its own.
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg)
    svg = re.sub(r' height="[\d.]+pt"', "", svg, count=1)
    return re.sub(r'<svg ([^>]*?)width="[^"]*"', r'<svg \1role="img"', svg, count=1)


def plot_positions(rows: list[dict[str, Any]]) -> str:
    """Plots Figure 1 of the paper: accuracy by the position of the engaged artwork, above the number of examples.

    Args:
        rows: `by_position` of metrics.json.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(8.4, 4.4), layout="constrained")
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        position, random = ([row[name] for row in rows] for name in ("position", "random"))
        low, high = ([row[end] or 0 for row in rows] for end in ("low", "high"))
        top.vlines(position, low, high, color=_MODEL, alpha=0.35, lw=4)
        top.plot(position, [row["accuracy"] for row in rows], "o", color=_MODEL, ms=5, label="model, 95 % interval")
        top.plot(position, random, "--", color=_MUTED, lw=1.5, label="random draw, mean of 1/m")
        top.set_ylabel("accuracy")
        top.set_ylim(0, 1.05 * max(high + random))
        top.legend(ncols=2, loc="lower right", bbox_to_anchor=(1, 1))
        bottom.bar(position, [row["examples"] for row in rows], color=_BAR, width=0.8)
        bottom.set_ylabel("examples")
        bottom.set_xlabel("position of the engaged artwork among the candidates (0 is first)")
        bottom.xaxis.get_major_locator().set_params(integer=True)
        return _svg(figure, "positions")


def plot_formats(series: dict[str, list[dict[str, Any]]]) -> str:
    """Plots Figure 1 of the paper for several outputs: accuracy by the position of the engaged artwork.

    Args:
        series: for each label, `by_position` as in metrics.json.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(8.4, 3.6), layout="constrained")
        axes = figure.subplots()
        for number, (label, rows) in enumerate(series.items()):
            color = (_MODEL, _ACCENT)[number % 2]
            position = [row["position"] + (number - 0.5) * 0.2 for row in rows]
            low, high = ([row[end] or 0 for row in rows] for end in ("low", "high"))
            axes.vlines(position, low, high, color=color, alpha=0.3, lw=4)
            axes.plot(position, [row["accuracy"] for row in rows], "o-", color=color, ms=5, lw=1, label=label)
        random = {row["position"]: row["random"] for rows in series.values() for row in rows}
        axes.plot(list(random), list(random.values()), "--", color=_MUTED, lw=1.5, label="random draw, mean of 1/m")
        axes.set_xlabel("position of the engaged artwork among the candidates (0 is first)")
        axes.set_ylabel("accuracy")
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(ncols=3, loc="lower right", bbox_to_anchor=(1, 1))
        return _svg(figure, "formats")


def plot_references(rows: dict[str, dict[str, Any]], metrics: dict[str, str]) -> str:
    """Plots metrics of every policy with their intervals, one policy below the other.

    Args:
        rows: for each label, the policy's metrics.
        metrics: headings of the metrics to show, by name.
    """
    with mpl.rc_context({**_STYLE, "axes.grid.axis": "x"}):
        figure = Figure(figsize=(max(8.4, 2.7 * len(metrics)), 0.9 + 0.42 * len(rows)), layout="constrained")
        subplots = figure.subplots(1, len(metrics), sharey=True)
        for axes, (name, heading) in zip(subplots, metrics.items(), strict=True):
            _plot_intervals(axes, [row[name] for row in rows.values()])
            axes.set_xlabel(heading.replace("\n", ", "))
            axes.set_yticks(range(len(rows)), list(rows), color=_INK)
            axes.set_ylim(len(rows) - 0.5, -0.5)
        return _svg(figure, "references")


def _plot_intervals(axes: Axes, estimates: list[dict[str, Any]]) -> None:
    for index, estimate in enumerate(estimates):
        color = _MODEL if index == 0 else _MUTED
        if None not in estimate.values():
            axes.hlines(index, estimate["low"], estimate["high"], color=color, lw=4, alpha=0.4)
            axes.plot([estimate["value"]], [index], "o", color=color, ms=7)
    axes.set_xlim(left=0)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def plot_learning_rates(
    trials: list[dict[str, Any]], best: float, selected: str = "validation_ips", heading: str = "IPS, uniform π"
) -> str:
    """Plots a metric and accuracy on validation over the learning rate, and which trials stopped early or failed.

    Args:
        trials: rows of the table of trials.
        best: the chosen learning rate.
        selected: column of the metric that selects; `heading` is its name.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(8.4, 3.6), layout="constrained")
        names = {selected: heading, "validation_accuracy": "accuracy"}
        for axes, (metric, name) in zip(figure.subplots(1, 2), names.items(), strict=True):
            _plot_over_rates(axes, trials, metric, best)
            axes.set_ylabel(f"{name}, validation")
        figure.axes[0].legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3)
        return _svg(figure, "learning-rates")


def _plot_over_rates(axes: Axes, trials: list[dict[str, Any]], metric: str, best: float) -> None:
    axes.set_xscale("log")
    rows = sorted((row for row in trials if row[metric] is not None), key=lambda row: row["learning_rate"])
    finished = [row for row in rows if row["status"] == "finished"]
    axes.plot(*_points(finished, metric), "-", color=_BAR, lw=2)
    axes.plot(*_points(finished, metric), "o", color=_MUTED, ms=6, label="finished")
    if stopped := [row for row in rows if row["status"] == "stopped"]:
        axes.plot(*_points(stopped, metric), "o", mfc="none", color=_MUTED, ms=6, label="stopped early")
    chosen = [row for row in rows if row["learning_rate"] == best]
    axes.plot(*_points(chosen, metric), "o", color=_MODEL, ms=9, label="best")
    for rate in [row["learning_rate"] for row in trials if row["status"] == "failed"]:
        axes.axvline(rate, color=_MUTED, ls=":", lw=1)
        axes.text(rate, 0.02, " failed", rotation=90, transform=axes.get_xaxis_transform(), ha="right")
    axes.set_xlabel("learning rate")


def _points(rows: list[dict[str, Any]], metric: str) -> tuple[list[float], list[float]]:
    return [row["learning_rate"] for row in rows], [row[metric] for row in rows]
