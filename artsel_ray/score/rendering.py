"""A shard's prompts as token ids, made apart from the engine."""

import dataclasses
import hashlib
import itertools
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from artsel_ray.data import checks, shuffle
from artsel_ray.data.catalog import Catalog
from artsel_ray.data.images import UnusableError, read_all
from artsel_ray.errors import InputError
from artsel_ray.models.load import load
from artsel_ray.prompts.spec import PromptSpec
from artsel_ray.prompts.tokenizer import Options, PromptTokenizer
from artsel_ray.schema import PREDICTIONS
from artsel_ray.score.resolve import ScoringSettings


@dataclass(frozen=True)
class TitleGroup:
    """A title with as many of the shard's users, who follow one another and share its tokenized options."""

    title_id: str
    artwork_ids: list[str]
    options: Options
    users: int


@dataclass(frozen=True)
class RenderedShard:
    """What an engine needs to score a shard's N new pairs, what need not be scored, and what rendering left out."""

    index: int
    groups: list[TitleGroup]
    """In the order of the pairs; their `users` add up to N."""
    user_ids: pa.ChunkedArray
    """[N]"""
    histories: pa.ListArray
    """[N] lists of ids."""
    fingerprints: list[str]
    """[N]"""
    carried: pa.Table
    """Predictions of an earlier night whose fingerprints are still right."""
    invalid: pa.Table
    counts: dict[str, int]
    names: pa.Array
    """Titles of the catalogue and of the shard's histories, where the model gives reasons: what these may speak of."""


@lru_cache(maxsize=2)
def prompt_tokenizer(model: str, spec: PromptSpec) -> PromptTokenizer:
    """Returns this process's tokenizer of a model."""
    from artsel_ray.models import weights

    return weights.prompt_tokenizer(load(model).path, spec)


def render_shard(
    index: int,
    work: list[str],
    previous: list[str],
    files: list[str],
    catalog: Catalog,
    contents: pa.Array,
    rendering: ScoringSettings,
) -> RenderedShard:
    """Reads a shard's pairs out of the work objects and tokenizes them, ordered by what begins their prompts.

    Rejected are pairs of an unknown title, of a title without candidates, repeated pairs, and pairs whose
    prompt does not fit the model even without a history.

    Args:
        index: the shard's number.
        work: URIs of the exchange's objects.
        previous: URIs of the exchange's objects with an earlier night's predictions.
        files: of the requests, for the places of rejected rows.
        contents: of the catalogue's artworks: captions, or where pictures are.
        rendering: model, prompt and limits.
    """
    tokenizer = prompt_tokenizer(rendering.model, rendering.spec)
    by_title = rendering.spec.layout == "title_first"
    wanted = "a picture" if tokenizer.placeholders else "a caption"
    order = ["title"] if by_title else ["user_id", "title"]
    pairs, invalid = _read_pairs(index, work, files, catalog, order, wanted)
    titles, title = np.unique(pairs["title"].to_numpy(), return_inverse=True)
    options = [tokenize_title(tokenizer, catalog, contents, each) for each in titles.tolist()]
    budgets = np.array([tokenizer.history_budget(each, rendering.max_model_length) for each in options], dtype=np.int64)
    budget = budgets[title]
    too_long = f"without any history the prompt exceeds {rendering.max_model_length} tokens"
    pairs, over = checks.split_valid(pairs, "requests", files, [("title_ids", too_long, budget < 0)])
    title = title[budget >= 0]
    histories = tokenizer.histories(pairs["history"], budgets[title])
    starts = np.flatnonzero(np.diff(title, prepend=-1))  # of the runs of pairs with the same title
    users = np.diff(starts, append=len(title)).tolist()
    empty = [_group(catalog, code, each) for code, each in zip(titles.tolist(), options, strict=True)]
    groups = [dataclasses.replace(empty[title[at]], users=count) for at, count in zip(starts, users, strict=True)]
    counts = {
        "pairs": pairs.num_rows,
        "rejected": invalid.num_rows + over.num_rows,
        "histories_cut": int((histories.items_cut > 0).sum()),
        "captions_cut": sum(each.captions_cut for each in options),
    }
    fingerprints = _fingerprints(groups, histories.ids, rendering)
    invalid = pa.concat_tables([invalid, over])
    nothing = PREDICTIONS.empty_table()
    names = _names(pairs["history"], catalog) if rendering.spec.reason else pa.array([], pa.string())
    columns = pairs["user_id"], histories.ids, fingerprints
    shard = RenderedShard(index, groups, *columns, nothing, invalid, counts, names)
    if not previous:
        return shard
    earlier = _possible(shuffle.read_partition(previous, index), catalog, rendering.decoding)
    return _reuse(shard, pairs["title_id"], earlier)


def _names(histories: pa.ChunkedArray, catalog: Catalog) -> pa.Array:
    """Returns all titles' names, of the catalogue and of what was watched."""
    watched = pc.struct_field(pc.list_flatten(histories), "title_name").drop_null()
    return pc.unique(pa.chunked_array([catalog.names, *watched.chunks]))


def _possible(previous: pa.Table, catalog: Catalog, decoding: str) -> pa.Table:
    """Returns the earlier predictions that could be this night's: of a candidate, and with all their probabilities."""
    title = checks.codes(previous["title_id"], catalog.title_ids)
    place = checks.codes(previous["artwork_id"], catalog.artwork_ids) - catalog.offsets[title]
    candidates = np.append(np.diff(catalog.offsets), 0)[title]  # the last stands for unknown titles
    possible = (place >= 0) & (place < candidates)
    if decoding in ("rank", "labels"):
        possible &= pc.fill_null(pc.list_value_length(previous["candidates"]), 0).to_numpy() == candidates
    return previous.filter(pa.array(possible))


