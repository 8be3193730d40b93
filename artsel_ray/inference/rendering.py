"""A shard's prompts as token ids, made apart from the engine."""

import hashlib
import itertools
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from artsel_ray.data import shuffle
from artsel_ray.inference.catalogue import rejections
from artsel_ray.models.load import load
from artsel_ray.prompts.spec import PromptSpec
from artsel_ray.prompts.tokenize import Options, PromptTokenizer
from artsel_ray.schema import HISTORY


@dataclass(frozen=True)
class TitleGroup:
    """A title with as many of the shard's users, who share its tokenized options."""

    title_id: str
    artwork_ids: list[str]
    options: Options
    users: int


@dataclass(frozen=True)
class RenderedShard:
    """What an engine needs to score a shard's N pairs, and what rendering left out."""

    index: int
    groups: list[TitleGroup]
    """In the order of the pairs; their `users` add up to N."""
    user_ids: pa.ChunkedArray
    """[N]"""
    histories: pa.ListArray
    """[N] lists of ids."""
    fingerprints: list[str]
    """[N]"""
    rejected: pa.Table
    counts: dict[str, int]


@dataclass(frozen=True)
class Rendering:
    """What rendering depends on beside the data."""

    model: str
    model_id: str
    spec: PromptSpec
    max_model_length: int
    decoding: str


@lru_cache(maxsize=2)
def prompt_tokenizer(model: str, spec: PromptSpec) -> PromptTokenizer:
    """Returns this process's tokenizer of a model."""
    from transformers import AutoTokenizer

    return PromptTokenizer(AutoTokenizer.from_pretrained(load(model).path, trust_remote_code=False), spec)


def render_shard(index: int, work: list[str], titles: pa.Table, rendering: Rendering) -> RenderedShard:
    """Reads a shard's pairs out of the work objects and tokenizes them, grouped by title.

    Rejected are pairs of an unknown title, of a title without candidates, repeated pairs, and pairs whose
    prompt does not fit the model even without a history.
    """
    pairs = shuffle.read_partition(work, index)
    pairs = pairs.append_column("place", pc.index_in(pairs["title_id"], value_set=titles["title_id"]))
    rejected = []

    def reject(mask: np.ndarray, column: str, reason: str) -> None:
        nonlocal pairs
        bad = pairs.filter(pa.array(mask))
        ids = {"user_id": bad["user_id"], "title_id": bad["title_id"]}
        rejected.append(rejections("requests", bad["file"], bad["row"], column, reason, **ids))
        pairs = pairs.filter(pa.array(~mask))

    reject(pc.is_null(pairs["place"]).to_numpy(), "title_ids", "unknown title")
    reject(_repeated(pairs), "title_ids", "the pair was asked for before")
    bare = pc.is_null(titles["artwork_ids"].take(pairs["place"]))
    reject(bare.to_numpy(), "title_ids", "the title has no candidate with a caption")
    pairs = pairs.sort_by("place")
    places, starts = np.unique(pairs["place"].to_numpy(), return_index=True)
    tokenizer = prompt_tokenizer(rendering.model, rendering.spec)
    options = [_tokenize_title(tokenizer, titles, place) for place in places.tolist()]
    rooms = np.array([_history_room(tokenizer, rendering, each) for each in options], dtype=np.int64)
    room = np.repeat(rooms, np.diff(np.append(starts, pairs.num_rows)))
    reject(room < 0, "title_ids", f"without any history the prompt exceeds {rendering.max_model_length} tokens")
    kept = rooms >= 0
    histories = tokenizer.histories(pairs["history"], room[room >= 0])
    sizes = np.diff(np.append(starts, len(room)))[kept].tolist()
    groups = [
        TitleGroup(titles["title_id"][place].as_py(), titles["artwork_ids"][place].as_py(), each, size)
        for place, each, size in zip(places[kept].tolist(), itertools.compress(options, kept), sizes, strict=True)
    ]
    counts = {
        "pairs": pairs.num_rows,
        "rejected": sum(part.num_rows for part in rejected),
        "histories_cut": int((histories.items_cut > 0).sum()),
        "captions_cut": sum(each.captions_cut for each in options),
    }
    fingerprints = _fingerprints(groups, histories.ids, rendering)
    return RenderedShard(
        index, groups, pairs["user_id"], histories.ids, fingerprints, pa.concat_tables(rejected), counts
    )


def _repeated(pairs: pa.Table) -> np.ndarray:
    """Marks the pairs that stand earlier in the shard already; [N] bool."""
    repeated = np.ones(pairs.num_rows, dtype=bool)
    users = pc.dictionary_encode(pairs["user_id"]).combine_chunks().indices.to_numpy().astype(np.int64)
    keys = users * (int(pc.max(pairs["place"]).as_py() or 0) + 1) + pairs["place"].to_numpy()
    repeated[np.unique(keys, return_index=True)[1]] = False
    return repeated


def _tokenize_title(tokenizer: PromptTokenizer, titles: pa.Table, place: int) -> Options:
    name, genres, captions = (titles[column][place].as_py() for column in ("name", "genres", "captions"))
    return tokenizer.options(name, [genre for genre in genres or [] if genre], captions)


def _history_room(tokenizer: PromptTokenizer, rendering: Rendering, options: Options) -> int:
    """Returns how many tokens of history fit beside a title's options and the longest answer."""
    answer = max(map(len, options.answers)) + len(tokenizer.end)
    if rendering.spec.reason:
        answer += rendering.spec.reason_tokens + len(tokenizer.after_reason)
    least_history = int(tokenizer.histories(pa.array([[]], HISTORY), np.array([0])).ids.value_lengths()[0].as_py())
    room = rendering.max_model_length - tokenizer.fixed_tokens() - len(options.block) - answer
    return room if room >= least_history else -1


def _fingerprints(groups: list[TitleGroup], histories: pa.ListArray, rendering: Rendering) -> list[str]:
    """Returns a digest of all that decides a pair's answer, for each pair."""
    digests = []
    values, bounds = histories.values.to_numpy(), itertools.pairwise(histories.offsets.to_pylist())
    for group in groups:
        shared = (rendering.model_id, rendering.spec, rendering.decoding, group.artwork_ids, group.options.block)
        common = hashlib.blake2b(repr(shared).encode(), digest_size=16)
        for begin, end in itertools.islice(bounds, group.users):
            digest = common.copy()
            digest.update(values[begin:end].tobytes())
            digests.append(digest.hexdigest())
    return digests
