"""A shard's prompts as token ids, made separately from the engine."""

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from artsel_ray.data import checks, shuffle
from artsel_ray.data.catalog import Catalog
from artsel_ray.decoding import trie
from artsel_ray.models import weights
from artsel_ray.models.load import load_tokenizer
from artsel_ray.prompts.spec import PromptSpec
from artsel_ray.prompts.tokenizer import Options, PromptTokenizer, tokenize_title
from artsel_ray.runtime.fingerprint_key import with_key
from artsel_ray.runtime.shards import REJECTED_ROWS
from artsel_ray.schema import PREDICTIONS
from artsel_ray.score.answer_spec import AnswerSpec


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
    key: bytes = field(default=b"", repr=False)
    """Key of this run's fingerprints; see `fingerprint_key`."""
    previous_key: bytes = field(default=b"", repr=False)
    """Key of the earlier run's."""


@dataclass(frozen=True)
class TitleGroup:
    """Consecutive users of one title in a shard, who share its tokenized options."""

    title_id: str
    artwork_ids: list[str]
    options: Options
    users: int


@dataclass(frozen=True)
class RenderedShard:
    """A shard's N pairs to score, the predictions that are reused, and the invalid rows."""

    groups: list[TitleGroup]
    """In the order of the pairs; their `users` sum to N."""
    user_ids: pa.ChunkedArray
    histories: pa.ListArray
    fingerprints: list[str]
    reused: pa.Table
    """An earlier run's predictions with unchanged fingerprints."""
    invalid: pa.Table
    counts: dict[str, float]
    sources: pa.Table
    """Each pair's row of the requests: user_id, title_id, file (its URI), row and, from this version on, row_share."""
    names: pa.Array
    """Titles of the catalog and of the shard's histories, which rationales may name; empty without rationales."""


@lru_cache(maxsize=2)
def prompt_tokenizer(model: str, spec: PromptSpec) -> PromptTokenizer:
    """Returns this process's tokenizer of a model."""
    return weights.prompt_tokenizer(load_tokenizer(model), spec)


def make_renderer(answer_spec: AnswerSpec, source: ShardSource) -> Callable[[int], RenderedShard]:
    """Returns the function that renders a shard, given its index."""
    prompt_tokenizer(answer_spec.model, answer_spec.spec)  # loads while the engines start
    return lambda index: render_shard(index, source, answer_spec)


def render_shard(index: int, source: ShardSource, answer_spec: AnswerSpec) -> RenderedShard:
    """Reads a shard's pairs from the spill files and tokenizes them, ordered by what begins their prompts.

    Invalid are pairs of an unknown title, of a title without candidates, repeated pairs, and pairs whose prompt does
    not fit the model even without a history.
    """
    tokenizer, catalog = prompt_tokenizer(answer_spec.model, answer_spec.spec), source.catalog
    read = shuffle.read_partition(source.requests, index)
    pairs, invalid = _valid_pairs(read, source, answer_spec.spec)

    # A title is tokenized once; what it leaves of the model's length is the budget of its users' histories.
    titles, title = np.unique(pairs["title"].to_numpy(), return_inverse=True)
    options = [tokenize_title(tokenizer, catalog, each) for each in titles.tolist()]
    length = answer_spec.max_model_length
    budget = np.array([tokenizer.history_budget(each, length) for each in options], dtype=np.int64)[title]
    too_long = ("title_ids", f"without any history the prompt exceeds {length} tokens", budget < 0)
    pairs, more = checks.split_valid(pairs, "requests", source.files, [too_long])
    invalid = pa.concat_tables([invalid, more])
    title, budget = title[budget >= 0], budget[budget >= 0]

    histories = tokenizer.histories(pairs["history"], budget)
    groups = _groups(catalog, titles, title, options)
    fingerprints = _fingerprints(groups, histories.ids, answer_spec)
    shard = RenderedShard(
        groups=groups,
        user_ids=pairs["user_id"],
        histories=histories.ids,
        fingerprints=with_key(fingerprints, source.key),
        reused=PREDICTIONS.empty_table(),
        invalid=invalid,
        counts={
            "pairs": pairs.num_rows,
            "rejected": invalid.num_rows,
            REJECTED_ROWS: shares(read) - shares(pairs),
            "histories_cut": int((histories.items_cut > 0).sum()),
            "captions_cut": sum(each.captions_cut for each in options),
        },
        sources=_sources(pairs, source.files),
        names=_names(pairs["history"], catalog) if answer_spec.spec.reason else pa.array([], pa.string()),
    )
    if not source.previous:
        return shard
    previous = shuffle.read_partition(source.previous, index)
    possible = _possible(previous, catalog, answer_spec.decoder.gives_distribution)
    return _reuse(shard, pairs["title_id"], with_key(fingerprints, source.previous_key), possible)


