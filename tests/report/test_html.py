import re
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import pytest

from artsel_ray.evaluation.held_out import selection_note
from artsel_ray.evaluation.metrics import METRICS
from artsel_ray.report.html import render_evaluation, render_proposals, render_sweep, render_user_segments
from artsel_ray.report.plots import plot_learning_rates

ESTIMATE = {"value": 0.5, "low": 0.25, "high": 0.75}
NAMES = [metric.name for metric in METRICS]
TITLES = {"t": "The <i>House</i>", "big": "Heat"}
CAPTIONS = {"fear": "A hand at the door.", "love": "Two lovers <b>kiss</b>."}
HORROR = {"genre": "Horror", "inside": 0.5, "outside": 0.125, "low": 0.3, "high": 0.4}
UNKNOWN = {"value": None, "low": None, "high": None}


def metrics(**changes: Any) -> dict[str, Any]:
    row = dict.fromkeys(NAMES, ESTIMATE) | {"effective_sample_size": 12.0}
    counts = ("missing", "unknown_artwork", "other_predictions", "unusable_predictions", "rejected_examples")
    return {
        **row,
        "headline": "ips",
        "dm_left_out": None,
        **dict.fromkeys((*counts, "rejected_predictions", "known_propensities", "invalid_propensities"), 0),
        "examples": 4321,
        "users": 99,
        "warnings": [],
        "titles": None,
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


def test_selected_maximum_says_that_it_is_one() -> None:
    page = render_sweep(TRIALS, TRIALS[2], {}, note=f"{selection_note(len(TRIALS))}: on 9 <test> examples, …")
    assert f"This is the best of {len(TRIALS)} trials on these examples, and so too high" in page
    assert "on 9 &lt;test&gt; examples" in page
    assert "This is" not in render_sweep(TRIALS[2:3], TRIALS[2], {})


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


def segment(artwork_id: str, users: int, **changes: Any) -> dict[str, Any]:
    row = {"title_id": "t", "artwork_id": artwork_id, "users": users, "share": 0.25}
    return {**row, "over_indexed_genres": [], "distinctive_terms": []} | changes


def test_page_of_user_segments_escapes_text_from_data() -> None:
    rows = [
        segment("love", 20, over_indexed_genres=[HORROR], distinctive_terms=["screams", "doors"]),
        segment("fear", 30),
        segment("unknown", 2),
    ]
    page = render_user_segments(rows, TITLES, CAPTIONS, min_users=10)
    assert "The &lt;i&gt;House&lt;/i&gt;" in page
    assert "Two lovers &lt;b&gt;kiss&lt;/b&gt;." in page
    assert "Horror 50 % against 12 %" in page
    assert "screams, doors" in page
    assert "<script" not in page
    # Most users first; an artwork without a caption by its id; few users are not described.
    assert page.index("A hand at the door.") < page.index("Two lovers") < page.index("unknown")
    assert page.count("too few users to describe") == 1


def test_titles_of_most_users_come_first_and_others_are_counted() -> None:
    rows = [segment("fear", 5)] + [segment("x", 10 + n, title_id=f"t{n}") for n in range(200)]
    page = render_user_segments(rows, TITLES, CAPTIONS, min_users=10)
    assert "201 titles, of which the 200 with most users are shown" in page
    assert "The &lt;i&gt;House" not in page
    assert page.index("<h2>t199</h2>") < page.index("<h2>t0</h2>")


def test_page_of_proposals_shows_briefs_and_their_absence() -> None:
    row = {"title_id": "t", "users": 40, "share": 0.5, "over_indexed_genres": [HORROR], "model_id": "m"}
    rows = [row | {"brief": "A <b>storm</b>."}, row | {"title_id": "big", "users": 90, "brief": None}]
    page = render_proposals(rows, TITLES, min_users=20)
    assert "A &lt;b&gt;storm&lt;/b&gt;." in page
    assert "For about 40 users (50 % of the title" in page
    assert "No brief: the title" in page
    assert page.index("Heat") < page.index("The &lt;i&gt;House")
    assert "fewer than\n20 users" in page


def test_headline_is_the_logged_estimate_where_there_are_propensities() -> None:
    change = {"value": 31.2, "low": 4.0, "high": 60.0}
    logged = metrics(headline="snips_logged", known_propensities=4321, dm_left_out="there is no baseline")
    logged["relative"] = {"random": dict.fromkeys(NAMES, change)}
    page = render_evaluation(logged, [], {})
    heading = page[page.index("<h1>") : page.index("</h1>")]
    assert "+31.2 %" in heading
    assert page.index(">SNIPS, logged π<") < page.index(">IPS, uniform π (paper)<")
    assert ">SNIPS, logged π</text>" in page
    assert "DM is left out: there is no baseline" in page
    assert "SNIPS, logged π</text>" not in render_evaluation(metrics(), [], {})


def test_sweep_by_logged_snips_shows_it_with_a_random_draws() -> None:
    numbers = {"validation_snips_logged": 0.375, "validation_snips_logged_random": 0.25}
    trials = [row | numbers for row in TRIALS]
    page = render_sweep(trials, trials[1], {}, "validation_snips_logged")
    assert "has the best SNIPS, logged π on validation: 0.375; a random draw has 0.250" in page
    assert "<th>SNIPS, logged π</th><th>IPS, uniform π (paper)</th>" in page
    assert ">SNIPS, logged π, validation</text>" in page


def test_known_and_new_titles_have_a_section_each() -> None:
    row = dict.fromkeys(NAMES, ESTIMATE) | {"effective_sample_size": 12.0}
    counts = {"examples": 1000, "users": 90, "titles": 41, "missing": 7}
    kind: dict[str, Any] = {**counts, **row, "references": {"random": row}, "difference": {"random": row}}
    page = render_evaluation(metrics(titles={"known": kind, "new": kind}), [choice()], {})
    assert re.findall("<h2>(Known|New) titles</h2>", page) == ["Known", "New"]
    assert page.count("1,000 examples of 90 users and 41 titles") == 2
    assert page.count("Intervals are over users and titles.") == 1
    assert page.count("<td>Model less Random draw</td>") == 2
    assert "<h2>New titles</h2>" not in render_evaluation(metrics(), [choice()], {})


def test_control_sequences_in_names_are_shown_as_such() -> None:
    row = {"title_id": "t", "artwork_id": "fear", "users": 12, "share": 0.5, "over_indexed_genres": [HORROR]}
    page = render_user_segments([row | {"distinctive_terms": ["\u202egnp"]}], {"t": "The\x1b[2J House"}, CAPTIONS, 10)
    assert "The\ufffd[2J House" in page
    assert "\ufffdgnp" in page
    assert not {"\x1b", "\u202e"} & set(page)
