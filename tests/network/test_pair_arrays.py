"""Pairs to score look to a network as the examples of the same content do."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from artsel_ray.data.catalog import Catalog
from artsel_ray.network.encoding import encode
from artsel_ray.network.example_arrays import read_example_arrays
from artsel_ray.network.pair_arrays import pair_arrays
from artsel_ray.network.prediction import fingerprints
from artsel_ray.network.vocabulary import make_vocabulary
from artsel_ray.schema import HISTORY
from tests.support.network_examples import example, watched, write_examples

ARTWORKS = {"t": [("a", "one two"), ("b", "three")], "s": [("c", "four"), ("d", "one"), ("e", "two")], "unasked": []}


def catalog() -> Catalog:
    pairs = [pair for each in ARTWORKS.values() for pair in each]
    return Catalog(
        title_ids=pa.array(list(ARTWORKS)),
        names=pa.array([title.upper() for title in ARTWORKS]),
        genres=pa.array([["Drama"]] * 3),
        artwork_ids=pa.array([artwork for artwork, _ in pairs]),
        offsets=np.array([0, 2, 5, 5]),
        contents=pa.array([caption for _, caption in pairs], pa.large_string()),
        other_ids=pa.array([], pa.string()),
    )


def asked(rows: list[tuple[str, int, Any]]) -> pa.Table:
    users, titles, histories = zip(*rows, strict=True)
    ids = pa.array([list(ARTWORKS)[title] for title in titles])
    return pa.table({"user_id": users, "title_id": ids, "history": pa.array(histories, HISTORY), "title": titles})


def test_pairs_are_encoded_as_examples_are(tmp_path: Path) -> None:
    long = [watched("A", ["x", "y"], 3, 120.0), watched("B", None, 2, None), watched("C", ["y"], 0.5, 5.0)]
    rows = [("u", 1, long), ("v", 1, []), ("v", 0, long[:1]), ("w", 0, None)]
    titles = list(ARTWORKS)
    written = [example(user, titles[title], 0, ARTWORKS[titles[title]], history=items) for user, title, items in rows]
    examples = read_example_arrays(write_examples(tmp_path, written))
    vocabulary = make_vocabulary(examples)
    ours, theirs = pair_arrays(asked(rows), catalog(), 3), examples
    encoded, expected = encode(ours, vocabulary), encode(theirs, vocabulary)
    np.testing.assert_array_equal(encoded.history_hf, expected.history_hf)
    assert encoded.candidates_n.tolist() == expected.candidates_n.tolist() == [3, 3, 2, 2]
    assert encoded.id_a[encoded.artwork_c].tolist() == expected.id_a[expected.artwork_c].tolist()
    assert encoded.name_i[encoded.item_h].tolist() == expected.name_i[expected.item_h].tolist()
    assert fingerprints(ours, encoded.history_hf, "m") == fingerprints(theirs, expected.history_hf, "m")
    # Only the newest items count, and only as many as in training.
    short = pair_arrays(asked([(user, title, (items or [])[-1:]) for user, title, items in rows]), catalog(), 3)
    cut = pair_arrays(asked(rows), catalog(), 1)
    assert cut.history_n.tolist() == [1, 0, 1, 0]
    np.testing.assert_array_equal(encode(cut, vocabulary).history_hf, encode(short, vocabulary).history_hf)


def test_no_pairs_are_no_rows(tmp_path: Path) -> None:
    vocabulary = make_vocabulary(read_example_arrays(write_examples(tmp_path, [example("u", "t", 0, ARTWORKS["t"])])))
    nothing = pair_arrays(asked([("u", 1, [])]).slice(0, 0), catalog(), 3)
    assert encode(nothing, vocabulary).candidates_n.tolist() == []
