"""Which shard each pair belongs to: what shares the start of its prompts stays together, in shards of like work."""

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from artsel_ray.config import DEFAULT_LIMITS, RowLimits
from artsel_ray.data.catalog import Catalog
from artsel_ray.data.checked_reader import CheckedReader, group_files
from artsel_ray.prompts.spec import PromptSpec
from artsel_ray.runtime.task_result import map_tasks

# Rough sizes, to balance shards before anything is tokenized.
_LETTERS_PER_TOKEN, _PIXELS_PER_TOKEN, _TOKENS_PER_INTERACTION, _IMAGES_PER_TITLE = 4, 28 * 28, 20, 12


@dataclass(frozen=True)
class Assignment:
    """Which shard each title's pairs belong to."""

    shard_of: dict[str, tuple[int, int]]
    """For each title its first shard and its number of shards; with `user_first`, 0 and all shards."""
    shards: int
    history_length: int = 10**9
    """Items of a history that prompts show, the newest."""

    def shards_of(self, pairs: pa.Table) -> np.ndarray:
        """Returns each row's shard, int64 [N]; a stable hash of user_id spreads a title's users over its shards."""
        titles = pc.dictionary_encode(pairs["title_id"]).combine_chunks()
        spans = np.array([self.shard_of[title] for title in titles.dictionary.to_pylist()]).reshape(-1, 2)
        first, count = spans[titles.indices.to_numpy()].T
        user_ids = pairs["user_id"].to_numpy().astype(object)
        spread = pd.util.hash_array(user_ids, categorize=False) % count.astype(np.uint64)
        return first + spread.astype(np.int64)


def count_pairs(files: list[str], limits: RowLimits = DEFAULT_LIMITS) -> Counter[str]:
    """Returns how many pairs of each title all files of requests have, in tasks on Ray."""
    counts: Counter[str] = Counter()
    for counted in map_tasks(group_files(files), lambda group: [count_titles(files[index], limits) for index in group]):
        for each in counted:
            counts.update(each)
    return counts


def count_titles(file: str, limits: RowLimits = DEFAULT_LIMITS) -> Counter[str]:
    """Returns how many pairs of each title one file of requests has; a null title counts as ''."""
    counts: Counter[str] = Counter()
    for batch in CheckedReader([file], "requests", ["title_ids"], limits=limits).batches():
        for entry in pc.value_counts(pc.list_flatten(batch.valid["title_ids"])).to_pylist():
            counts[entry["values"] or ""] += entry["counts"]
    return counts


def assign(counts: Counter[str], shard_pairs: int, catalog: Catalog, spec: PromptSpec) -> Assignment:
    """Assigns pairs to shards of about the same work, about `shard_pairs` pairs each at most."""
    if spec.layout == "user_first":
        return dataclasses.replace(assign_users(counts, shard_pairs), history_length=spec.history_length)
    pair_tokens = min(_TOKENS_PER_INTERACTION * spec.history_length, spec.history_tokens) + 1
    in_pairs = _guess_options_tokens(catalog, spec) / pair_tokens
    options = dict(zip(catalog.title_ids.to_pylist(), in_pairs, strict=True))
    return dataclasses.replace(assign_titles(counts, shard_pairs, options), history_length=spec.history_length)


def _guess_options_tokens(catalog: Catalog, spec: PromptSpec) -> np.ndarray:
    if spec.assets == "image":
        # The same for all titles, whichever of their images can be used: a resumed run must find its own shards.
        return np.full(len(catalog.title_ids), _IMAGES_PER_TITLE * spec.resize_to_pixels / _PIXELS_PER_TOKEN)
    letters = pc.fill_null(pc.utf8_length(catalog.contents), 0).to_numpy()
    sums = np.concatenate([[0.0], np.cumsum(np.minimum(letters / _LETTERS_PER_TOKEN, spec.caption_tokens))])
    return np.diff(sums[catalog.offsets])


def assign_titles(counts: Counter[str], shard_pairs: int, options: Mapping[str, float]) -> Assignment:
    """Packs whole titles, in the order of their ids, into shards of about the same work.

    Args:
        options: cost of a title's options, which a shard computes once, in pairs; 0 for absent titles.
    """
    shard_of, shard, filled = {}, 0, 0
    for title_id, count in sorted(counts.items()):
        parts, work = math.ceil(count / shard_pairs), count + int(options.get(title_id, 0))
        if filled and (parts > 1 or filled + work > shard_pairs):
            shard, filled = shard + 1, 0
        shard_of[title_id] = (shard, parts)
        shard, filled = (shard + parts, 0) if parts > 1 else (shard, filled + work)
    return Assignment(shard_of, shard + bool(filled))


def assign_users(counts: Counter[str], shard_pairs: int) -> Assignment:
    """Spreads whole users over shards of about `shard_pairs` pairs."""
    shards = math.ceil(sum(counts.values()) / shard_pairs)
    return Assignment(dict.fromkeys(counts, (0, shards)), shards)
