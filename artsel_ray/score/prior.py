"""A prior in scoring: its probabilities for a shard's pairs, both models together, and where it chooses alone."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from artsel_ray import storage
from artsel_ray.data import shuffle
from artsel_ray.data.checked_reader import CheckedReader, group_files
from artsel_ray.data.priors import Prior
from artsel_ray.decoding.base import Choices
from artsel_ray.decoding.fusion import fused, log_probabilities
from artsel_ray.errors import InputError
from artsel_ray.models.prior_weights import PriorWeights
from artsel_ray.runtime.ray_cluster import start_ray
from artsel_ray.runtime.task_result import map_tasks
from artsel_ray.score.shard_pairs import ShardPairs, ShardSource, TitleGroup

Priors = list[NDArray[np.float64] | None]
"""The prior's probabilities of each pair's candidates; None for a pair that it does not know."""


def sure_above(prior: str, llm_share: float) -> float:
    """Returns the probability above which a prior's choice is left alone, so that a share of its pairs is not.

    Raises:
        InputError: if the prior has a prediction without the probabilities of its candidates.
    """
    if llm_share == 1:
        return math.inf
    start_ray()
    files = storage.list_files(prior)
    tops = np.concatenate(list(map_tasks(group_files(files), lambda group: most_likely([files[i] for i in group]))))
    return float(np.quantile(tops, llm_share, method="lower")) if llm_share else 0.0


def most_likely(files: list[str]) -> np.ndarray:
    """Returns the probability of each prediction's most likely candidate."""
    found = [np.empty(0)]
    for batch in CheckedReader(files, "predictions", ["candidates"]).batches():
        lists = batch.valid["candidates"].combine_chunks()
        values = pc.struct_field(lists.flatten(), "probability").to_numpy(zero_copy_only=False)
        counts = pc.fill_null(pc.list_value_length(lists), 0).to_numpy()
        if not counts.all():
            raise InputError("--prior has predictions without their candidates' probabilities; add --decoding rank")
        found.append(np.maximum.reduceat(values, np.cumsum(counts) - counts) if len(counts) else np.empty(0))
    return np.concatenate(found)


def read_priors(index: int, source: ShardSource, groups: Sequence[TitleGroup], pairs: pa.Table) -> Priors:
    """Returns the prior's probabilities for a shard's pairs."""
    known = Prior(shuffle.read_partition(list(source.prior), index))
    user_ids = iter(pairs["user_id"].to_pylist())
    return [
        known.of(user_id, group.title_id, group.artwork_ids)
        for group in groups
        for user_id in itertools.islice(user_ids, group.users)
    ]


def with_prior(shard: ShardPairs, choices: Choices, priors: Priors, weights: PriorWeights) -> Choices:
    """Returns the choices by both models' log-probabilities, added with the weights of each pair's title."""
    assert choices.distributions is not None  # the flags allow a prior with such decoders only
    weight_n = [weights.of(group.title_id) for group in shard.groups for _ in range(group.users)]
    distributions = []
    for own_m, prior_m, weight in zip(choices.distributions, priors, weight_n, strict=True):
        log_prior_m = np.zeros(len(own_m)) if prior_m is None else log_probabilities(prior_m)
        distributions.append(fused(np.stack([log_probabilities(own_m), log_prior_m]), weight))
    best = [int(each.argmax()) for each in distributions]
    return Choices(best, [float(p[i]) for p, i in zip(distributions, best, strict=True)], distributions)
