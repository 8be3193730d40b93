"""Folds by title, and subsets of examples that look as if only they had been read."""

from pathlib import Path

import numpy as np
import pytest

from artsel_ray.baseline.folds import fold_n, subset
from artsel_ray.errors import InputError
from artsel_ray.network.encoding import encode
from artsel_ray.network.example_arrays import ExampleArrays, read_example_arrays
from artsel_ray.network.prediction import fingerprints
from artsel_ray.network.vocabulary import make_vocabulary
from tests.support.network_examples import genre_fans, write_examples


def test_fold_follows_the_title_alone(world: dict[str, ExampleArrays]) -> None:
    rows = world["train"]
    found = fold_n(rows, 3, 1, "E/train")
    assert set(found.tolist()) == {0, 1, 2}
    titles = rows.title_ids.to_pylist()
    assert len({(title, fold) for title, fold in zip(titles, found.tolist(), strict=True)}) == len(set(titles)) == 8
    backwards = subset(rows, np.arange(len(titles))[::2])
    assert fold_n(backwards, 3, 1, "E/train").tolist() == found[::2].tolist()
    with pytest.raises(InputError, match="E/train has 8 titles, too few for --folds 50; lower it, or leave it out"):
        fold_n(rows, 50, 1, "E/train")


def test_subset_is_what_reading_only_its_examples_gives(tmp_path: Path) -> None:
    written = genre_fans(40, 3)
    picked = np.array([1, 2, 5, 7, 30])
    ours = subset(read_example_arrays(write_examples(tmp_path / "all", written)), picked)
    theirs = read_example_arrays(write_examples(tmp_path / "some", [written[n] for n in picked]))
    vocabulary = make_vocabulary(theirs)
    assert sorted(ours.artwork_ids.to_pylist()) == sorted(theirs.artwork_ids.to_pylist())
    assert sorted(ours.names.to_pylist()) == sorted(theirs.names.to_pylist())
    assert ours.label_n.tolist() == theirs.label_n.tolist()
    our_features, their_features = (encode(rows, vocabulary).history_hf for rows in (ours, theirs))
    np.testing.assert_array_equal(our_features, their_features)
    assert fingerprints(ours, our_features, "m") == fingerprints(theirs, their_features, "m")
