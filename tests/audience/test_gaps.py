from pathlib import Path

from artsel_ray.audience.gaps import find_gaps
from tests.support.scored_runs import read_ranked_run, serve_only_lovers, write_scored_run


def test_users_whom_nothing_suits_are_a_gap(tmp_path: Path) -> None:
    write_scored_run(tmp_path, 200, serve_only_lovers)
    run, user_genres = read_ranked_run(tmp_path)
    (gap,) = find_gaps(run, user_genres, 0.4, 20)
    assert [each.genre for each in gap.over_indexed_genres] == ["Horror"]
    assert (gap.users, gap.title_users) == (80, 200)
    assert find_gaps(run, user_genres, 0.4, 81) == []


def test_title_that_serves_all_users_alike_has_no_gap(tmp_path: Path) -> None:
    write_scored_run(
        tmp_path, 200, lambda genre, number: {"fear": 0.4 + number % 3 / 10, "love": 0.6 - number % 3 / 10}
    )
    run, user_genres = read_ranked_run(tmp_path)
    assert find_gaps(run, user_genres, 0.3, 2) == []
