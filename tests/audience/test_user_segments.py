from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from artsel_ray import schema, storage
from artsel_ray.audience.user_segments import asset_kind_of, over_indexed_genres, read_scored_run, read_user_genres
from artsel_ray.errors import InputError
from artsel_ray.runtime import run as runs
from tests.audience.scored_runs import NOW, read_tables, write_scored_run


def test_what_a_night_chose_among_is_in_its_config(tmp_path: Path) -> None:
    for run, kind in (({"prompt": {"asset_kind": "trailer"}}, "trailer"), ({"prompt": {}}, "artwork")):
        storage.write_json(str(tmp_path / "config.json"), {"run": run})
        assert asset_kind_of(str(tmp_path)) == kind
    storage.write_json(str(tmp_path / "config.json"), {"run": {"teacher": "m"}})
    with pytest.raises(InputError, match=r"is no output of jobs/score\.py"):
        asset_kind_of(str(tmp_path))


def test_a_taste_is_the_share_of_each_genre(tmp_path: Path) -> None:
    def item(genres: list[str] | None) -> dict[str, object]:
        return {"timestamp": NOW, "title_name": "X", "genres": genres}

    rows = [
        {"user_id": "a", "history": [item(["Drama", "War"]), item(["Drama"])], "title_ids": []},
        {"user_id": "b", "history": [item(None), item([])], "title_ids": []},
        {"user_id": "a", "history": [item(["War"])], "title_ids": []},
        {"user_id": "c", "history": [item(["Film-Noir"])], "title_ids": []},
    ]
    for number, part in enumerate((rows[:2], rows[2:])):
        table = pa.Table.from_pylist(part, schema.REQUESTS)
        storage.write_table(str(tmp_path / f"{number}.parquet"), table, "requests")
    user_genres = read_user_genres(storage.list_files(str(tmp_path)))
    assert user_genres.user_ids.to_pylist() == ["a", "b", "c"]
    assert user_genres.genres == ["Drama", "War", "Film-Noir"]
    assert user_genres.share_ug.tolist() == [[0.5, 0.5, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0]]


def test_what_is_known_of_a_user_is_how_far_the_probabilities_are_from_everybodys(tmp_path: Path) -> None:
    write_scored_run(
        tmp_path, 4, lambda genre, _: {"fear": 0.8, "love": 0.2} if genre == "Horror" else {"fear": 0.4, "love": 0.6}
    )
    user_genres = read_user_genres(storage.list_files(str(tmp_path / "requests")))
    run = read_scored_run(runs.parts(str(tmp_path / "P")), read_tables(tmp_path), user_genres, ranked=True)
    mean = np.array([0.6, 0.4])
    expected = [float((p * np.log(p / mean)).sum()) for p in (np.array([0.8, 0.2]), np.array([0.4, 0.6]))] * 2
    np.testing.assert_allclose(run.kl_divergence_n, expected)
    assert list(run.titles()) == [slice(0, 4)]


def test_a_night_of_other_tables_is_refused(tmp_path: Path) -> None:
    write_scored_run(tmp_path, 4, lambda *_: {"fear": 1.0})
    user_genres = read_user_genres([])
    with pytest.raises(InputError, match="'user_id' is not in the tables"):
        read_scored_run(runs.parts(str(tmp_path / "P")), read_tables(tmp_path), user_genres, ranked=False)
    with pytest.raises(InputError, match="is not over"):
        runs.parts(str(tmp_path / "requests"))


@given(st.integers(0, 2**32 - 1), st.integers(2, 40), st.integers(2, 40))
def test_favourites_are_by_welchs_test(seed: int, inside: int, outside: int) -> None:
    random = np.random.default_rng(seed)
    share_ng = random.dirichlet(np.ones(5), inside + outside).astype(np.float32)
    share_ng[:inside, 2] += random.choice([0, 0.5])
    inside_n = np.arange(inside + outside) < inside
    genres = list("abcde")
    found = over_indexed_genres(share_ng, inside_n, genres)
    one, other = share_ng[:inside].astype(float), share_ng[inside:].astype(float)
    error_g = (one.std(axis=0, ddof=1) ** 2 / inside + other.std(axis=0, ddof=1) ** 2 / outside) ** 0.5
    statistic_g = (one.mean(axis=0) - other.mean(axis=0)) / error_g
    sure = [genres[g] for g in np.argsort(-statistic_g) if statistic_g[g] > 3]
    assert [each["genre"] for each in found] == sure[:3]
    for each in found:
        assert each["low"] < each["inside"] - each["outside"] < each["high"]


def test_one_user_is_no_group() -> None:
    assert over_indexed_genres(np.eye(3, dtype=np.float32), np.array([True, False, False]), list("abc")) == []
