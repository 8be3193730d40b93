"""A network scores requests with the job's own skeleton: same answers as in its training, reuse, and clear refusals."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from artsel_ray import storage
from artsel_ray.baseline.job import make_predictions
from artsel_ray.data.checked_reader import read_table
from artsel_ray.errors import InputError
from artsel_ray.network.encoding import encode
from artsel_ray.network.example_arrays import read_example_arrays
from artsel_ray.network.network_files import write_model
from artsel_ray.network.towers import Towers
from artsel_ray.network.vocabulary import make_vocabulary
from artsel_ray.schema import ARTWORKS, REQUESTS, TITLES
from artsel_ray.score.job import score
from artsel_ray.score.network import network_spec
from artsel_ray.score.settings import ScoreConfig
from tests.support.network_examples import genre_fans, sized, write_examples
from tests.support.scoring_world import score_config


def write_world(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Writes requests, titles and artworks that ask what the examples do."""
    titles = {row["title_id"]: row for row in rows}
    tables = {
        "requests": (
            [{"user_id": row["user_id"], "history": row["history"], "title_ids": [row["title_id"]]} for row in rows],
            REQUESTS,
        ),
        "titles": (
            [
                {"title_id": key, "name": row["title_name"], "genres": row["title_genres"]}
                for key, row in titles.items()
            ],
            TITLES,
        ),
        "artworks": (
            [{**artwork, "title_id": key} for key, row in titles.items() for artwork in row["candidates"]],
            ARTWORKS,
        ),
    }
    for name, (content, schema) in tables.items():
        storage.write_table(f"{folder}/{name}/a.parquet", pa.Table.from_pylist(content, schema), name)


def network_config(world: Path, **flags: Any) -> ScoreConfig:
    return score_config(world, **{"model": str(world / "network"), "engine": "vllm", **flags})


@pytest.fixture
def network(tmp_path: Path) -> pa.Table:
    """Writes network/ and a world; returns what the network says of the examples that the world's requests are of."""
    train = read_example_arrays(write_examples(tmp_path / "train", genre_fans(100, 0)))
    vocabulary = make_vocabulary(train)
    torch.manual_seed(3)
    sizes = sized(vocabulary).sizes
    trained = Towers(sizes)
    model_id = write_model(f"{tmp_path}/network/model", sizes, trained.state_dict(), vocabulary, 3)
    rows = genre_fans(60, 1)
    write_world(tmp_path, rows)
    asked = read_example_arrays(write_examples(tmp_path / "asked", rows))
    return make_predictions(trained, encode(asked, vocabulary), asked, model_id)


@pytest.mark.usefixtures("ray_cluster")
def test_network_scores_as_in_its_training_and_a_second_run_reuses_all(network: pa.Table, tmp_path: Path) -> None:
    config = network_config(tmp_path, decoding="rank")
    score(config)
    found, keys = read_table(str(tmp_path / "P"), "predictions"), [("user_id", "ascending"), ("title_id", "ascending")]
    ours, theirs = (table.sort_by(keys).to_pylist() for table in (found, network))
    assert len(ours) == 60
    for one, other in zip(ours, theirs, strict=True):
        assert (one["artwork_id"], one["model_id"]) == (other["artwork_id"], other["model_id"])
        expected = {each["artwork_id"]: pytest.approx(each["probability"], rel=1e-5) for each in other["candidates"]}
        assert {each["artwork_id"]: each["probability"] for each in one["candidates"]} == expected
    summary = storage.read_json(f"{tmp_path}/P/summary.json")
    assert (summary["pairs"], summary["rejected"], "layout" in summary) == (60, 0, False)

    again = network_config(
        tmp_path, model=str(tmp_path / "network/model"), decoding="rank", output=str(tmp_path / "P2"),
        previous=str(tmp_path / "P"), explore="epsilon", epsilon=0.5,
    )  # fmt: skip
    score(again)
    assert storage.read_json(f"{tmp_path}/P2/summary.json")["reused"] == 60
    drawn = read_table(str(tmp_path / "P2"), "predictions")
    assert set(np.round(drawn["propensity"].to_numpy(), 6)) == {round(0.5 / 3 + 0.5, 6), round(0.5 / 3, 6)}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"layout": "user_first"}, "--layout is for prompts, and {} is a network, which has none; leave it out"),
        ({"history_length": 4}, "--history-length is for prompts"),
        ({"engine": "fake"}, "--engine fake stands for a language model, and {} is a network; leave it out"),
        ({"vectors": "V"}, "--vectors is for networks that were trained with --encoder"),
        ({"estimate_cost": True}, "--estimate-cost counts tokens, and {} is a network, which takes none; leave it out"),
        ({"decoding": "freetext"}, "--decoding freetext is for language models, and {} is a network; take rank"),
    ],
)
@pytest.mark.usefixtures("network")
def test_flags_of_language_models_are_refused(flags: dict[str, Any], message: str, tmp_path: Path) -> None:
    config = network_config(tmp_path, **flags)
    with pytest.raises(InputError, match=re.escape(message.format(tmp_path / "network/model"))):
        score(config)


@pytest.mark.usefixtures("network")
def test_network_of_an_earlier_version_is_refused(tmp_path: Path) -> None:
    uri = str(tmp_path / "network/model")
    config = storage.read_json(f"{uri}/config.json")
    del config["history_length"]
    storage.write_json(f"{uri}/config.json", config)
    with pytest.raises(InputError, match=r"was trained by an earlier version, .*; train it again"):
        network_spec(uri, "rank")
    config |= {"history_length": 3, "encoder": "s3://elsewhere/model", "encoder_id": "x@1"}
    storage.write_json(f"{uri}/config.json", config)
    with pytest.raises(InputError, match="names a language model on another storage, which is not connected to"):
        network_spec(uri, "rank")
    storage.write_json(f"{uri}/config.json", {"hidden_size": 64})
    with pytest.raises(InputError, match=r"config\.json is not the config of a network"):
        network_spec(uri, "rank")
