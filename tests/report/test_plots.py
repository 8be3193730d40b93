import re
from typing import Any
from xml.etree import ElementTree

from artsel_ray.report.plots import plot_formats, plot_positions, plot_references

ROWS: list[dict[str, Any]] = [
    {"position": 0, "examples": 30, "accuracy": 0.5, "low": 0.4, "high": 0.6, "random": 0.25},
    {"position": 7, "examples": 1, "accuracy": 0.0, "low": None, "high": None, "random": 0.05},
]
POINT = {"value": 0.5, "low": 0.4, "high": 0.6}
NOTHING = {"value": None, "low": None, "high": None}


def test_positions_are_one_svg_element_with_its_text() -> None:
    svg = plot_positions(ROWS)
    for text in ("accuracy", "examples", "random draw, mean of 1/m", "model, 95 % interval"):
        assert f">{text}</text>" in svg
    ElementTree.fromstring(svg.replace("xlink:href", "href"))
    assert "http" not in svg


def test_formats_share_one_figure() -> None:
    svg = plot_formats({"3B, number": ROWS[:1], "3B, text": ROWS})
    for text in ("3B, number", "3B, text", "random draw, mean of 1/m", "accuracy"):
        assert f">{text}</text>" in svg
    ElementTree.fromstring(svg.replace("xlink:href", "href"))


def test_references_name_every_policy_and_survive_gaps() -> None:
    rows: dict[str, dict[str, Any]] = {
        "Model": {"accuracy": POINT, "ips": POINT},
        "Other": {"accuracy": NOTHING, "ips": NOTHING},
    }
    svg = plot_references(rows, {"accuracy": "Accuracy", "ips": "IPS\nuniform π"})
    assert ">Model</text>" in svg
    assert ">Other</text>" in svg
    assert ">Accuracy</text>" in svg
    assert ">IPS, uniform π</text>" in svg


def test_two_figures_share_no_id_and_a_figure_is_reproducible() -> None:
    references = plot_references({"Model": {"accuracy": POINT, "ips": POINT}}, {"accuracy": "Accuracy", "ips": "IPS"})
    first, second = plot_positions(ROWS), references
    assert first == plot_positions(ROWS)
    clips = [set(re.findall(r'id="(p[0-9a-f]+)"', svg)) for svg in (first, second)]
    assert clips[0]
    assert not clips[0] & clips[1]
