import dataclasses
from pathlib import Path

import numpy as np
import pytest

from artsel_ray import storage
from artsel_ray.audience.explain import distinctive_terms, explain
from artsel_ray.audience.settings import ExplainConfig
from artsel_ray.errors import InputError
from tests.audience.scored_runs import write_scored_run


def config(folder: Path) -> ExplainConfig:
    predictions, requests, titles, artworks, output = (
        str(folder / name) for name in ("P", "requests", "titles", "artworks", "O")
    )
    return ExplainConfig(predictions, requests, titles, artworks, output)


def test_each_taste_gets_its_artwork_and_the_words_of_its_reasons(tmp_path: Path) -> None:
    def choose(genre: str, number: int) -> dict[str, float]:
        if number < 8:
            return {"fear": 0.1, "love": 0.1, "plain": 0.8}
        return (
            {"fear": 0.9, "love": 0.05, "plain": 0.05} if genre == "Horror" else {"fear": 0.1, "love": 0.9, "plain": 0}
        )

    write_scored_run(tmp_path, 60, choose, reason=True)
    explain(config(tmp_path))
    rows = {row["artwork_id"]: row for row in storage.read_table(str(tmp_path / "O"), "tastes").to_pylist()}
    assert {name: row["users"] for name, row in rows.items()} == {"fear": 26, "love": 26, "plain": 8}
    assert [row["share"] for row in rows.values()] == pytest.approx([26 / 60, 26 / 60, 8 / 60])
    assert [each["genre"] for each in rows["fear"]["favourites"]] == ["Horror"]
    assert [each["genre"] for each in rows["love"]["favourites"]] == ["Romance"]
    assert (rows["fear"]["words"], rows["love"]["words"]) == (["screams"], ["kisses"])
    # Of few users nothing is told.
    assert (rows["plain"]["favourites"], rows["plain"]["words"]) == ([], [])
    summary = storage.read_json(str(tmp_path / "O/summary.json"))
    assert (summary["pairs"], summary["reasons"], summary["artworks_of_a_taste"]) == (60, 60, 2)
    assert storage.read_manifest(str(tmp_path / "O")) == {"parts": ["tastes.parquet"], "artworks": 3}


def test_nobody_is_told_of_alone(tmp_path: Path) -> None:
    write_scored_run(tmp_path, 4, lambda *_: {"fear": 1.0})
    with pytest.raises(InputError, match="--least-users is 1"):
        explain(dataclasses.replace(config(tmp_path), min_users=1))


def test_words_that_only_few_say_or_all_say_tell_nothing() -> None:
    said = [{"always", "mine"} if n < 20 else {"always", "theirs"} for n in range(60)] + [set()] * 5
    said[0].add("rare")
    inside_n = np.arange(65) < 20
    assert distinctive_terms(said, inside_n, 10) == ["mine"]
    assert distinctive_terms(said, inside_n, 21) == []
    assert distinctive_terms([set()] * 65, inside_n, 10) == []


def test_a_night_of_pictures_needs_no_captions(tmp_path: Path) -> None:
    write_scored_run(tmp_path, 60, lambda genre, number: {"fear": 0.8, "love": 0.1, "plain": 0.1})
    artworks = storage.read_table(str(tmp_path / "artworks"), "artworks")
    uncaptioned = [row | {"caption": None, "image_uri": "a.png"} for row in artworks.to_pylist()]
    storage.write_table(
        str(tmp_path / "artworks/a.parquet"), artworks.from_pylist(uncaptioned, artworks.schema), "artworks"
    )
    explain(config(tmp_path))
    rows = storage.read_table(str(tmp_path / "O"), "tastes").to_pylist()
    assert [(row["artwork_id"], row["users"]) for row in rows] == [("fear", 60)]
