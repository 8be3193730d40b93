"""Pages about titles: which taste gets which artwork, and which artwork is missing."""

from typing import Any

from artsel_ray import storage
from artsel_ray.audience.settings import ExplainConfig, ProposeConfig
from artsel_ray.report.html import render_titles
from artsel_ray.runtime import run as runs

# A page of more would not open.
_MAX_TITLES = 200


def report_user_segments(config: ExplainConfig) -> None:
    """Writes report.html beside a finished run of `explain`, and prints where it is."""
    rows = storage.read_table(storage.join(config.output, "tastes.parquet"), "tastes").to_pylist()
    _report(config, "tastes.html", rows)


def report_proposals(config: ProposeConfig) -> None:
    """Writes report.html beside a finished run of `propose`, and prints where it is."""
    tables = [storage.read_table(part, "proposals") for part in runs.parts(config.output)]
    _report(config, "proposals.html", [row for table in tables for row in table.to_pylist()])


def _report(config: ExplainConfig | ProposeConfig, template: str, rows: list[dict[str, Any]]) -> None:
    """Renders rows by title, those of most users first."""
    by_title: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: -row["users"]):
        by_title.setdefault(row["title_id"], []).append(row)
    shown = dict(sorted(by_title.items(), key=lambda item: -sum(row["users"] for row in item[1]))[:_MAX_TITLES])
    names = _texts(config.titles, "titles", "title_id", "name")
    captions = _texts(config.artworks, "artworks", "artwork_id", "caption")
    uri = storage.join(config.output, "report.html")
    page = render_titles(template, shown, names, captions, len(by_title), config.min_users)
    storage.write_object(uri, page.encode())
    print(uri, flush=True)


def _texts(uri: str, table: str, key: str, column: str) -> dict[str, str]:
    read = storage.read_table(uri, table, [key, column])
    return dict(zip(read[key].to_pylist(), read[column].to_pylist(), strict=True))
