import numpy as np

from artsel_ray.simulate.movielens import read_movielens


def test_the_real_data_is_whole() -> None:
    data = read_movielens(None, None)
    assert (len(data.user_ids), len(data.title_ids), len(data.users)) == (943, 1682, 100_000)
    assert len(data.names) == len(data.years) == len(data.genres) == 1682
    assert data.names[0] == "Toy Story"
    assert data.genres[0] == ["Animation", "Children's", "Comedy"]
    assert data.years[0] == 1995
    assert "Misérables, Les" in data.names


def test_viewings_are_in_order() -> None:
    data = read_movielens(50, 100)
    assert len(data.user_ids) == 50
    assert len(data.title_ids) == 100
    assert (np.diff(data.users) >= 0).all()
    same_user = np.diff(data.users) == 0
    assert (np.diff(data.seconds)[same_user] >= 0).all()
    assert len(set(zip(data.users.tolist(), data.titles.tolist(), strict=True))) == len(data.users)
