from pathlib import Path

import pyarrow as pa

from artsel_ray.baseline.encoding import encode
from artsel_ray.baseline.example_arrays import read_example_arrays
from artsel_ray.baseline.vocabulary import lookup, make_vocabulary
from tests.support.baseline_examples import example, write_examples


def test_popularity_and_vocabulary_come_from_train_alone(tmp_path: Path) -> None:
    labels = [0, 0, 1]
    train = [example(f"u{n}", "t", label, [("p", "x"), ("q", "y")]) for n, label in enumerate(labels)]
    held_out = [example("v", "t", 0, [("new", "x"), ("q", "y"), ("p", "x")])] * 5
    vocabulary = make_vocabulary(read_example_arrays(write_examples(tmp_path / "train", train)))
    assert dict(zip(vocabulary.artwork_ids.to_pylist(), vocabulary.engagements_v.tolist(), strict=True)) == {
        "p": 2,
        "q": 1,
    }
    inputs = encode(read_example_arrays(write_examples(tmp_path / "test", held_out)), vocabulary)
    assert inputs.id_a[inputs.artwork_c[:3]].tolist() == [0, 2, 1]
    assert inputs.engagements_a[inputs.artwork_c[:3]].tolist() == [0, 1, 2]
    assert not inputs.engaged_c.any()


def test_lookup_counts_from_one_and_gives_zero_to_unknown() -> None:
    assert lookup(pa.array(["b", "x", "a"]), pa.array(["a", "b"])).tolist() == [2, 0, 1]
