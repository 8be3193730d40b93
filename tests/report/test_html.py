import re
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import pytest

from artsel_ray.evaluation.metrics import METRICS
from artsel_ray.report.html import render_evaluation, render_sweep
from artsel_ray.report.plots import plot_learning_rates

ESTIMATE = {"value": 0.5, "low": 0.25, "high": 0.75}
NAMES = [metric.name for metric in METRICS]
UNKNOWN = {"value": None, "low": None, "high": None}


def metrics(**changes: Any) -> dict[str, Any]:
    row = dict.fromkeys(NAMES, ESTIMATE) | {"effective_sample_size": 12.0}
    counts = ("missing", "unknown_artwork", "other_predictions", "unusable_predictions", "rejected_examples")
    return {
        **row,
        **dict.fromkeys((*counts, "rejected_predictions", "known_propensities", "invalid_propensities"), 0),
        "examples": 4321,
        "users": 99,
        "warnings": [],
        "log": None,
        "permutations": None,
        "simulated": False,
        "note": "A note.",
        "by_position": [{"position": 0, "examples": 4321, "accuracy": 0.5, "low": 0.2, "high": 0.8, "random": 0.1}],
        "relative": {"random": {"accuracy": {"value": -12.34, "low": None, "high": 5.0}, "ips": UNKNOWN}},
        "difference": {"random": dict.fromkeys(NAMES, ESTIMATE)},
        "references": {"random": row | {"ips_logged": UNKNOWN}},
    } | changes


def choice(**changes: Any) -> dict[str, Any]:
    row = {"user": "u", "title": "t", "chosen": "a", "truth": "a", "missing": False, "hit": True}
    return row | {"probability": None, "candidates": 4} | changes


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.attributes: list[tuple[str, str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value) for name, value in attrs] or [(tag, "", None)]


def parsed(page: str) -> Tags:
    tags = Tags()
    tags.feed(page)
    return tags


def test_one_file_without_scripts_or_links() -> None:
    page = render_evaluation(metrics(), [choice()], {"examples": "examples/test"})
    assert "http" not in page
    links = [value for _, name, value in parsed(page).attributes if name in ("href", "src", "xlink:href")]
    assert all(link and link.startswith("#") for link in links)
    assert not {tag for tag, _, _ in parsed(page).attributes} & {"script", "link", "iframe", "img", "object"}
    assert "url(" not in re.sub(r"url\(#", "", page)
    assert page.count("<svg") == 2


def test_ids_are_escaped() -> None:
    hostile = "<script>alert(1)</script>\"'&"
    page = render_evaluation(metrics(), [choice(user=hostile, chosen=hostile)], {"examples": hostile})
    assert "<script" not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;&#34;&#39;&amp;") == 3


@pytest.mark.parametrize(
    "hostile",
    ["<script>alert(1)</script>", '" onload="alert(1)', "'><img src=x onerror=alert(1)>", "javascript:alert(1)"],
)
def test_nothing_from_data_becomes_an_element_or_an_attribute(hostile: str) -> None:
    """The page of hostile data has the tags and attributes of a harmless one's, in every report."""

    def reports(text: str) -> list[str]:
        trial = {"learning_rate": 1e-4, "status": "finished", "error": text, "step": 1, "seconds": 1.0}
        trial |= dict.fromkeys(("validation_ips", "validation_accuracy", "loss"), 0.5)
        row = choice(user=text, title=text, chosen=text, truth=text)
        evaluation = render_evaluation(metrics(note=text), [row], {"examples": text})
        return [evaluation, render_sweep([trial, {**trial, "status": "failed"}], trial, {"model": text})]

    for page, harmless in zip(reports(hostile), reports("harmless"), strict=True):
        assert parsed(page).attributes == parsed(harmless).attributes


def test_numbers_and_gaps() -> None:
    shown = [choice(chosen=None, missing=True, hit=False), choice(chosen=None, hit=False), choice(probability=0.123)]
    page = render_evaluation(metrics(), shown, {})
    for text in ("50.0 %", "4,321", "−12.3 %", "– to +5.0 %", "no prediction", "not a candidate", "0.123", "A note."):
        assert text in page


def test_only_simulated_data_is_labeled_simulated() -> None:
    assert "Simulated" not in render_evaluation(metrics(), [], {})
    assert "Simulated" in render_evaluation(metrics(simulated=True), [], {})


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
