"""The report of a sweep: the result of each learning rate, as a plot and a table."""

from typing import Any

from artsel_ray.report.html import render_sweep

_SHOWN = ("method", "model", "output_format", "reason", "layout", "batch_size", "lora_rank", "seed")


def sweep_page(trials: list[dict[str, Any]], best: dict[str, Any], flags: dict[str, Any]) -> str:
    """Returns the report of a sweep as one HTML file without scripts or links.

    Args:
        trials: rows of the table of trials.
        best: the row that was chosen.
        flags: all flags of the sweep, by name; those that tell sweeps apart are shown.
    """
    length = "max_steps" if flags["max_steps"] else "epochs"
    shown = {name: flags[name] for name in (*_SHOWN, length) if flags[name] is not None}
    # Only the end of a path: a URI's query can be private, and reports are passed around.
    shown["model"] = "/".join(str(flags["model"]).partition("?")[0].rstrip("/").split("/")[-2:])
    return render_sweep(trials, best, shown)
