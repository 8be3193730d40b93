"""The baseline's network: what it is fed and what it computes by hand, and that it learns what can be learned."""

import dataclasses
import datetime
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from artsel_ray import schema, storage
from artsel_ray.baseline.encoding import (
    BUCKETS,
    NetworkInputs,
    Vocabulary,
    count_terms,
    encode,
    make_batch,
    make_vocabulary,
    terms,
    weigh,
)
from artsel_ray.baseline.example_arrays import ExampleArrays, read_example_arrays
from artsel_ray.baseline.job import baseline, check, predictions, read_model, write_model
from artsel_ray.baseline.settings import BaselineConfig
from artsel_ray.baseline.towers import Sizes, Towers
from artsel_ray.baseline.trials import Recipe, Trial, batches, measure, run_trials
from artsel_ray.errors import InputError
from artsel_ray.evaluate.job import evaluate
from artsel_ray.evaluate.settings import EvaluateConfig

NOW = datetime.datetime(2026, 3, 1, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)
Candidates = Sequence[tuple[str | None, str | None]]
TASTES = {0: ("Comedy", "a funny clown laughs"), 1: ("Thriller", "a dark knife at night")}


def watched(name: str, genres: list[str] | None, days_ago: float, seconds: float | None) -> dict[str, Any]:
    return {"timestamp": NOW - days_ago * DAY, "title_name": name, "genres": genres, "watch_seconds": seconds}


def example(user: str, title: str, label: int, candidates: Candidates, **changes: Any) -> dict[str, Any]:
    row = {
        "example_id": f"{user}-{title}",
        "user_id": user,
        "title_id": title,
        "title_name": title.upper(),
        "title_genres": ["Drama"],
        "history": [],
        "candidates": [{"artwork_id": artwork, "caption": caption} for artwork, caption in candidates],
        "label": label,
        "propensity": 1 / max(len(candidates), 1),
        "timestamp": NOW,
    }
    return {**row, **changes}


def write(folder: Path, rows: list[dict[str, Any]]) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    nullable = pa.schema([field.with_nullable(True) for field in schema.EXAMPLES])
    pq.write_table(pa.Table.from_pylist(rows, nullable), folder / "part-0.parquet")
    return str(folder)


def tasteful(count: int, seed: int, titles: str = "t") -> list[dict[str, Any]]:
    """Examples of users who engage with the artwork of the genre that they watch; the third one nobody likes."""
    rng = np.random.default_rng(seed)
    rows = []
    for n in range(count):
        taste, title = int(rng.integers(2)), f"{titles}{rng.integers(8)}"
        genre = TASTES[taste][0]
        history = [watched(f"{genre} {rng.integers(5)}", [genre], 9 - past, 600.0) for past in range(3)]
        candidates = [(f"{title}-{place}", TASTES[place][1]) for place in TASTES] + [(f"{title}-2", "plain letters")]
        rows.append(example(f"{titles}-u{seed}-{n}", title, taste, candidates, history=history))
    return rows


RECIPE = Recipe(Sizes(0, 0, 0, 16, 0.5), (0.03,), (0.01,), epochs=6, batch_size=32, seed=0)


def sized(vocabulary: Vocabulary, recipe: Recipe = RECIPE) -> Recipe:
    sizes = dataclasses.replace(
        recipe.sizes,
        artworks=len(vocabulary.artwork_ids),
        names=len(vocabulary.names),
        genres=len(vocabulary.genres),
    )
    return dataclasses.replace(recipe, sizes=sizes)


def silent(line: str) -> None:
    pass


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ExampleArrays]:
    folder = tmp_path_factory.mktemp("world")
    parts = {"train": tasteful(400, 0), "validation": tasteful(100, 1), "unseen": tasteful(100, 2, titles="new")}
    return {name: read_example_arrays(write(folder / name, rows)) for name, rows in parts.items()}


@pytest.fixture(scope="module")
def encoded(world: dict[str, ExampleArrays]) -> tuple[Vocabulary, dict[str, NetworkInputs]]:
    vocabulary = make_vocabulary(world["train"])
    return vocabulary, {name: encode(rows, vocabulary, train=name == "train") for name, rows in world.items()}


