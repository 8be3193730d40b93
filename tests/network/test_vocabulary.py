import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from artsel_ray.network.encoding import encode
from artsel_ray.network.example_arrays import read_example_arrays
from artsel_ray.network.vocabulary import (
    BUCKETS,
    MIN_USERS,
    count_terms,
    inverse_document_frequency,
    lookup,
    make_vocabulary,
    tf_idf,
)
from tests.support.network_examples import example, watched, write_examples


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


def test_nothing_is_kept_of_fewer_than_the_fewest_users(tmp_path: Path) -> None:
    # "rose" is in a caption of everybody's title, "tulip" in five captions of one user each, "lily" in four of them.
    rows = [
        example(
            f"u{n}",
            "t",
            0,
            [("p", "a rose"), ("q", "secret" if n == 0 else f"tulip {'lily' if n < 4 else ''}")],
            title_name="Everybody's",
            title_genres=["Drama"],
            history=[watched("Rare Thing" if n < 4 else "Common Thing", ["Noir" if n < 4 else "Drama"], 3, 60.0)],
        )
        for n in range(6)
    ] * 3  # examples are not users
    for n, row in enumerate(rows):
        row["candidates"][1]["artwork_id"] = f"q{n % 6}"
    train = read_example_arrays(write_examples(tmp_path, rows))
    vocabulary = make_vocabulary(train)
    assert MIN_USERS == 5
    assert vocabulary.names.to_pylist() == ["Everybody's"]
    assert vocabulary.genres.to_pylist() == ["Drama"]
    kept = {word for word in ("rose", "tulip", "lily", "secret", "rare", "common", "thing", "everybody", "never")
            if vocabulary.idf_w[buckets(word)[0]]}  # fmt: skip
    assert kept == {"rose", "tulip", "thing", "everybody"}
    # What is left out reaches no weight: neither in captions nor in names.
    inputs = encode(train, vocabulary, train=True)
    left_out = {number for word in ("lily", "secret", "rare", "common") for number in buckets(word)}
    assert not left_out & {*inputs.captions_a.indices.tolist(), *inputs.name_terms_i.indices.tolist()}
    assert set(buckets("thing")) <= set(inputs.name_terms_i.indices.tolist())


def test_a_world_of_few_users_keeps_what_all_of_them_have(tmp_path: Path) -> None:
    rows = [example(user, "t", 0, [("p", "a rose"), (user, f"only {user}")]) for user in ("u1", "u2")]
    vocabulary = make_vocabulary(read_example_arrays(write_examples(tmp_path, rows)))
    assert [bool(vocabulary.idf_w[buckets(word)[0]]) for word in ("rose", "only", "u1")] == [True, True, False]


def test_lookup_counts_from_one_and_gives_zero_to_unknown() -> None:
    assert lookup(pa.array(["b", "x", "a"]), pa.array(["a", "b"])).tolist() == [2, 0, 1]


def buckets(text: str) -> list[int]:
    return sorted(count_terms(pa.array([text])).indices.tolist())


def test_terms_are_words_and_adjacent_pairs_in_lower_case() -> None:
    counts = count_terms(pa.array(["Red, red ROSE"]))
    red, rose = buckets("red"), buckets("rose")
    pairs = sorted(set(buckets("red red") + buckets("red rose")) - set(red + rose))
    assert dict(zip(counts.indices.tolist(), counts.data.tolist(), strict=True)) == {
        red[0]: 2,
        rose[0]: 1,
        pairs[0]: 1,
        pairs[1]: 1,
    }
    assert buckets("") == buckets("!?") == []
    assert len(buckets("雨の中の男 кошка")) == 3
    assert len(buckets("a b")) == 3  # words of one letter count too


def test_inverse_document_frequency_by_hand() -> None:
    idf_w = inverse_document_frequency(pa.array(["red red", "red", "rose"]))
    assert idf_w[buckets("red")[0]] == pytest.approx(math.log(4 / 3) + 1)
    assert idf_w[buckets("rose")[0]] == pytest.approx(math.log(4 / 2) + 1)
    assert idf_w[buckets("absent")[0]] == pytest.approx(math.log(4) + 1)
    assert idf_w.dtype == np.float32


def test_tf_idf_by_hand_has_length_one() -> None:
    idf_w = np.full(BUCKETS, 3, np.float32)
    (red,) = buckets("red")
    idf_w[red] = 6
    rows = tf_idf(pa.array(["red red", "", "rose"]), idf_w)
    weight, length = 6 * (1 + math.log(2)), math.hypot(6 * (1 + math.log(2)), 3)
    assert rows.indptr.tolist() == [0, 2, 2, 3]
    assert rows.data.dtype == np.float32
    assert rows[0, red] == pytest.approx(weight / length)
    assert sorted(rows[0].data.tolist()) == pytest.approx([3 / length, weight / length])
    assert rows[2].data.tolist() == pytest.approx([1])