def _sources(pairs: pa.Table, files: list[str]) -> pa.Table:
    file = pa.DictionaryArray.from_arrays(pairs["file"].combine_chunks(), pa.array(files, pa.string()))
    kept = [name for name in ("user_id", "title_id", "row", "row_share") if name in pairs.column_names]
    return pairs.select(kept).append_column("file", file)


def refused(shard: RenderedShard, reason: str) -> RenderedShard:
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


def shares(pairs: pa.Table) -> float:
    """Returns how many rows of the requests these pairs are; pairs in an earlier version's spill files are rows."""
    is_known = "row_share" in pairs.column_names
    return float(pc.sum(pairs["row_share"]).as_py() or 0) if is_known else float(pairs.num_rows)


def _valid_pairs(pairs: pa.Table, source: ShardSource, spec: PromptSpec) -> tuple[pa.Table, pa.Table]:
    """Returns valid pairs, with `title` as index in the catalog and shared prefixes adjacent, and the invalid rows."""
    catalog = source.catalog
    title = checks.codes(pairs["title_id"], catalog.title_ids)
    candidates = np.append(np.diff(catalog.offsets), 0)  # the last is for unknown titles, whose code is -1
    content = "an image" if spec.assets == "image" else "a caption"
    found = [
        ("title_ids", checks.UNKNOWN_TITLE, title < 0),
        ("title_ids", f"the title has no candidate with {content}", candidates[title] == 0),
        ("title_ids", "the pair was asked for before", _repeated(pairs["user_id"], title)),
    ]
    valid, invalid = checks.split_valid(pairs.append_column("title", pa.array(title)), "requests", source.files, found)
    order = ["title"] if spec.layout == "title_first" else ["user_id", "title"]
    return valid.sort_by([(name, "ascending") for name in order]), invalid


def _repeated(user_ids: pa.ChunkedArray, title: np.ndarray) -> np.ndarray:
    users = pc.dictionary_encode(user_ids).combine_chunks().indices.to_numpy().astype(np.int64)
    repeated = np.ones(len(title), dtype=bool)
    repeated[np.unique(users * (title.max(initial=0) + 2) + title, return_index=True)[1]] = False
    return repeated


def _groups(catalog: Catalog, titles: np.ndarray, title: np.ndarray, options: list[Options]) -> list[TitleGroup]:
    starts = np.flatnonzero(np.diff(title, prepend=-1))
    groups = []
    for code, users in zip(title[starts].tolist(), np.diff(starts, append=len(title)).tolist(), strict=True):
        number = titles[code]
        artwork_ids = catalog.artwork_ids[slice(*catalog.offsets[number : number + 2].tolist())].to_pylist()
        groups.append(TitleGroup(catalog.title_ids[number].as_py(), artwork_ids, options[code], users))
    return groups


def _names(histories: pa.ChunkedArray, catalog: Catalog) -> pa.Array:
    watched = pc.struct_field(pc.list_flatten(histories), "title_name").drop_null()
    return pc.unique(pa.chunked_array([catalog.names, *watched.chunks]))


