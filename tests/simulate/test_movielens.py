import numpy as np

from artsel_ray.simulate.movielens import movielens_histories


def test_all_ratings_titles_and_users_are_read() -> None:
    histories = movielens_histories(None, None, 10)
    titles, (viewings,) = histories.titles, histories.groups
    assert (len(viewings.user_ids), len(titles.title_ids), len(viewings)) == (943, 1682, 100_000)
    assert len(titles.names) == len(titles.years) == len(titles.genres) == 1682
    assert titles.names[0] == "Toy Story"
    assert titles.genres[0] == ["Animation", "Children's", "Comedy"]
    assert titles.years[0] == 1995
    assert "Misérables, Les" in titles.names
    assert viewings.watch_seconds is None


def test_viewings_are_by_user_and_time() -> None:
    histories = movielens_histories(50, 100, 10)
    (viewings,) = histories.groups
    assert len(viewings.user_ids) == 50
    assert len(histories.titles.title_ids) == 100
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
