from typing import Any

from artsel_ray.report.titles import render_proposals, render_user_segments

NAMES = {"t": "The <i>House</i>", "big": "Heat"}
CAPTIONS = {"fear": "A hand at the door.", "love": "Two lovers <b>kiss</b>."}
HORROR = {"genre": "Horror", "inside": 0.5, "outside": 0.125, "low": 0.3, "high": 0.4}


def segment(artwork_id: str, users: int, **changes: Any) -> dict[str, Any]:
    row = {"title_id": "t", "artwork_id": artwork_id, "users": users, "share": 0.25}
    return {**row, "over_indexed_genres": [], "distinctive_terms": []} | changes


def test_page_of_user_segments_escapes_text_from_data() -> None:
    rows = [
        segment("love", 20, over_indexed_genres=[HORROR], distinctive_terms=["screams", "doors"]),
        segment("fear", 30),
        segment("unknown", 2),
    ]
    page = render_user_segments(rows, NAMES, CAPTIONS, min_users=10)
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
    page = render_user_segments(rows, NAMES, CAPTIONS, min_users=10)
    assert "201 titles, of which the 200 with most users are shown" in page
    assert "The &lt;i&gt;House" not in page
    assert page.index("<h2>t199</h2>") < page.index("<h2>t0</h2>")


def test_page_of_proposals_shows_briefs_and_their_absence() -> None:
    row = {"title_id": "t", "users": 40, "share": 0.5, "over_indexed_genres": [HORROR], "model_id": "m"}
    rows = [row | {"brief": "A <b>storm</b>."}, row | {"title_id": "big", "users": 90, "brief": None}]
    page = render_proposals(rows, NAMES, min_users=20)
    assert "A &lt;b&gt;storm&lt;/b&gt;." in page
    assert "For about 40 users (50 % of the title" in page
    assert "No brief: the title" in page
    assert page.index("Heat") < page.index("The &lt;i&gt;House")
    assert "fewer than\n20 users" in page
