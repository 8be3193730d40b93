import re
from typing import Any
from xml.etree import ElementTree

from artsel_ray.report.html import render_sweep
from artsel_ray.report.plots import plot_learning_rates
from artsel_ray.report.sweep import sweep_page


def trial(rate: float, status: str, ips: float | None, error: str | None = None) -> dict[str, Any]:
    numbers = {
        "validation_ips": ips,
        "validation_accuracy": ips and ips / 8,
        "loss": ips and 2 / ips,
        "step": ips and 40,
    }
    return {"learning_rate": rate, "status": status, **numbers, "seconds": 3.0, "error": error}


TRIALS = [
    trial(1e-4, "failed", None, "the loss is nan at step 3"),
    trial(1e-6, "finished", 1.25),
    trial(1e-5, "finished", 1.75),
    trial(1e-7, "stopped", 1.0),
]


def test_plot_shows_how_every_trial_ended() -> None:
    svg = plot_learning_rates(TRIALS, 1e-5)
    for text in ("finished", "stopped early", "best", "failed", "learning rate"):
        assert f">{text}</text>" in svg or f"> {text}</text>" in svg
    ElementTree.fromstring(svg.replace("xlink:href", "href"))
    assert "stopped" not in plot_learning_rates(TRIALS[1:3], 1e-5)


def test_page_has_a_row_for_each_trial_by_learning_rate_and_escapes_text() -> None:
    page = render_sweep([*TRIALS, trial(1.0, "failed", None, "<script>")], TRIALS[2], {"model": "<b>"})
    rows = re.findall(r"<tr[^>]*><td>([^<]*)</td>", page)
    assert rows == ["1e-07", "1e-06", "1e-05", "0.0001", "1.0"]
    assert page.count('<tr class="model">') == 1
    assert "<script>" not in page
    assert "<b>" not in page.replace("<b>1", "")
    assert "http" not in page


def test_page_shows_the_flags_without_what_is_private() -> None:
    flags: dict[str, Any] = {
        "method": "sft",
        "model": "s3://bucket/secret-place/a/model?key=k3y",
        "examples": "s3://bucket/private",
        "seed": 3,
    }
    flags |= dict.fromkeys(("output_format", "reason", "layout", "epochs", "max_steps", "batch_size", "lora_rank"))
    page = sweep_page(TRIALS, TRIALS[2], flags)
    assert "1.750" in page
    assert "a/model" in page
    assert "seed: 3" in page
    assert not [word for word in ("secret-place", "k3y", "private") if word in page]


def test_page_names_steps_or_epochs() -> None:
    flags: dict[str, Any] = dict.fromkeys(("output_format", "reason", "layout", "batch_size", "lora_rank", "seed"))
    flags |= {"method": "sft", "model": "m", "epochs": 1.0}
    assert "epochs: 1.0" in sweep_page(TRIALS, TRIALS[2], flags | {"max_steps": None})
    assert "max steps: 7" in sweep_page(TRIALS, TRIALS[2], flags | {"max_steps": 7})
