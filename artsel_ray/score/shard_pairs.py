"""The pairs of a shard, whoever scores them: which are valid, which an earlier run has answered, which are refused."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from artsel_ray.data import checks, shuffle
from artsel_ray.data.catalog import Catalog
from artsel_ray.decoding import trie
from artsel_ray.runtime.fingerprint_key import with_key
from artsel_ray.runtime.shards import REJECTED_ROWS
from artsel_ray.schema import PREDICTIONS


@dataclass(frozen=True)
class ShardSource:
    """What shards are read from."""

    requests: list[str]
    """Spill files of the requests."""
    previous: list[str]
    """Spill files of an earlier run's predictions."""
    files: list[str]
    """The requests' own files, to name them in invalid rows."""
    catalog: Catalog
    prior: Sequence[str] = ()
    """Spill files of the prior's predictions."""
    key: bytes = field(default=b"", repr=False)
    """Key of this run's fingerprints; see `fingerprint_key`."""
    previous_key: bytes = field(default=b"", repr=False)
    """Key of the earlier run's."""


@dataclass(frozen=True)
class TitleGroup:
    """Consecutive users of one title in a shard."""

    title_id: str
    artwork_ids: list[str]
    users: int

    @property
    def leaves(self) -> list[int]:
        """For each candidate the index of the first that the model cannot tell from it; a network tells all apart."""
        return list(range(len(self.artwork_ids)))


@dataclass(frozen=True)
class ShardPairs:
    """A shard's N pairs to score, the predictions that are reused, and the invalid rows."""

    groups: Sequence[TitleGroup]
    """In the order of the pairs; their `users` sum to N."""
    fingerprints: list[str]
    reused: pa.Table
    """An earlier run's predictions with unchanged fingerprints."""
    invalid: pa.Table
    counts: dict[str, float]
    sources: pa.Table
    """Each pair's row of the requests: user_id, title_id, file (its URI), row and, from this version on, row_share."""


ShardT = TypeVar("ShardT", bound=ShardPairs)


def read_pairs(index: int, source: ShardSource, content: str, order: Sequence[str]) -> tuple[pa.Table, pa.Table, float]:
    """Returns a shard's valid pairs in an order, the invalid rows, and how many rows of the requests the pairs were.

    Invalid are pairs of an unknown title, of a title without candidates, and repeated pairs.

    Args:
        content: what a candidate must have, such as `a caption`.
        order: columns to sort by, out of `user_id` and `title`, which is the title's index in the catalog.
    """
    pairs, catalog = shuffle.read_partition(source.requests, index), source.catalog
    title = checks.codes(pairs["title_id"], catalog.title_ids)
    candidates = np.append(np.diff(catalog.offsets), 0)  # the last is for unknown titles, whose code is -1
    found = [
        ("title_ids", checks.UNKNOWN_TITLE, title < 0),
        ("title_ids", f"the title has no candidate with {content}", candidates[title] == 0),
        ("title_ids", "the pair was asked for before", _repeated(pairs["user_id"], title)),
    ]
    valid, invalid = checks.split_valid(pairs.append_column("title", pa.array(title)), "requests", source.files, found)
    return valid.sort_by([(name, "ascending") for name in order]), invalid, shares(pairs)


def _repeated(user_ids: pa.ChunkedArray, title: NDArray[np.int64]) -> NDArray[np.bool_]:
    users = pc.dictionary_encode(user_ids).combine_chunks().indices.to_numpy().astype(np.int64)
    repeated = np.ones(len(title), dtype=bool)
    repeated[np.unique(users * (title.max(initial=0) + 2) + title, return_index=True)[1]] = False
    return repeated


def shares(pairs: pa.Table) -> float:
    """Returns how many rows of the requests these pairs are; pairs in an earlier version's spill files are rows."""
    is_known = "row_share" in pairs.column_names
    return float(pc.sum(pairs["row_share"]).as_py() or 0) if is_known else float(pairs.num_rows)


def counts(pairs: pa.Table, invalid: pa.Table, all_shares: float) -> dict[str, float]:
    """Returns the counts of valid and invalid pairs."""
    return {"pairs": pairs.num_rows, "rejected": invalid.num_rows, REJECTED_ROWS: all_shares - shares(pairs)}


def sources(pairs: pa.Table, files: list[str]) -> pa.Table:
    """Returns `ShardPairs.sources` of valid pairs."""
    file = pa.DictionaryArray.from_arrays(pairs["file"].combine_chunks(), pa.array(files, pa.string()))
    kept = [name for name in ("user_id", "title_id", "row", "row_share") if name in pairs.column_names]
    return pairs.select(kept).append_column("file", file)


