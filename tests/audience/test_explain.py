from pathlib import Path
from typing import Any

import pytest

from artsel_ray import storage
from artsel_ray.audience.explain import explain
from artsel_ray.audience.settings import ExplainConfig
from artsel_ray.config import from_flags
from artsel_ray.data.checked_reader import read_table
from artsel_ray.errors import InputError
from artsel_ray.runtime.run import Run
from tests.support.scored_runs import write_scored_run


def config(folder: Path, **flags: Any) -> ExplainConfig:
    inputs = {name: str(folder / name) for name in ("predictions", "requests", "titles", "artworks", "output")}
    return from_flags(ExplainConfig, **inputs | flags)


def test_segments_have_their_artwork_genres_and_terms(tmp_path: Path) -> None:
    def choose(genre: str, number: int) -> dict[str, float]:
        if number < 8:
            return {"fear": 0.1, "love": 0.1, "plain": 0.8}
        return (
            {"fear": 0.9, "love": 0.05, "plain": 0.05} if genre == "Horror" else {"fear": 0.1, "love": 0.9, "plain": 0}
        )

    write_scored_run(tmp_path, 60, choose, rationale=True)
    explain(config(tmp_path))
    rows = {row["artwork_id"]: row for row in read_table(str(tmp_path / "output"), "user_segments").to_pylist()}
    assert {name: row["users"] for name, row in rows.items()} == {"fear": 26, "love": 26, "plain": 8}
    assert [row["share"] for row in rows.values()] == pytest.approx([26 / 60, 26 / 60, 8 / 60])
    assert [each["genre"] for each in rows["fear"]["over_indexed_genres"]] == ["Horror"]
    assert [each["genre"] for each in rows["love"]["over_indexed_genres"]] == ["Romance"]
    assert (rows["fear"]["distinctive_terms"], rows["love"]["distinctive_terms"]) == (["screams"], ["kisses"])
    # A segment of few users is not described.
    assert (rows["plain"]["over_indexed_genres"], rows["plain"]["distinctive_terms"]) == ([], [])
    summary = storage.read_json(str(tmp_path / "output/summary.json"))
    assert (summary["pairs"], summary["rationales"], summary["described_artworks"]) == (60, 60, 2)
    assert storage.read_manifest(str(tmp_path / "output")) == {"parts": ["user_segments.parquet"], "artworks": 3}


def test_single_users_are_never_described(tmp_path: Path) -> None:
    write_scored_run(tmp_path, 4, lambda *_: {"fear": 1.0})
    with pytest.raises(InputError, match="--min-users is 1; it must be at least 2"):
        explain(config(tmp_path, min_users=1))


def test_run_that_chose_among_images_needs_no_captions(tmp_path: Path) -> None:
    write_scored_run(tmp_path, 60, lambda genre, number: {"fear": 0.8, "love": 0.1, "plain": 0.1})
    artworks = read_table(str(tmp_path / "artworks"), "artworks")
    uncaptioned = [row | {"caption": None, "image_uri": "a.png"} for row in artworks.to_pylist()]
    storage.write_table(
        str(tmp_path / "artworks/a.parquet"), artworks.from_pylist(uncaptioned, artworks.schema), "artworks"
    )
    explain(config(tmp_path))
    rows = read_table(str(tmp_path / "output"), "user_segments").to_pylist()
    assert [(row["artwork_id"], row["users"]) for row in rows] == [("fear", 60)]


def test_page_is_written_before_the_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_scored_run(tmp_path, 40, lambda genre, _: {"fear": 0.5, "love": 0.4 if genre == "Horror" else 0.6})
    page = tmp_path / "output/report.html"
    publish = Run.publish

    def publish_after_page(run: Run, manifest: dict[str, Any]) -> None:
        assert "The &lt;i&gt;House&lt;/i&gt;" in page.read_text()
        assert "Two lovers &lt;b&gt;kiss&lt;/b&gt;." in page.read_text()
        publish(run, manifest)

    monkeypatch.setattr(Run, "publish", publish_after_page)
    explain(config(tmp_path))
    assert storage.read_manifest(str(tmp_path / "output")) is not None
