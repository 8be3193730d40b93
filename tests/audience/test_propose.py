import dataclasses
from pathlib import Path

import pytest

from artsel_ray import storage
from artsel_ray.audience.propose import find_gaps, propose
from artsel_ray.audience.settings import ProposeConfig
from artsel_ray.audience.user_segments import read_scored_run, read_user_genres
from artsel_ray.errors import InputError
from artsel_ray.models.load import Model
from artsel_ray.runtime import run as runs
from tests.audience.scored_runs import read_tables, write_scored_run
from tests.support.canary import logged


def lovers_are_served(genre: str, number: int) -> dict[str, float]:
    if genre == "Romance":
        return {"fear": 0.05, "love": 0.9, "plain": 0.05}
    return {"fear": 0.3 + number / 10_000, "love": 0.4, "plain": 0.3}


def config(folder: Path) -> ProposeConfig:
    predictions, requests, titles, artworks, output = (
        str(folder / name) for name in ("P", "requests", "titles", "artworks", "O")
    )
    return ProposeConfig(predictions, requests, titles, artworks, "smollm2", output)


def test_the_group_that_nothing_suits_is_found(tmp_path: Path) -> None:
    write_scored_run(tmp_path, 200, lovers_are_served)
    user_genres = read_user_genres(storage.list_files(str(tmp_path / "requests")))
    run = read_scored_run(runs.parts(str(tmp_path / "P")), read_tables(tmp_path), user_genres, ranked=True)
    (gap,) = find_gaps(run, user_genres, 0.4, 20)
    assert [each["genre"] for each in gap.over_indexed_genres] == ["Horror"]
    assert (gap.users, gap.asked) == (80, 200)
    assert find_gaps(run, user_genres, 0.4, 81) == []


def test_where_all_are_served_alike_nothing_is_missing(tmp_path: Path) -> None:
    write_scored_run(
        tmp_path, 200, lambda genre, number: {"fear": 0.4 + number % 3 / 10, "love": 0.6 - number % 3 / 10}
    )
    user_genres = read_user_genres(storage.list_files(str(tmp_path / "requests")))
    run = read_scored_run(runs.parts(str(tmp_path / "P")), read_tables(tmp_path), user_genres, ranked=True)
    assert find_gaps(run, user_genres, 0.3, 2) == []


def test_a_night_without_probabilities_is_refused(tmp_path: Path, smollm2: Model) -> None:
    write_scored_run(tmp_path, 4, lambda *_: {"fear": 1.0})
    run = storage.read_table(str(tmp_path / "P"), "predictions")
    place = run.schema.get_field_index("candidates")
    none = run.from_pylist([{}] * 4, run.schema.remove_metadata())["candidates"]
    bare = run.set_column(place, run.schema.field(place), none)
    storage.write_table(str(tmp_path / "P/part-000000.parquet"), bare, "predictions")
    with pytest.raises(InputError, match="score with --decoding rank"):
        propose(config(tmp_path))
    with pytest.raises(InputError, match="--share 2"):
        propose(dataclasses.replace(config(tmp_path), share=2.0))


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_a_model_writes_the_brief_and_a_second_run_nothing(
    tmp_path: Path, smollm2: Model, capfd: pytest.CaptureFixture[str]
) -> None:
    from artsel_ray.report.titles import report_proposals

    write_scored_run(tmp_path, 200, lovers_are_served)
    made = dataclasses.replace(config(tmp_path), max_tokens=24, share=0.4, max_model_length=1024)
    propose(made)
    (row,) = storage.read_table(str(tmp_path / "O/part-000000.parquet"), "proposals").to_pylist()
    assert (row["title_id"], row["users"], row["model_id"]) == ("t", 80, smollm2.model_id)
    assert len(row["brief"].split()) > 4
    before = (tmp_path / "O/part-000000.parquet").stat().st_mtime_ns
    propose(made)
    assert (tmp_path / "O/part-000000.parquet").stat().st_mtime_ns == before
    report_proposals(made)
    page = (tmp_path / "O/report.html").read_text()
    assert "The &lt;i&gt;House&lt;/i&gt;" in page
    assert "Horror" in page
    assert "u1" not in capfd.readouterr().out
    assert not any(logged(word=word) for word in ("lovers <b>kiss", "The <i>House"))
