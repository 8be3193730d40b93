import numpy as np
import pytest

from artsel_ray.simulate import histories as module
from artsel_ray.simulate.histories import Viewings, genre_themes, movielens_histories, synthetic_histories
from artsel_ray.simulate.lexicon import THEMES

GENRES = [["Comedy"], ["War", "Drama"], [], ["Musical"]]


def test_part_keeps_users_and_cuts_every_column() -> None:
    numbers = np.arange(5)
    viewings = Viewings(["u", "v"], np.ones((2, 3)) / 3, numbers // 3, numbers, numbers + 10, numbers * 2.0)
    part = viewings.part(1, 4)
    assert (len(viewings), len(part)) == (5, 3)
    assert (part.user_ids, part.users.tolist(), part.titles.tolist()) == (["u", "v"], [0, 0, 1], [1, 2, 3])
    assert part.watch_seconds is not None
    assert (part.seconds.tolist(), part.watch_seconds.tolist()) == ([11, 12, 13], [2.0, 4.0, 6.0])
    assert len(viewings.part(4, 9)) == 1


def test_unknown_watch_time_stays_unknown() -> None:
    numbers = np.arange(2)
    assert Viewings(["u"], np.ones((1, 1)), numbers, numbers, numbers, None).part(0, 1).watch_seconds is None


def test_title_themes_follow_its_genres() -> None:
    rows = genre_themes(GENRES, 12)
    np.testing.assert_allclose(rows.sum(axis=1), 1)
    assert [THEMES[i].label for i in rows.argmax(axis=1)[[0, 1, 3]]] == ["mirth", "grief", "melody"]
    np.testing.assert_allclose(rows[2], 1 / 12)


def test_viewings_are_by_user_and_time_without_repeated_titles() -> None:
    histories = synthetic_histories(50, 40, THEMES[:6], 8.0, 0.3, seed=0)
    (viewings,) = histories.groups
    assert (np.diff(viewings.users) >= 0).all()
    same_user = np.diff(viewings.users) == 0
    assert (np.diff(viewings.seconds)[same_user] >= 0).all()
    assert len(set(zip(viewings.users.tolist(), viewings.titles.tolist(), strict=True))) == len(viewings)
    assert set(viewings.users.tolist()) == set(range(50))
    np.testing.assert_allclose(viewings.taste_ut.sum(axis=1), 1)
    np.testing.assert_allclose(histories.themes_xt.sum(axis=1), 1)


def test_users_watch_titles_of_their_taste() -> None:
    histories = synthetic_histories(400, 100, THEMES[:6], 10.0, 0.3, seed=0)
    (viewings,) = histories.groups
    watched = (viewings.taste_ut[viewings.users] * histories.themes_xt[viewings.titles]).sum(axis=1).mean()
    by_chance = (viewings.taste_ut.mean(axis=0) * histories.themes_xt.mean(axis=0)).sum()
    assert watched > 1.2 * by_chance


def test_shared_words_name_titles_after_objects() -> None:
    objects = {item.removeprefix("a ").removeprefix("the ").title() for theme in THEMES for item in theme.objects}
    for shared, expected in ((0.0, 0), (1.0, 30)):
        names = synthetic_histories(1, 30, THEMES[:12], 5.0, shared, seed=0).titles["name"].to_pylist()
        assert sum(name.removeprefix("The ").rpartition(" ")[0] in objects for name in names) == expected


def test_users_come_in_groups_of_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GROUP_USERS", 25)
    groups = list(synthetic_histories(60, 20, THEMES[:6], 8.0, 0.3, seed=0).groups)
    assert [len(group.user_ids) for group in groups] == [25, 25, 10]
    assert len({user for group in groups for user in group.user_ids}) == 60
    # Scores for 20 titles: at most 100 / 20 users.
    monkeypatch.setattr(module, "_GROUP_SCORES", 100)
    assert len(next(synthetic_histories(60, 20, THEMES[:6], 8.0, 0.3, seed=0).groups).user_ids) == 5


def test_all_ratings_titles_and_users_are_read() -> None:
    histories = movielens_histories(None, None, 10)
    titles, (viewings,) = histories.titles, histories.groups
    assert (len(viewings.user_ids), len(titles["title_id"]), len(viewings)) == (943, 1682, 100_000)
    assert len(titles["name"]) == len(titles["year"]) == len(titles["genres"]) == 1682
    assert titles["name"][0].as_py() == "Toy Story"
    assert titles["genres"][0].as_py() == ["Animation", "Children's", "Comedy"]
    assert titles["year"][0].as_py() == 1995
    assert "Misérables, Les" in titles["name"].to_pylist()
    assert viewings.watch_seconds is None


def test_viewings_are_by_user_and_time() -> None:
    histories = movielens_histories(50, 100, 10)
    (viewings,) = histories.groups
    assert len(viewings.user_ids) == 50
    assert len(histories.titles["title_id"]) == 100
    assert (np.diff(viewings.users) >= 0).all()
    same_user = np.diff(viewings.users) == 0
    assert (np.diff(viewings.seconds)[same_user] >= 0).all()
    assert len(set(zip(viewings.users.tolist(), viewings.titles.tolist(), strict=True))) == len(viewings)


def test_taste_is_what_a_user_watched_more_of_than_others() -> None:
    histories = movielens_histories(100, 200, 6)
    (viewings,) = histories.groups
    np.testing.assert_allclose(viewings.taste_ut.sum(axis=1), 1)
    share_ut = np.stack([histories.themes_xt[viewings.titles[viewings.users == user]].mean(axis=0) for user in (0, 7)])
    mean_t = np.stack(
        [histories.themes_xt[viewings.titles[viewings.users == user]].mean(axis=0) for user in range(100)]
    ).mean(axis=0)
    expected = (share_ut / mean_t) ** 3
    np.testing.assert_allclose(viewings.taste_ut[[0, 7]], expected / expected.sum(axis=1, keepdims=True))


def test_new_titles_are_shown_in_the_last_tenth() -> None:
    (viewings,) = synthetic_histories(50, 40, THEMES[:6], 8.0, 0.3, seed=0).groups
    is_new_x = np.arange(40) % 4 == 0
    moved = viewings.released_late(is_new_x)
    release = viewings.seconds.max() - 0.1 * (viewings.seconds.max() - viewings.seconds.min())
    assert moved.seconds[is_new_x[moved.titles]].min() >= release - 1
    assert moved.seconds.max() == viewings.seconds.max()
    # Known titles keep their times, and every viewing keeps its user and watch time.
    rows = [
        sorted(zip(each.users, each.titles, np.where(is_new_x[each.titles], 0, each.seconds), strict=True))
        for each in (viewings, moved)
    ]
    assert rows[0] == rows[1]
    order = [np.lexsort((each.titles, each.users)) for each in (viewings, moved)]
    assert viewings.watch_seconds is not None
    assert moved.watch_seconds is not None
    assert (viewings.watch_seconds[order[0]] == moved.watch_seconds[order[1]]).all()
    same_user = np.diff(moved.users) == 0
    assert (np.diff(moved.users) >= 0).all()
    assert (np.diff(moved.seconds)[same_user] >= 0).all()
