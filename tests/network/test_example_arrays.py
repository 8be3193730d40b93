from pathlib import Path

import numpy as np
import pytest

from artsel_ray import schema, storage
from artsel_ray.errors import InputError
from artsel_ray.network.example_arrays import read_example_arrays
from tests.support.network_examples import Candidates, example, watched, write_examples


def test_artworks_and_items_are_held_once(tmp_path: Path) -> None:
    history = [watched("A", ["x", "y"], 2, 60.0), watched("B", None, 0.5, None)]
    shared: Candidates = [("p", "one"), ("q", None)]
    rows = read_example_arrays(
        write_examples(
            tmp_path,
            [
                example("u1", "t", 1, shared, history=history),
                example("u2", "t", 0, [*shared, ("r", "one")], title_genres=[]),
            ],
        )
    )
    ids, captions = rows.artwork_ids.to_pylist(), rows.captions.to_pylist()
    assert [(ids[a], captions[a]) for a in rows.artwork_c] == [
        *[("p", "one"), ("q", "")],
        *[("p", "one"), ("q", ""), ("r", "one")],
    ]
    assert len(ids) == 3
    assert rows.candidates_n.tolist() == [2, 3]
    assert rows.label_n.tolist() == [1, 0]
    assert rows.engaged_c.tolist() == [False, True, True, False, False]
    assert rows.history_n.tolist() == [2, 0]
    assert [rows.names[int(i)].as_py() for i in rows.item_h] == ["A", "B"]
    assert [rows.genres[int(i)].as_py() for i in rows.item_h] == ["x\x1fy", ""]
    assert [rows.names[int(i)].as_py() for i in rows.title_n] == ["T", "T"]
    assert [rows.genres[int(i)].as_py() for i in rows.title_n] == ["Drama", ""]
    assert rows.age_days_h.tolist() == [1.5, 0]
    np.testing.assert_array_equal(rows.watch_seconds_h, [60, np.nan])


def test_invalid_rows_are_left_out_and_counted(tmp_path: Path) -> None:
    bad = [
        example("u", "t", 2, [("a", ""), ("b", "")]),
        example("u", "t", -1, [("a", "")]),
        example("u", "t", 0, []),
        {**example("u", "t", 0, []), "candidates": None},
        example("u", "t", 0, [("a", ""), (None, "")]),
        {**example("u", "t", 0, [("a", "")]), "user_id": None},
        example("u", "t", 0, [("a", "")], timestamp=None),
    ]
    rows = read_example_arrays(
        write_examples(tmp_path / "some", [*bad, example("good", "t", 0, [("a", "")], history=None), *bad])
    )
    assert rows.user_ids.to_pylist() == ["good"]
    assert sorted(rows.invalid["row"].to_pylist()) == [row for row in range(2 * len(bad) + 1) if row != len(bad)]
    with pytest.raises(InputError, match=r"no example to use \(7 invalid rows\)"):
        read_example_arrays(write_examples(tmp_path / "none", bad))
    with pytest.raises(InputError, match="no example to use"):
        read_example_arrays(write_examples(tmp_path / "empty", []))


def test_wrong_table_and_missing_files_are_named(tmp_path: Path) -> None:
    storage.write_table(str(tmp_path / "titles" / "part-0.parquet"), schema.TITLES.empty_table(), "titles")
    with pytest.raises(InputError, match="is not a table of examples"):
        read_example_arrays(str(tmp_path / "titles"))
    with pytest.raises(InputError, match=r"no \.parquet file there"):
        read_example_arrays(str(tmp_path / "absent"))


def test_propensities_outside_their_range_are_not_known(tmp_path: Path) -> None:
    rows = [example(f"u{n}", "t", 0, [("a", "x")], propensity=p) for n, p in enumerate((0.5, None, 0.0, 1.5, 1.0))]
    found = read_example_arrays(write_examples(tmp_path, rows))
    np.testing.assert_array_equal(found.propensity_n, [0.5, np.nan, np.nan, np.nan, 1.0])
    assert found.without_propensity == {str(tmp_path / "part-0.parquet"): 3}
