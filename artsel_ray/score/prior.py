"""A prior in scoring: its probabilities for a shard's pairs, both models together, and where it chooses alone."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from artsel_ray.config import RowLimits
from artsel_ray.data import shuffle
from artsel_ray.data.checked_reader import CheckedReader, group_files
from artsel_ray.data.priors import KnownPrior, Prior
from artsel_ray.decoding.base import Choices
from artsel_ray.decoding.fusion import fused, log_probabilities
from artsel_ray.errors import InputError
from artsel_ray.models.prior_weights import PriorWeights
from artsel_ray.runtime.ray_cluster import start_ray
from artsel_ray.runtime.task_result import map_tasks
from artsel_ray.score.shard_pairs import ShardPairs, ShardSource, TitleGroup

Priors = list[KnownPrior | None]
"""What the prior says of each pair; None for a pair that it does not know."""


@dataclass(frozen=True)
class Survey:
    """What the whole table of a prior says."""

    top_n: NDArray[np.float64]
    """Probability of each prediction's most likely candidate."""
    model_ids: set[str]

    def sure_above(self, llm_share: float) -> float:
        """Returns the probability above which the prior's choice is left alone, so that a share of its pairs is not."""
        if llm_share == 1:
            return math.inf
        return float(np.quantile(self.top_n, llm_share, method="lower")) if llm_share else 0.0


def survey(files: list[str], limits: RowLimits) -> Survey:
    """Reads all of a prior's predictions once, in tasks on Ray.

    Raises:
        InputError: if there is none, or one without the probabilities of its candidates.
    """
    start_ray()
    parts = list(map_tasks(group_files(files), lambda group: _survey([files[i] for i in group], limits)))
    found = Survey(
        np.concatenate([part.top_n for part in parts]), set[str]().union(*(part.model_ids for part in parts))
    )
    if not len(found.top_n):
        raise InputError("--prior has no prediction; give predictions for these requests")
    return found


def _survey(files: list[str], limits: RowLimits) -> Survey:
    tops, model_ids = [np.empty(0)], set[str]()
    for batch in CheckedReader(files, "predictions", ["candidates", "model_id"], limits=limits).batches():
        lists = batch.valid["candidates"].combine_chunks()
        values = pc.struct_field(lists.flatten(), "probability").to_numpy(zero_copy_only=False)
        counts = pc.fill_null(pc.list_value_length(lists), 0).to_numpy()
        if not counts.all():
            raise InputError("--prior has predictions without their candidates' probabilities; add --decoding rank")
        tops.append(np.maximum.reduceat(values, np.cumsum(counts) - counts) if len(counts) else np.empty(0))
        model_ids |= set(pc.unique(batch.valid["model_id"]).to_pylist())
    return Survey(np.concatenate(tops), model_ids)


def read_priors(index: int, source: ShardSource, groups: Sequence[TitleGroup], pairs: pa.Table) -> Priors:
    """Returns the prior's probabilities for a shard's pairs."""
    known = Prior(shuffle.read_partition(list(source.prior), index))
    user_ids = iter(pairs["user_id"].to_pylist())
    return [
        known.row(user_id, group.title_id, group.artwork_ids)
        for group in groups
        for user_id in itertools.islice(user_ids, group.users)
    ]


def with_prior(shard: ShardPairs, choices: Choices, priors: Priors, weights: PriorWeights) -> Choices:
    """Returns the choices by both models' log-probabilities, added with the weights of each pair's title."""
    assert choices.distributions is not None  # the flags allow a prior with such decoders only
    weight_n = [weights.of(group.title_id) for group in shard.groups for _ in range(group.users)]
    distributions = []
    for own_m, prior, weight in zip(choices.distributions, priors, weight_n, strict=True):
        log_prior_m = np.zeros(len(own_m)) if prior is None else log_probabilities(prior.probability_m)
        distributions.append(fused(np.stack([log_probabilities(own_m), log_prior_m]), weight))
    best = [int(each.argmax()) for each in distributions]
    return Choices(best, [float(p[i]) for p, i in zip(distributions, best, strict=True)], distributions)
