from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from artsel_ray.audience.user_segments import distinctive_terms, find_gaps, over_indexed_genres
from tests.support.scored_runs import read_ranked_run, serve_only_lovers, write_scored_run


@given(st.integers(0, 2**32 - 1), st.integers(2, 40), st.integers(2, 40))
def test_over_indexed_genres_follow_welchs_test(seed: int, inside: int, outside: int) -> None:
    random = np.random.default_rng(seed)
    share_ng = random.dirichlet(np.ones(5), inside + outside).astype(np.float32)
    share_ng[:inside, 2] += random.choice([0, 0.5])
    inside_n = np.arange(inside + outside) < inside
    genres = list("abcde")
    found = over_indexed_genres(share_ng, inside_n, genres, 2)
    one, other = share_ng[:inside].astype(float), share_ng[inside:].astype(float)
    error_g = (one.std(axis=0, ddof=1) ** 2 / inside + other.std(axis=0, ddof=1) ** 2 / outside) ** 0.5
    statistic_g = (one.mean(axis=0) - other.mean(axis=0)) / error_g
    sure = [genres[g] for g in np.argsort(-statistic_g) if statistic_g[g] > 3]
    assert [each.genre for each in found] == sure[:3]
    for each in found:
        assert each.low - 0.02 < each.inside - each.outside < each.high + 0.02
        assert (round(each.inside, 2), round(each.low, 2)) == (each.inside, each.low)


def test_one_user_is_no_segment() -> None:
    assert over_indexed_genres(np.eye(3, dtype=np.float32), np.array([True, False, False]), list("abc"), 2) == []


def test_terms_of_few_or_of_all_rationales_are_not_distinctive() -> None:
    terms_n = [{"always", "mine"} if n < 20 else {"always", "theirs"} for n in range(60)] + [set()] * 5
    terms_n[0].add("rare")
    inside_n = np.arange(65) < 20
    assert distinctive_terms(terms_n, inside_n, 10) == ["mine"]
    assert distinctive_terms(terms_n, inside_n, 21) == []
    assert distinctive_terms([set()] * 65, inside_n, 10) == []


def test_users_whom_nothing_suits_are_a_gap(tmp_path: Path) -> None:
    write_scored_run(tmp_path, 200, serve_only_lovers)
    run = read_ranked_run(tmp_path)
    (gap,) = find_gaps(run, 0.4, 20)
    assert [each.genre for each in gap.over_indexed_genres] == ["Horror"]
    assert (gap.users, gap.title_users) == (80, 200)
    assert find_gaps(run, 0.4, 81) == []


def test_title_that_serves_all_users_alike_has_no_gap(tmp_path: Path) -> None:
    write_scored_run(
        tmp_path, 200, lambda genre, number: {"fear": 0.4 + number % 3 / 10, "love": 0.6 - number % 3 / 10}
    )
    run = read_ranked_run(tmp_path)
    assert find_gaps(run, 0.3, 2) == []


def test_nothing_is_said_of_fewer_than_the_minimum_of_users() -> None:
    inside_n = np.arange(1000) < 990
    share_ng = np.tile(np.array([[0.0, 0.2, 0.8]], np.float32), (1000, 1))
    share_ng[:990, 0] += 0.5 + np.arange(990) % 2 * 0.1
    # Few others: their mean would tell what each of them watches.
    assert [each.genre for each in over_indexed_genres(share_ng, inside_n, list("abc"), 10)] == ["a"]
    assert over_indexed_genres(share_ng, inside_n, list("abc"), 11) == []
    # Few of the users watch the genre.
    few = np.zeros((1000, 1), np.float32)
    few[:9, 0] = 1.0
    assert over_indexed_genres(few, np.arange(1000) < 30, ["a"], 10) == []
    terms_n = [{"mine"} if n < 990 else {"theirs"} for n in range(1000)]
    assert distinctive_terms(terms_n, inside_n, 10) == ["mine"]
    assert distinctive_terms(terms_n, inside_n, 11) == []
