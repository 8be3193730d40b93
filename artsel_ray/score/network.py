"""Scoring with a network that `baseline` has trained, instead of a language model.

It knows artworks by their captions and ids, and users by what they watched; it has no prompt.
"""

import dataclasses
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from artsel_ray.config import AssetKind, RowLimits
from artsel_ray.data.catalog import Catalog
from artsel_ray.data.checked_reader import CheckedReader, group_files
from artsel_ray.decoding.base import Choices
from artsel_ray.engines.base import UsageCounter
from artsel_ray.errors import InputError
from artsel_ray.locations import is_uri, store_of
from artsel_ray.models.load import load
from artsel_ray.network.encoding import NetworkInputs, encode
from artsel_ray.network.network_files import AnyNetwork, read_config, read_model
from artsel_ray.network.pair_arrays import pair_arrays
from artsel_ray.network.prediction import choose, fingerprints
from artsel_ray.network.text_vectors import NO_VECTORS, TextVectors, text_vectors
from artsel_ray.runtime.engine_pool import GetEngine, Processed
from artsel_ray.runtime.task_result import map_tasks
from artsel_ray.schema import PREDICTIONS
from artsel_ray.score import shard_pairs
from artsel_ray.score.predictions import predictions
from artsel_ray.score.shard_pairs import ShardPairs, ShardSource, TitleGroup

_CONTENT = "a caption"


@dataclass(frozen=True)
class NetworkSpec:
    """What a network's answers depend on apart from the data."""

    uri: str
    """The network's folder."""
    model_id: str
    history_length: int
    """Items of a history that count, the newest: as many as the longest in training had."""
    encoder: str | None
    """Name of the language model that gives texts their vectors."""
    decoding: str
    asset_kind: AssetKind

    def identity(self) -> dict[str, Any]:
        """Returns what answers depend on apart from the data, for a run's identity and a pair's fingerprint."""
        return {"model": self.model_id, "decoding": self.decoding, "asset_kind": self.asset_kind}


@dataclass(frozen=True)
class NetworkSource:
    """What a network's shards are read from."""

    shards: ShardSource
    vectors: TextVectors


@dataclass(frozen=True)
class EncodedShard(ShardPairs):
    """A shard's pairs as what a network takes."""

    inputs: NetworkInputs


@dataclass
class LoadedNetwork:
    """A network in the actor that scores with it."""

    network: AnyNetwork
    usage: UsageCounter = dataclasses.field(default_factory=UsageCounter)


def network_spec(uri: str, decoding: str, asset_kind: AssetKind = "artwork") -> NetworkSpec:
    """Returns what the answers of a network's folder depend on.

    Raises:
        InputError: if an earlier version has trained it, or its language model is on another storage, which a file may
            not lead to, or has other weights by now.
    """
    config = read_config(uri)
    if config.history_length is None:
        raise InputError(f"{uri} was trained by an earlier version, which took ages of a history from another day; "
                         "train it again with jobs/baseline.py")  # fmt: skip
    if config.encoder and is_uri(config.encoder) and store_of(config.encoder) != store_of(uri):
        raise InputError(f"{uri}: its config.json names a language model on another storage, which is not connected to "
                         "because a file says so; train the network again with a copy on its own storage")  # fmt: skip
    if config.encoder and config.encoder_id != (found := load(config.encoder, options=False).model_id):
        raise InputError(f"{uri} was trained with vectors of {config.encoder_id}, and {config.encoder} is {found} now")
    return NetworkSpec(uri, config.model_id, config.history_length, config.encoder, decoding, asset_kind)


def network_vectors(
    spec: NetworkSpec, catalog: Catalog, files: list[str], limits: RowLimits, kept: str, encoders: int, gpus: float
) -> TextVectors:
    """Returns the vectors of all captions and names that a run's pairs have.

    Args:
        kept: folder of vectors that were computed before, to which those are added that are not there yet.
        encoders: processes that compute, each with so many `gpus`.
    """
    if spec.encoder is None:
        return NO_VECTORS
    found = map_tasks(group_files(files), lambda group: _watched(files, group, limits))
    watched = pa.chunked_array(itertools.chain.from_iterable(found), pa.string())
    texts = pc.unique(pa.chunked_array([catalog.contents.cast(pa.string()), catalog.names, *watched.chunks]))
    return text_vectors(spec.encoder, texts.drop_null(), kept, encoders, gpus)


def _watched(files: list[str], group: range, limits: RowLimits) -> list[pa.Array]:
    """Returns the distinct names in the histories of some files."""
    found = []
    for index in group:
        for batch in CheckedReader([files[index]], "requests", ["history.title_name"], limits=limits).batches():
            names = pc.struct_field(pc.list_flatten(batch.valid["history"].combine_chunks()), "title_name")
            found.append(pc.unique(names))
    return found


def make_encoder(spec: NetworkSpec, source: NetworkSource) -> Callable[[int], EncodedShard]:
    """Returns the function that encodes a shard, given its index."""
    _, vocabulary = read_model(spec.uri)

    def encoded(index: int) -> EncodedShard:
        shards, catalog = source.shards, source.shards.catalog
        pairs, invalid, all_shares = shard_pairs.read_pairs(index, shards, _CONTENT, ["title"])
        rows = pair_arrays(pairs, catalog, spec.history_length)
        inputs = encode(rows, vocabulary, vectors=source.vectors)
        groups = [
            TitleGroup(catalog.title_ids[title].as_py(), shard_pairs.candidates_of(catalog, title), users)
            for title, users in shard_pairs.title_spans(pairs["title"].to_numpy())
        ]
        shard = EncodedShard(
            groups=groups,
            inputs=inputs,
            fingerprints=fingerprints(rows, inputs.history_hf, spec.identity()),
            reused=PREDICTIONS.empty_table(),
            invalid=invalid,
            counts={**shard_pairs.counts(pairs, invalid, all_shares), "histories_cut": 0, "captions_cut": 0},
            sources=shard_pairs.sources(pairs, shards.files),
        )

        def keep(shard: EncodedShard, is_kept: pa.Array) -> EncodedShard:
            rows = pair_arrays(pairs.filter(is_kept), catalog, spec.history_length)
            return dataclasses.replace(shard, inputs=encode(rows, vocabulary, vectors=source.vectors))

        return shard_pairs.without_reused(shard, index, shards, spec.decoding == "rank", keep)

    return encoded


def load_network(spec: NetworkSpec) -> LoadedNetwork:
    """Loads a network into this process."""
    return LoadedNetwork(read_model(spec.uri)[0])


def make_network_scorer(spec: NetworkSpec) -> Callable[[EncodedShard, GetEngine], Processed]:
    """Returns the function that scores an encoded shard, for an engine actor."""

    def process(shard: EncodedShard, get_engine: GetEngine) -> Processed:
        loaded: Any = get_engine()
        with loaded.usage.timed():
            predicted = choose(loaded.network, shard.inputs)
        distributions = np.split(predicted.probability_c, shard.inputs.first_candidate_n)[1:]  # the first is empty
        chosen = (predicted.chosen_n - shard.inputs.first_candidate_n).tolist()
        probabilities = predicted.probability_c[predicted.chosen_n].tolist()
        choices = Choices(chosen, probabilities, distributions if spec.decoding == "rank" else None)
        rows = pa.concat_tables([predictions(shard, choices, None, spec.model_id), shard.reused])
        return Processed(rows, shard.invalid, {**shard.counts, "unmatched": 0})

    return process