def _fingerprints(groups: list[TitleGroup], histories: pa.ListArray, answer_spec: AnswerSpec) -> list[str]:
    digests, of_title = [], {}  # a title may have many groups, where users stay whole
    values, bounds = histories.values.to_numpy(), itertools.pairwise(histories.offsets.to_pylist())
    identity = answer_spec.identity()
    for group in groups:
        if group.title_id not in of_title:
            shared = [
                identity,
                group.artwork_ids,
                group.options.prefix,
                [image.digest for image in group.options.images],
            ]
            of_title[group.title_id] = hashlib.blake2b(json.dumps(shared, sort_keys=True).encode(), digest_size=16)
        for start, end in itertools.islice(bounds, group.users):
            digest = of_title[group.title_id].copy()
            digest.update(values[start:end].tobytes())
            digests.append(digest.hexdigest())
    return digests


def _possible(previous: pa.Table, catalog: Catalog, with_distribution: bool) -> pa.Table:
    """Returns the earlier predictions that this run could have made: of a candidate, with all their probabilities."""
    title = checks.codes(previous["title_id"], catalog.title_ids)
    position = checks.codes(previous["artwork_id"], catalog.artwork_ids) - catalog.offsets[title]
    candidates = np.append(np.diff(catalog.offsets), 0)[title]  # the last is for unknown titles, whose code is -1
    possible = (position >= 0) & (position < candidates)
    if with_distribution:
        possible &= pc.fill_null(pc.list_value_length(previous["candidates"]), 0).to_numpy() == candidates
    return previous.filter(pa.array(possible))


def _reuse(
    shard: RenderedShard, title_ids: pa.ChunkedArray, earlier_fingerprints: list[str], previous: pa.Table
) -> RenderedShard:
    # Find each pair's first earlier prediction.
    keys = ["user_id", "title_id", "fingerprint"]
    pairs = pa.table([shard.user_ids, title_ids, pa.array(earlier_fingerprints, pa.string())], names=keys)
    rows = pairs.append_column("row", pa.array(np.arange(pairs.num_rows)))
    known = previous.select(keys).append_column("known", pa.array(np.arange(previous.num_rows)))
    found = rows.join(known, keys, join_type="inner").sort_by([("row", "ascending"), ("known", "ascending")])
    answered, first = np.unique(found["row"].to_numpy(), return_index=True)

    # Drop these pairs from the groups and from all that has a row for each pair.
    is_new = np.ones(pairs.num_rows, dtype=bool)
    is_new[answered] = False
    reused = previous.take(found["known"].take(first))
    own = pa.array([shard.fingerprints[row] for row in answered], pa.string())
    reused = reused.set_column(reused.column_names.index("fingerprint"), PREDICTIONS.field("fingerprint"), own)
    owners = np.repeat(np.arange(len(shard.groups)), [group.users for group in shard.groups])
    users = np.bincount(owners[is_new], minlength=len(shard.groups)).tolist()
    return dataclasses.replace(
        shard,
        groups=[dataclasses.replace(group, users=n) for group, n in zip(shard.groups, users, strict=True) if n],
        user_ids=shard.user_ids.filter(pa.array(is_new)),
        histories=shard.histories.filter(pa.array(is_new)),
        fingerprints=list(itertools.compress(shard.fingerprints, is_new)),
        sources=shard.sources.filter(pa.array(is_new)),
        reused=_undrawn(reused, [shard.groups[owners[row]] for row in answered]),
        counts={**shard.counts, "reused": len(answered)},
    )


def _undrawn(reused: pa.Table, groups: list[TitleGroup]) -> pa.Table:
    """Returns an earlier run's predictions, of these groups, with the model's choice where that run has drawn another.

    What is served is drawn afterwards, out of the same probabilities.
    """
    if reused["propensity"].null_count == reused.num_rows:
        return reused
    rows = reused.to_pylist()
    for row, group in zip(rows, groups, strict=True):
        if row["propensity"] is not None:
            probabilities = [each["probability"] for each in row["candidates"]]
            best = trie.most_likely(np.array(probabilities), trie.leaves(group.options.answers))
            row |= {**row["candidates"][best], "propensity": None}
    return pa.Table.from_pylist(rows, PREDICTIONS)
