"""The report of a sweep: what each learning rate came to, as a picture and a table."""

from typing import Any

from artsel_ray import storage
from artsel_ray.report.html import render_sweep

_SHOWN = ("method", "model", "output_format", "reason", "layout", "batch_size", "lora_rank", "seed")


def report_sweep(output: str) -> None:
    """Writes report.html beside a finished sweep's trials.parquet, and prints where it is.

    Raises:
        InputError: if the sweep has not finished.
    """
    trials = storage.read_table(storage.join(output, "trials.parquet"), "trials").to_pylist()
    summary = storage.read_json(storage.join(output, "summary.json"))
    flags: dict[str, Any] = storage.read_json(storage.join(output, "config.json"))["config"]
    length = "max_steps" if flags["max_steps"] else "epochs"
    shown = {name: flags[name] for name in (*_SHOWN, length) if flags[name] is not None}
    # The end of a path: a URI's query can hold what is private, and a report is passed around.
    shown["model"] = "/".join(str(flags["model"]).partition("?")[0].rstrip("/").split("/")[-2:])
    uri = storage.join(output, "report.html")
    storage.write_object(uri, render_sweep(trials, summary["best"], shown).encode())
    print(uri, flush=True)