def _reuse(shard: RenderedShard, title_ids: pa.ChunkedArray, previous: pa.Table) -> RenderedShard:
    """Returns the shard without the pairs that an earlier night has answered with the same fingerprint."""
    keys = ["user_id", "title_id", "fingerprint"]
    asked = pa.table([shard.user_ids, title_ids, pa.array(shard.fingerprints, pa.string())], names=keys)
    rows = asked.append_column("row", pa.array(np.arange(asked.num_rows)))
    known = previous.select(keys).append_column("known", pa.array(np.arange(previous.num_rows)))
    found = rows.join(known, keys, join_type="inner").sort_by([("row", "ascending"), ("known", "ascending")])
    carried, first = np.unique(found["row"].to_numpy(), return_index=True)
    new = np.ones(asked.num_rows, dtype=bool)
    new[carried] = False
    owners = np.repeat(np.arange(len(shard.groups)), [group.users for group in shard.groups])
    users = np.bincount(owners[new], minlength=len(shard.groups)).tolist()
    return dataclasses.replace(
        shard,
        groups=[dataclasses.replace(group, users=n) for group, n in zip(shard.groups, users, strict=True) if n],
        user_ids=shard.user_ids.filter(pa.array(new)),
        histories=shard.histories.filter(pa.array(new)),
        fingerprints=list(itertools.compress(shard.fingerprints, new)),
        carried=previous.take(found["known"].take(first)),
        counts={**shard.counts, "carried": len(carried)},
    )


def _read_pairs(
    index: int, work: list[str], files: list[str], catalog: Catalog, order: list[str], wanted: str
) -> tuple[pa.Table, pa.Table]:
    """Returns a shard's good pairs, in that order, with the title's place as `title`; and the rejected ones.

    Args:
        wanted: what a candidate must have.
    """
    pairs = shuffle.read_partition(work, index)
    title = checks.codes(pairs["title_id"], catalog.title_ids)
    candidates = np.append(np.diff(catalog.offsets), 0)  # the last stands for unknown titles
    found = [
        ("title_ids", checks.UNKNOWN_TITLE, title < 0),
        ("title_ids", f"the title has no candidate with {wanted}", candidates[title] == 0),
        ("title_ids", "the pair was asked for before", _repeated(pairs["user_id"], title)),
    ]
    good, bad = checks.split_valid(pairs.append_column("title", pa.array(title)), "requests", files, found)
    return good.sort_by([(name, "ascending") for name in order]), bad


def _repeated(user_ids: pa.ChunkedArray, title: np.ndarray) -> np.ndarray:
    """Returns where a pair stands in an earlier row of the shard already."""
    users = pc.dictionary_encode(user_ids).combine_chunks().indices.to_numpy().astype(np.int64)
    repeated = np.ones(len(title), dtype=bool)
    repeated[np.unique(users * (title.max(initial=0) + 2) + title, return_index=True)[1]] = False
    return repeated


def tokenize_title(tokenizer: PromptTokenizer, catalog: Catalog, contents: pa.Array, title: int) -> Options:
    """Tokenizes a title, given by its place in the catalogue, with its candidates.

    Raises:
        InputError: if a picture that could be used can be no longer.
    """
    artworks = slice(*catalog.offsets[title : title + 2].tolist())
    name, genres = catalog.names[title].as_py(), catalog.genres[title].as_py()
    if tokenizer.placeholders is None:
        return tokenizer.options(name, genres, contents[artworks].to_pylist())
    try:
        images = read_all(contents[artworks].to_pylist(), tokenizer.spec.resize_to_pixels)
    except UnusableError as error:
        title_id = catalog.title_ids[title].as_py()
        raise InputError(f"a picture of title {title_id} could be used before and cannot be now: {error}") from None
    return tokenizer.image_options(name, genres, images)


def _group(catalog: Catalog, title: int, options: Options) -> TitleGroup:
    """Returns a title without any user yet."""
    artworks = slice(*catalog.offsets[title : title + 2].tolist())
    artwork_ids = catalog.artwork_ids[artworks].to_pylist()
    return TitleGroup(catalog.title_ids[title].as_py(), artwork_ids, options, users=0)


def _fingerprints(groups: list[TitleGroup], histories: pa.ListArray, rendering: ScoringSettings) -> list[str]:
    """Returns a digest of all that decides a pair's answer, for each pair."""
    digests = []
    of_title = {}  # a title may have many groups, where users stay whole
    values, bounds = histories.values.to_numpy(), itertools.pairwise(histories.offsets.to_pylist())
    for group in groups:
        if group.title_id not in of_title:
            shared: tuple[object, ...] = (rendering.model_id, rendering.spec, rendering.decoding)
            shared += (group.artwork_ids, group.options.prefix)
            if group.options.images:
                shared += (tuple(image.digest for image in group.options.images),)
            if rendering.label_prior:
                shared += (rendering.label_prior,)
            of_title[group.title_id] = hashlib.blake2b(repr(shared).encode(), digest_size=16)
        for begin, end in itertools.islice(bounds, group.users):
            digest = of_title[group.title_id].copy()
            digest.update(values[begin:end].tobytes())
            digests.append(digest.hexdigest())
    return digests
