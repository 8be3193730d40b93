"""A shard's prompts as token ids, made separately from the engine."""

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from artsel_ray.data import checks
from artsel_ray.data.catalog import Catalog
from artsel_ray.decoding import trie
from artsel_ray.decoding.base import Choices
from artsel_ray.models import weights
from artsel_ray.models.load import load_tokenizer
from artsel_ray.prompts.spec import PromptSpec
from artsel_ray.prompts.tokenizer import Options, PromptTokenizer, tokenize_title
from artsel_ray.schema import PREDICTIONS
from artsel_ray.score import shard_pairs
from artsel_ray.score.answer_spec import AnswerSpec
from artsel_ray.score.predictions import predictions
from artsel_ray.score.prior import Priors, read_priors
from artsel_ray.score.shard_pairs import ShardPairs, ShardSource, TitleGroup


@dataclass(frozen=True)
class PromptGroup(TitleGroup):
    """Users who share their title's tokenized options."""

    options: Options

    has_prior: bool = False

    @property
    def leaves(self) -> list[int]:
        """See `TitleGroup`: candidates of one answer, which only a prior tells apart."""
        return super().leaves if self.has_prior else trie.leaves(self.options.answers)


@dataclass(frozen=True)
class RenderedShard(ShardPairs):
    """A shard's pairs as what an engine is asked."""

    groups: list[PromptGroup]
    histories: pa.ListArray
    """[N] each user's history as token ids."""
    priors: Priors | None
    """[N] without a prior None."""
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

    Invalid are those of `read_pairs`, and pairs whose prompt does not fit the model even without a history.
    """
    spec, catalog = answer_spec.spec, source.catalog
    tokenizer = prompt_tokenizer(answer_spec.model, spec)
    content = "an image" if spec.assets == "image" else "a caption"
    order = ["title"] if spec.layout == "title_first" else ["user_id", "title"]
    pairs, invalid, all_shares = shard_pairs.read_pairs(index, source, content, order)

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
    groups = _groups(catalog, titles, title, options, answer_spec.prior is not None)
    priors = read_priors(index, source, groups, pairs) if answer_spec.prior else None
    shard = RenderedShard(
        groups=groups,
        histories=histories.ids,
        priors=priors,
        fingerprints=_fingerprints(groups, histories.ids, priors, answer_spec),
        reused=PREDICTIONS.empty_table(),
        invalid=invalid,
        counts={
            **shard_pairs.counts(pairs, invalid, all_shares),
            "histories_cut": int((histories.items_cut > 0).sum()),
            "captions_cut": sum(each.captions_cut for each in options),
            **({"without_prior": priors.count(None)} if priors is not None else {}),
        },
        sources=shard_pairs.sources(pairs, source.files),
        names=_names(pairs["history"], catalog) if spec.reason else pa.array([], pa.string()),
    )
    shard = shard_pairs.without_reused(shard, index, source, answer_spec.decoder.gives_distribution, _filtered)
    return _without_sure(shard, answer_spec) if answer_spec.prior else shard


def _filtered(shard: RenderedShard, is_kept: pa.Array) -> RenderedShard:
    priors = shard.priors and list(itertools.compress(shard.priors, is_kept.to_pylist()))
    return dataclasses.replace(shard, histories=shard.histories.filter(is_kept), priors=priors)


def _without_sure(shard: RenderedShard, answer_spec: AnswerSpec) -> RenderedShard:
    """Returns a shard without the pairs of which the prior is sure, whose predictions, the prior's own, it then has."""
    assert answer_spec.prior is not None
    assert shard.priors is not None
    is_sure = np.array([answer_spec.prior.is_sure(prior) for prior in shard.priors], dtype=bool)
    sure_n = [prior.probability_m for prior in itertools.compress(shard.priors, is_sure) if prior is not None]
    best = [int(prior_m.argmax()) for prior_m in sure_n]
    choices = Choices(best, [float(p[i]) for p, i in zip(sure_n, best, strict=True)], sure_n)
    rows = predictions(shard_pairs.kept(shard, is_sure, _filtered), choices, None, answer_spec.model_id)
    return dataclasses.replace(
        shard_pairs.kept(shard, ~is_sure, _filtered),
        reused=pa.concat_tables([shard.reused, rows]),
        counts={**shard.counts, "by_prior": len(best)},
    )


def _groups(
    catalog: Catalog, titles: np.ndarray, title: np.ndarray, options: list[Options], has_prior: bool
) -> list[PromptGroup]:
    groups = []
    for code, users in shard_pairs.title_spans(title):
        number = titles[code]
        artwork_ids = shard_pairs.candidates_of(catalog, number)
        groups.append(PromptGroup(catalog.title_ids[number].as_py(), artwork_ids, users, options[code], has_prior))
    return groups


def _names(histories: pa.ChunkedArray, catalog: Catalog) -> pa.Array:
    watched = pc.struct_field(pc.list_flatten(histories), "title_name").drop_null()
    return pc.unique(pa.chunked_array([catalog.names, *watched.chunks]))


def _fingerprints(
    groups: list[PromptGroup], histories: pa.ListArray, priors: Priors | None, answer_spec: AnswerSpec
) -> list[str]:
    digests, of_title = [], {}  # a title may have many groups, where users stay whole
    prior_n = iter(priors or ())
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
            if answer_spec.prior and (prior := next(prior_n)) is not None:
                digest.update(prior.probability_m.tobytes() + bytes([answer_spec.prior.is_sure(prior)]))
            digests.append(digest.hexdigest())
    return digests
