"""A shard's choices as rows of the table of predictions."""

import datetime

import numpy as np
import pyarrow as pa

from artsel_ray.decoding.base import Choices
from artsel_ray.schema import PREDICTIONS
from artsel_ray.score.shard_pairs import ShardPairs


def predictions(shard: ShardPairs, choices: Choices, rationales: list[str | None] | None, model_id: str) -> pa.Table:
    """Returns a shard's predictions, in the order of its groups."""
    groups = [group for group in shard.groups for _ in range(group.users)]
    chosen = [group.artwork_ids[i] for group, i in zip(groups, choices.candidates, strict=True)]
    count, now = len(groups), datetime.datetime.now(datetime.UTC)
    columns = {
        "user_id": shard.sources["user_id"],
        "title_id": pa.array([group.title_id for group in groups], pa.string()),
        "artwork_id": pa.array(chosen, pa.string()),
        "probability": pa.array(choices.probabilities, pa.float64()),
        "propensity": pa.nulls(count, pa.float64()),
        "candidates": _candidates(shard, choices),
        "rationale": pa.nulls(count, pa.string()) if rationales is None else pa.array(rationales, pa.string()),
        "model_id": pa.repeat(model_id, count),
        "fingerprint": pa.array(shard.fingerprints, pa.string()),
        "scored_at": pa.array([now] * count, PREDICTIONS.field("scored_at").type),
    }
    return pa.table(columns).select(PREDICTIONS.names).cast(PREDICTIONS)


def _candidates(shard: ShardPairs, choices: Choices) -> pa.Array:
    kind = PREDICTIONS.field("candidates").type
    if choices.distributions is None:
        return pa.nulls(len(choices.candidates), kind)
    ids = [artwork for group in shard.groups for _ in range(group.users) for artwork in group.artwork_ids]
    values = pa.array(np.concatenate([*choices.distributions, np.empty(0)]))
    structs = pa.StructArray.from_arrays([pa.array(ids, pa.string()), values], fields=list(kind.value_type))
    offsets = np.cumsum([0, *(len(each) for each in choices.distributions)])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), structs)
