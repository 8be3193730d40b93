import math
from pathlib import Path

import numpy as np

from artsel_ray.baseline.encoding import encode, ranges
from artsel_ray.baseline.example_arrays import read_example_arrays
from artsel_ray.baseline.vocabulary import make_vocabulary
from tests.support.baseline_examples import example, watched, write_examples


def test_history_features_and_genre_shares_by_hand(tmp_path: Path) -> None:
    history = [watched("A", ["x", "y"], 3, 120.0), watched("B", ["y"], 1, None)]
    rows = read_example_arrays(write_examples(tmp_path, [example("u", "t", 0, [("a", "one")], history=history)]))
    inputs = encode(rows, make_vocabulary(rows))
    expected = [[math.log(4), math.log(3), 0, math.log(2)], [math.log(2), 0, 1, 0]]
    np.testing.assert_allclose(inputs.history_hf, expected, rtol=1e-6)
    # The genres are Drama (the title's), x and y; column 0 stands for unknown ones.
    genres = inputs.genres_i.toarray()[[*inputs.item_h, *inputs.title_n]]
    assert genres.tolist() == [[0, 0, 0.5, 0.5], [0, 0, 0, 1], [0, 1, 0, 0]]


def test_ranges_follow_one_another() -> None:
    assert ranges(np.array([5, 9, 0]), np.array([2, 0, 3])).tolist() == [5, 6, 0, 1, 2]
    assert ranges(np.zeros(0, np.int64), np.zeros(0, np.int64)).tolist() == []
