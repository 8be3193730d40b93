import numpy as np

from artsel_ray.simulate.histories import Viewings


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
