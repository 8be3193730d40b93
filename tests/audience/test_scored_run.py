from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from artsel_ray import schema, storage
from artsel_ray.audience.scored_run import asset_kind_of, read_scored_run, read_user_genres
from artsel_ray.data.checked_reader import read_table
from artsel_ray.errors import InputError
from artsel_ray.runtime.run import finished_parts
from tests.support.scored_runs import NOW, read_ranked_run, read_tables, write_scored_run


def test_asset_kind_is_read_from_the_runs_config(tmp_path: Path) -> None:
    for run, kind in (({"prompt": {"asset_kind": "trailer"}}, "trailer"), ({"prompt": {}}, "artwork")):
        storage.write_json(str(tmp_path / "config.json"), {"run": run})
        assert asset_kind_of(str(tmp_path)) == kind
    storage.write_json(str(tmp_path / "config.json"), {"run": {"teacher": "m"}})
    with pytest.raises(InputError, match=r"is no output of jobs/score\.py"):
        asset_kind_of(str(tmp_path))


def test_users_have_the_share_of_each_genre(tmp_path: Path) -> None:
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
    # Genres of fewer users are left out, and count for the shares of the others.
    assert read_user_genres(storage.list_files(str(tmp_path)), 2).genres == []


def test_genres_of_single_users_cost_nothing(tmp_path: Path) -> None:
    def row(user: int) -> dict[str, object]:
        own = [
            {"timestamp": NOW, "title_name": "X", "genres": [f"{user}-{n}-{i}" for i in range(50)]} for n in range(500)
        ]
        shared = {"timestamp": NOW, "title_name": "X", "genres": ["Drama"]}
        return {"user_id": f"u{user}", "history": [*own, shared], "title_ids": ["t"]}

    table = pa.Table.from_pylist([row(user) for user in range(4)], schema.REQUESTS)
    storage.write_table(str(tmp_path / "a.parquet"), table, "requests")
    found = read_user_genres(storage.list_files(str(tmp_path)), 2)
    assert (found.genres, found.share_ug.shape) == (["Drama"], (4, 1))
    assert found.share_ug[0, 0] == np.float32(1 / 25_001)


def test_kl_divergence_is_from_the_mean_over_the_titles_users(tmp_path: Path) -> None:
    write_scored_run(
        tmp_path, 4, lambda genre, _: {"fear": 0.8, "love": 0.2} if genre == "Horror" else {"fear": 0.4, "love": 0.6}
    )
    run = read_ranked_run(tmp_path)
    mean = np.array([0.6, 0.4])
    expected = [float((p * np.log(p / mean)).sum()) for p in (np.array([0.8, 0.2]), np.array([0.4, 0.6]))] * 2
    np.testing.assert_allclose(run.kl_divergence_n, expected)
    assert list(run.titles()) == [slice(0, 4)]


def test_predictions_beyond_the_tables_are_refused(tmp_path: Path) -> None:
    write_scored_run(tmp_path, 4, lambda *_: {"fear": 1.0})
    with pytest.raises(InputError, match="'user_id' is not in the tables"):
        read_scored_run(finished_parts(str(tmp_path / "predictions")), [], read_tables(tmp_path), ranked=False)
    with pytest.raises(InputError, match="is not finished"):
        finished_parts(str(tmp_path / "requests"))


def test_error_names_the_row_of_an_unknown_artwork(tmp_path: Path) -> None:
    write_scored_run(tmp_path, 4, lambda *_: {"fear": 1.0})
    requests = storage.list_files(str(tmp_path / "requests"))
    (part,) = finished_parts(str(tmp_path / "predictions"))
    rows = pa.concat_tables([read_table(part, "predictions")] * 2).to_pylist()
    rows[5]["artwork_id"] = "another"
    storage.write_table(part, pa.Table.from_pylist(rows, schema.PREDICTIONS), "predictions")
    with pytest.raises(InputError, match=r"part-000000\.parquet: row 5 \(from 0\), 'artwork_id' is not in the tables"):
        read_scored_run([part], requests, read_tables(tmp_path), ranked=False)
