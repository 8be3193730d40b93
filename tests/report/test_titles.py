from pathlib import Path

from artsel_ray.audience.explain import explain
from artsel_ray.audience.settings import ExplainConfig
from artsel_ray.report.titles import report_user_segments
from tests.audience.scored_runs import write_scored_run


def test_the_page_escapes_what_came_from_data(tmp_path: Path) -> None:
    write_scored_run(
        tmp_path, 40, lambda genre, _: {"fear": 0.5, "love": 0.4 if genre == "Horror" else 0.6}, reason=True
    )
    predictions, requests, titles, artworks, output = (
        str(tmp_path / name) for name in ("P", "requests", "titles", "artworks", "O")
    )
    config = ExplainConfig(predictions, requests, titles, artworks, output)
    explain(config)
    report_user_segments(config)
    page = (tmp_path / "O/report.html").read_text()
    assert "The &lt;i&gt;House&lt;/i&gt;" in page
    assert "Two lovers &lt;b&gt;kiss&lt;/b&gt;." in page
    assert "Horror" in page
    assert "screams" in page
    assert "<script" not in page
