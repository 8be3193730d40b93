"""Choices of a shard as rows: ids, each candidate's probability, and nothing of what the prompt held."""

import numpy as np
import pyarrow as pa

from artsel_ray.decoding.base import Choices
from artsel_ray.schema import INVALID_ROWS, PREDICTIONS
from artsel_ray.score.predictions import predictions
from artsel_ray.score.shard_pairs import ShardPairs, TitleGroup


def test_each_pair_is_a_row_with_the_candidates_of_its_title() -> None:
    groups = [TitleGroup("t", ["a", "b"], 2), TitleGroup("s", ["c", "d", "e"], 1)]
    sources = pa.table({"user_id": ["u", "v", "u"], "title_id": ["t", "t", "s"]})
    shard = ShardPairs(
        groups, ["f1", "f2", "f3"], PREDICTIONS.empty_table(), INVALID_ROWS.empty_table(), {}, sources
    )  # fmt: skip
    distributions = [np.array([0.25, 0.75]), np.array([0.5, 0.5]), np.array([0.1, 0.2, 0.7])]
    table = predictions(shard, Choices([1, 0, 2], [0.75, 0.5, 0.7], distributions), [None, "because", None], "m@1")
    assert table.schema.equals(PREDICTIONS)
    rows = table.drop_columns("scored_at").to_pylist()
    shared = {"propensity": None, "model_id": "m@1"}
    assert rows[2] == {
        "user_id": "u", "title_id": "s", "artwork_id": "e", "probability": 0.7, "fingerprint": "f3", "rationale": None,
        "candidates": [{"artwork_id": name, "probability": p} for name, p in (("c", 0.1), ("d", 0.2), ("e", 0.7))],
        **shared,
    }  # fmt: skip
    assert [(row["artwork_id"], row["rationale"]) for row in rows[:2]] == [("b", None), ("a", "because")]
    plain = predictions(shard, Choices([1, 0, 2], [None, None, None]), None, "m@1")
    assert plain["candidates"].null_count == plain["probability"].null_count == 3
