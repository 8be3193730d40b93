import numpy as np
import pytest

from artsel_ray.simulate import synthetic
from artsel_ray.simulate.synthetic import synthetic_histories
from artsel_ray.simulate.themes import THEMES


def test_viewings_are_by_user_and_time_without_repeated_titles() -> None:
    histories = synthetic_histories(50, 40, 6, 8.0, 0.3, seed=0)
    (viewings,) = histories.groups
    assert (np.diff(viewings.users) >= 0).all()
    same_user = np.diff(viewings.users) == 0
    assert (np.diff(viewings.seconds)[same_user] >= 0).all()
    assert len(set(zip(viewings.users.tolist(), viewings.titles.tolist(), strict=True))) == len(viewings)
    assert set(viewings.users.tolist()) == set(range(50))
    np.testing.assert_allclose(viewings.taste_ut.sum(axis=1), 1)
    np.testing.assert_allclose(histories.themes_xt.sum(axis=1), 1)


def test_users_watch_titles_of_their_taste() -> None:
    histories = synthetic_histories(400, 100, 6, 10.0, 0.3, seed=0)
    (viewings,) = histories.groups
    watched = (viewings.taste_ut[viewings.users] * histories.themes_xt[viewings.titles]).sum(axis=1).mean()
    by_chance = (viewings.taste_ut.mean(axis=0) * histories.themes_xt.mean(axis=0)).sum()
    assert watched > 1.2 * by_chance


def test_shared_words_name_titles_after_objects() -> None:
    objects = {item.removeprefix("a ").removeprefix("the ").title() for theme in THEMES for item in theme.objects}
    for shared, expected in ((0.0, 0), (1.0, 30)):
        names = synthetic_histories(1, 30, 12, 5.0, shared, seed=0).titles.names
        assert sum(name.removeprefix("The ").rpartition(" ")[0] in objects for name in names) == expected


def test_users_come_in_groups_of_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "GROUP_USERS", 25)
    groups = list(synthetic_histories(60, 20, 6, 8.0, 0.3, seed=0).groups)
    assert [len(group.user_ids) for group in groups] == [25, 25, 10]
    assert len({user for group in groups for user in group.user_ids}) == 60
    # Scores for 20 titles: at most 100 / 20 users.
    monkeypatch.setattr(synthetic, "_GROUP_SCORES", 100)
    assert len(next(synthetic_histories(60, 20, 6, 8.0, 0.3, seed=0).groups).user_ids) == 5