def test_examples_become_arrays(tmp_path: Path) -> None:
    history = [watched("A", ["x", "y"], 2, 60.0), watched("B", None, 0.5, None)]
    shared: Candidates = [("p", "one"), ("q", None)]
    rows = read_example_arrays(
        write(
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
    assert rows.size_n.tolist() == [2, 3]
    assert rows.label_n.tolist() == [1, 0]
    assert rows.engaged_c.tolist() == [False, True, True, False, False]
    assert rows.length_n.tolist() == [2, 0]
    assert [rows.names[int(i)].as_py() for i in rows.item_h] == ["A", "B"]
    assert [rows.genres[int(i)].as_py() for i in rows.item_h] == ["x\x1fy", ""]
    assert [rows.names[int(i)].as_py() for i in rows.title_n] == ["T", "T"]
    assert rows.age_days_h.tolist() == [2, 0.5]
    np.testing.assert_array_equal(rows.watch_seconds_h, [60, np.nan])


def test_rows_that_cannot_be_used_are_left_out_and_counted(tmp_path: Path) -> None:
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
        write(tmp_path / "some", [*bad, example("good", "t", 0, [("a", "")], history=None), *bad])
    )
    assert rows.user_ids.to_pylist() == ["good"]
    assert sorted(rows.invalid["row"].to_pylist()) == [row for row in range(2 * len(bad) + 1) if row != len(bad)]
    with pytest.raises(InputError, match=r"no example to use \(7 rows rejected\)"):
        read_example_arrays(write(tmp_path / "none", bad))
    with pytest.raises(InputError, match="no example to use"):
        read_example_arrays(write(tmp_path / "empty", []))


def test_another_table_or_nothing_is_named(tmp_path: Path) -> None:
    storage.write_table(str(tmp_path / "titles" / "part-0.parquet"), schema.TITLES.empty_table(), "titles")
    with pytest.raises(InputError, match="is not a table of examples"):
        read_example_arrays(str(tmp_path / "titles"))
    with pytest.raises(InputError, match=r"no \.parquet file there"):
        read_example_arrays(str(tmp_path / "absent"))


def test_terms_are_words_and_neighbours() -> None:
    assert terms("Red, red ROSE") == [terms(gram)[0] for gram in ("red", "red", "rose")] + [
        terms("red red")[-1],
        terms("red rose")[-1],
    ]
    assert terms("") == terms("!?") == []
    assert len(terms("雨の中の男 кошка")) == 3


def test_bags_are_weighted_and_of_length_one() -> None:
    bags = count_terms(pa.array(["red red", None, "rose"]))
    assert bags.offsets.tolist() == [0, 2, 2, 3]
    np.testing.assert_allclose(bags.weights, [1 + math.log(2), 1, 1], rtol=1e-6)
    weighed = weigh(bags, np.full(BUCKETS, 3, np.float32))
    length = math.hypot(1 + math.log(2), 1)
    np.testing.assert_allclose(weighed.weights, [(1 + math.log(2)) / length, 1 / length, 1], rtol=1e-6)
    assert bags.take(np.array([2, 0])).numbers.tolist() == [bags.numbers[2], *bags.numbers[:2]]


def test_popularity_and_vocabulary_come_from_train_alone(tmp_path: Path) -> None:
    train = read_example_arrays(
        write(tmp_path / "train", [example(f"u{n}", "t", label, [("p", "x"), ("q", "y")]) for n, label in
                                   enumerate([0, 0, 1])])
    )  # fmt: skip
    held_out = read_example_arrays(
        write(tmp_path / "test", [example("v", "t", 0, [("new", "x"), ("q", "y"), ("p", "x")])] * 5)
    )
    vocabulary = make_vocabulary(train)
    assert dict(zip(vocabulary.artwork_ids.to_pylist(), vocabulary.engagements_v.tolist(), strict=True)) == {
        "p": 2,
        "q": 1,
    }
    data = encode(held_out, vocabulary)
    assert data.artwork_a[data.artwork_c[:3]].tolist() == [0, 2, 1]
    assert data.engagements_a[data.artwork_c[:3]].tolist() == [0, 1, 2]
    assert not data.engaged_c.any()


def test_without_towers_the_choice_is_popularity_less_ones_own_engagement(
    encoded: tuple[Vocabulary, dict[str, NetworkInputs]],
) -> None:
    vocabulary, data = encoded
    network = Towers(sized(vocabulary).sizes)
    with torch.no_grad():
        for name, weights in network.named_parameters():
            weights.copy_(torch.tensor([1.0, math.log(0.5)]) if name == "popularity" else torch.zeros_like(weights))
    for split in ("train", "unseen"):
        one = make_batch(data[split], np.array([3]))
        count_c = one["engagements_a"][one["local_c"]].double().numpy()
        if split == "train":
            assert count_c.sum() > 20
            count_c[one["label_b"].item()] -= 1
        else:
            assert count_c.sum() == 0
        expected = (count_c + 0.5) / (count_c + 0.5).sum()
        np.testing.assert_allclose(network(one).detach().exp()[0], expected, rtol=1e-4)


def test_a_candidates_probability_depends_neither_on_the_batch_nor_on_the_order(tmp_path: Path) -> None:
    several: Candidates = [("a", "red rose"), ("b", "a knife"), ("c", None)]
    history = [watched("Knives", ["Thriller"], 3, 100.0)]
    rows = [
        example("u1", "t", 0, several, history=history),
        example("u2", "s", 0, [("z", "one")]),
        example("u3", "t", 2, several[::-1], history=history),
    ]
    split = read_example_arrays(write(tmp_path, rows))
    vocabulary = make_vocabulary(split)
    data = encode(split, vocabulary)
    torch.manual_seed(0)
    network = Towers(sized(vocabulary).sizes).eval()
    together = network(make_batch(data, np.arange(3))).detach().exp()
    assert together.shape == (3, 3)
    np.testing.assert_allclose(together.sum(dim=1), 1, rtol=1e-5)
    assert together[1].tolist() == [1, 0, 0]
    np.testing.assert_allclose(together[0], together[2].flip(0), rtol=1e-5)
    np.testing.assert_allclose(network(make_batch(data, np.array([0]))).detach().exp()[0], together[0], rtol=1e-5)
    assert len(set(together[0].tolist())) == 3


def test_every_example_is_in_one_batch() -> None:
    for examples, size in ((10, 3), (9, 3), (2, 3), (1, 1)):
        cut = batches(examples, size, [0, 1])
        assert sorted(np.concatenate(cut).tolist()) == list(range(examples))
        assert all(size <= len(part) < 2 * size for part in cut) or len(cut) == 1
    assert not np.array_equal(batches(50, 50, [0, 1])[0], batches(50, 50, [0, 2])[0])


def test_it_learns_tastes_and_understands_captions_of_unknown_artworks(
    encoded: tuple[Vocabulary, dict[str, NetworkInputs]],
) -> None:
    vocabulary, data = encoded
    recipe = sized(vocabulary)
    weights, best, trials = run_trials(data["train"], data["validation"], recipe, silent)
    assert trials == [best]
    assert best.accuracy > 0.95  # chance is a third, popularity a half
    network = Towers(recipe.sizes)
    network.load_state_dict(weights)
    unseen = measure(network, data["unseen"])
    assert unseen["accuracy"] > 0.9
    assert unseen["ips"] == pytest.approx(3 * unseen["accuracy"])
    again, *_ = run_trials(data["train"], data["validation"], recipe, silent)
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    other, *_ = run_trials(data["train"], data["validation"], dataclasses.replace(recipe, seed=1), silent)
    assert not torch.equal(weights["artwork.weight"], other["artwork.weight"])


def test_the_best_trial_is_kept_and_one_that_is_no_number_is_survived(
    encoded: tuple[Vocabulary, dict[str, NetworkInputs]],
) -> None:
    vocabulary, data = encoded
    recipe = dataclasses.replace(sized(vocabulary), learning_rates=(1e30, 1e-9, 0.03), epochs=3)
    lines: list[str] = []
    weights, best, trials = run_trials(data["train"], data["validation"], recipe, lines.append)
    assert trials[0] == Trial(1e30, 0.01)
    assert [trial.learning_rate for trial in trials] == [1e30, 1e-9, 0.03]
    assert best == trials[2]
    assert best.ips > trials[1].ips
    network = Towers(recipe.sizes)
    network.load_state_dict(weights)
    assert measure(network, data["validation"])["loss"] == pytest.approx(best.loss)
    assert any("learning rate 0.03, weight decay 0.01, epoch 1" in line for line in lines)


def test_training_stops_when_the_validation_loss_rises(encoded: tuple[Vocabulary, dict[str, NetworkInputs]]) -> None:
    vocabulary, data = encoded
    flipped = dataclasses.replace(data["validation"], label_n=1 - data["validation"].label_n)
    recipe = dataclasses.replace(sized(vocabulary), epochs=50)
    lines: list[str] = []
    _, best, _ = run_trials(data["train"], flipped, recipe, lines.append)
    assert len(lines) == best.epoch + 1 < 50


def test_a_model_read_back_predicts_the_same(
    tmp_path: Path, world: dict[str, ExampleArrays], encoded: tuple[Vocabulary, dict[str, NetworkInputs]]
) -> None:
    vocabulary, data = encoded
    recipe = sized(vocabulary)
    torch.manual_seed(3)
    network = Towers(recipe.sizes)
    model_id = write_model(str(tmp_path), recipe.sizes, network.state_dict(), vocabulary)
    read, known = read_model(str(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors", "vocabulary.json"}
    assert known.artwork_ids.equals(vocabulary.artwork_ids)
    again = encode(world["unseen"], known)
    table = predictions(network, data["unseen"], world["unseen"], model_id)
    assert table.drop_columns("scored_at").equals(
        predictions(read, again, world["unseen"], model_id).drop_columns("scored_at")
    )
    schema.conform(table.schema, "predictions", "here")
    for row in table.to_pylist():
        top = max(row["candidates"], key=lambda candidate: candidate["probability"])
        assert top == {"artwork_id": row["artwork_id"], "probability": row["probability"]}
        assert sum(candidate["probability"] for candidate in row["candidates"]) == pytest.approx(1)
        assert [candidate["artwork_id"] for candidate in row["candidates"]] == [
            f"{row['title_id']}-{place}" for place in range(3)
        ]
    answers = {row["fingerprint"]: row["candidates"] for row in table.to_pylist()}
    assert len(answers) > 90  # a few of the drawn examples are the same
    assert all(answers[row["fingerprint"]] == row["candidates"] for row in table.to_pylist())
    torch.nn.init.ones_(network.skip.weight)
    assert write_model(str(tmp_path), recipe.sizes, network.state_dict(), vocabulary) != model_id


def test_a_pair_is_predicted_once(tmp_path: Path) -> None:
    rows = [example("u", title, 0, [("a", "x"), ("b", "y")]) for title in ("t", "s", "t")]
    split = read_example_arrays(write(tmp_path, rows))
    vocabulary = make_vocabulary(split)
    table = predictions(Towers(sized(vocabulary).sizes), encode(split, vocabulary), split, "m")
    assert table["title_id"].to_pylist() == ["t", "s"]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"epochs": 0}, "--epochs is 0"),
        ({"batch_size": 0}, "--batch-size is 0"),
        ({"width": -1}, "--width is -1"),
        ({"workers": 0}, "--workers is 0"),
        ({"batch_size": 2, "workers": 3}, "--batch-size 2 is less than --workers 3"),
        ({"id_dropout": 1.5}, "--id-dropout is 1.5"),
        ({"learning_rates": ()}, "--learning-rates is ''"),
        ({"learning_rates": (1e-3, 0.0)}, "--learning-rates is '0.001 0'"),
        ({"learning_rates": (float("nan"),)}, "--learning-rates is 'nan'"),
        ({"weight_decays": (-1.0,)}, "--weight-decays is '-1'"),
    ],
)
def test_wrong_flags_are_named(changes: dict[str, Any], named: str) -> None:
    check(BaselineConfig("D", "B"))
    with pytest.raises(InputError, match=named):
        check(dataclasses.replace(BaselineConfig("D", "B"), **changes))


