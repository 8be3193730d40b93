"""Pages about titles: which user segment gets which artwork, and which artwork is missing."""

from collections.abc import Mapping, Sequence
from typing import Any

from artsel_ray.report.html import render

# A page of more titles would not open.
_MAX_TITLES = 200


def render_user_segments(
    rows: Sequence[dict[str, Any]], names: Mapping[str, str], captions: Mapping[str, str], min_users: int
) -> str:
    """Returns the page of user segments as one HTML file without scripts or links.

    `names` are by title id, `captions` by artwork id; where a caption is missing, the id is shown.
    """
    return render("user_segments.html", **_by_title(rows), names=names, captions=captions, min_users=min_users)


def render_proposals(rows: Sequence[dict[str, Any]], names: Mapping[str, str], min_users: int) -> str:
    """Returns the page of proposals as one HTML file without scripts or links; `names` are by title id."""
    return render("proposals.html", **_by_title(rows), names=names, min_users=min_users)


def _by_title(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    by_title: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: -row["users"]):
        by_title.setdefault(row["title_id"], []).append(row)
    shown = dict(sorted(by_title.items(), key=lambda item: -sum(row["users"] for row in item[1]))[:_MAX_TITLES])
    return {"by_title": shown, "titles": len(by_title)}