def title_spans(title: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Returns each run of equal titles, and its length."""
    starts = np.flatnonzero(np.diff(title, prepend=-1))
    return list(zip(title[starts].tolist(), np.diff(starts, append=len(title)).tolist(), strict=True))


def candidates_of(catalog: Catalog, title: int) -> list[str]:
    """Returns the artwork ids of the title at an index of the catalog."""
    return list(catalog.artwork_ids[slice(*catalog.offsets[title : title + 2].tolist())].to_pylist())


def refused(shard: ShardT, reason: str) -> ShardT:
    """Returns a shard whose pairs are all invalid for one reason, except those that are reused."""
    files = shard.sources["file"].combine_chunks()
    rows = shard.sources.set_column(shard.sources.column_names.index("file"), "file", files.indices)
    invalid = checks.invalid_rows(rows, "requests", files.dictionary.to_pylist(), "title_ids", reason)
    counts = {
        **shard.counts,
        "pairs": shard.counts["pairs"] - rows.num_rows,
        "rejected": shard.counts["rejected"] + rows.num_rows,
        REJECTED_ROWS: shard.counts.get(REJECTED_ROWS, 0) + shares(rows),
    }
    return dataclasses.replace(shard, invalid=pa.concat_tables([shard.invalid, invalid]), counts=counts)


def without_reused(
    shard: ShardT, index: int, source: ShardSource, with_distribution: bool, keep: Callable[[ShardT, pa.Array], ShardT]
) -> ShardT:
    """Returns a shard without the pairs that an earlier run has answered, whose predictions it then has.

    Its fingerprints, without a key before, have the run's key.

    Args:
        with_distribution: whether only predictions with all candidates' probabilities can be reused.
        keep: returns a shard of which what only this kind of shard has is filtered by a mask of the pairs.
    """
    plain, shard = shard.fingerprints, dataclasses.replace(shard, fingerprints=with_key(shard.fingerprints, source.key))
    if not source.previous:
        return shard
    earlier = pa.array(with_key(plain, source.previous_key), pa.string())
    previous = _possible(shuffle.read_partition(source.previous, index), source.catalog, with_distribution)
    # Find each pair's first earlier prediction.
    keys, row_n = ["user_id", "title_id"], pa.array(np.arange(shard.sources.num_rows))
    asked = shard.sources.select(keys).append_column("fingerprint", earlier)
    known = previous.select([*keys, "fingerprint"]).append_column("known", pa.array(np.arange(previous.num_rows)))
    found = asked.append_column("row", row_n).join(known, [*keys, "fingerprint"], join_type="inner")
    found = found.sort_by([("row", "ascending"), ("known", "ascending")])
    answered, first = np.unique(found["row"].to_numpy(), return_index=True)

    is_new = np.ones(shard.sources.num_rows, dtype=bool)
    is_new[answered] = False
    owners = np.repeat(np.arange(len(shard.groups)), [group.users for group in shard.groups])
    reused = _undrawn(previous.take(found["known"].take(first)), [shard.groups[owners[row]] for row in answered])
    own = pa.array([shard.fingerprints[row] for row in answered], pa.string())
    reused = reused.set_column(reused.column_names.index("fingerprint"), PREDICTIONS.field("fingerprint"), own)
    return dataclasses.replace(
        kept(shard, is_new, keep), reused=reused, counts={**shard.counts, "reused": len(answered)}
    )


def kept(shard: ShardT, is_kept: NDArray[np.bool_], keep: Callable[[ShardT, pa.Array], ShardT]) -> ShardT:
    """Returns a shard with some of its pairs only; `keep` as for `without_reused`."""
    owners = np.repeat(np.arange(len(shard.groups)), [group.users for group in shard.groups])
    users = np.bincount(owners[is_kept], minlength=len(shard.groups)).tolist()
    return dataclasses.replace(
        keep(shard, pa.array(is_kept)),
        groups=[dataclasses.replace(group, users=n) for group, n in zip(shard.groups, users, strict=True) if n],
        fingerprints=[each for each, is_one in zip(shard.fingerprints, is_kept, strict=True) if is_one],
        sources=shard.sources.filter(pa.array(is_kept)),
    )


def _possible(previous: pa.Table, catalog: Catalog, with_distribution: bool) -> pa.Table:
    """Returns the earlier predictions that this run could have made: of a candidate, with all their probabilities."""
    title = checks.codes(previous["title_id"], catalog.title_ids)
    position = checks.codes(previous["artwork_id"], catalog.artwork_ids) - catalog.offsets[title]
    candidates = np.append(np.diff(catalog.offsets), 0)[title]  # the last is for unknown titles, whose code is -1
    possible = (position >= 0) & (position < candidates)
    if with_distribution:
        possible &= pc.fill_null(pc.list_value_length(previous["candidates"]), 0).to_numpy() == candidates
    return previous.filter(pa.array(possible))


def _undrawn(reused: pa.Table, groups: list[TitleGroup]) -> pa.Table:
    """Returns an earlier run's predictions, of these groups, with the model's choice where that run has drawn another.

    What is served is drawn afterwards, out of the same probabilities.
    """
    if reused["propensity"].null_count == reused.num_rows:
        return reused
    rows = reused.to_pylist()
    for row, group in zip(rows, groups, strict=True):
        if row["propensity"] is not None:
            best = trie.most_likely(np.array([each["probability"] for each in row["candidates"]]), group.leaves)
            row |= {**row["candidates"][best], "propensity": None}
    return pa.Table.from_pylist(rows, PREDICTIONS)