@pytest.mark.slow
def test_two_workers_train_as_one_process_would_and_beat_popularity(
    ray_cluster: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    splits = {"train": tasteful(600, 0), "validation": tasteful(100, 1), "test": tasteful(200, 2)}
    rows = {name: read_example_arrays(write(tmp_path / "examples" / name, part)) for name, part in splits.items()}
    config = BaselineConfig(
        str(tmp_path / "examples"), str(tmp_path / "B"), learning_rates=(0.03,), weight_decays=(0.01,), epochs=4,
        batch_size=50, width=16, id_dropout=0.0, workers=2,
    )  # fmt: skip
    baseline(config)
    assert "epoch 1: validation loss" in capsys.readouterr().out
    manifest = storage.read_manifest(config.output)
    assert manifest is not None
    assert manifest["predictions"] == {"validation": 100, "test": 200}
    assert not (tmp_path / "B" / "_work").exists()

    # No ids are hidden at random: two workers compute what one process does, but for the order of sums.
    vocabulary = make_vocabulary(rows["train"])
    data = {name: encode(part, vocabulary, train=name == "train") for name, part in rows.items()}
    same = dataclasses.replace(RECIPE, sizes=dataclasses.replace(RECIPE.sizes, id_dropout=0.0), epochs=4, batch_size=50)
    recipe = sized(vocabulary, same)
    weights, *_ = run_trials(data["train"], data["validation"], recipe, silent)
    network = Towers(recipe.sizes)
    network.load_state_dict(weights)
    expected = predictions(network, data["test"], rows["test"], "m")["probability"]
    found = storage.read_table(f"{config.output}/predictions/test", "predictions")["probability"]
    np.testing.assert_allclose(found, expected, atol=1e-3)

    baseline(config)
    assert "is complete already" in capsys.readouterr().out
    with pytest.raises(InputError, match="holds another run, which differs in: seed"):
        baseline(dataclasses.replace(config, seed=5))
    predicted = f"{config.output}/predictions/test"
    evaluate(EvaluateConfig(f"{config.examples}/test", predicted, str(tmp_path / "E"), baseline=predicted))
    metrics = json.loads((tmp_path / "E" / "metrics.json").read_text())
    assert metrics["missing"] == metrics["unknown_artwork"] == 0
    assert metrics["accuracy"]["low"] > 0.9 > metrics["references"]["popularity"]["accuracy"]["high"]
    assert metrics["references"]["baseline"]["accuracy"] == metrics["accuracy"]
