"""A rendered shard through an engine and a decoder into rows of predictions."""

import datetime
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from artsel_ray.data.images import ArtworkImage
from artsel_ray.decoding import freetext, trie
from artsel_ray.decoding import label_prior as labels
from artsel_ray.engines.base import Engine
from artsel_ray.errors import InputError
from artsel_ray.prompts import rationale_checks as explanations
from artsel_ray.prompts.rationale_checks import Names
from artsel_ray.prompts.tokenizer import Ids, PromptTokenizer
from artsel_ray.schema import PREDICTIONS
from artsel_ray.score.rendering import RenderedShard, prompt_tokenizer
from artsel_ray.score.resolve import ScoringSettings


@dataclass(frozen=True)
class Choices:
    """The decoder's answer to each of N prompts."""

    candidates: list[int]
    probabilities: list[float | None]
    distributions: list[np.ndarray] | None = None
    unmatched: int = 0
    """Free texts that resembled no candidate; the first candidate is taken for them."""


def score_shard(shard: RenderedShard, engine: Engine, rendering: ScoringSettings) -> tuple[pa.Table, dict[str, int]]:
    """Returns a shard's predictions, in the order of its groups, and the counts that scoring adds.

    Raises:
        InputError: if the engine's log-probabilities are no numbers: the choice would be none of the model's.
    """
    tokenizer = prompt_tokenizer(rendering.model, rendering.spec)
    prompts, answers, tries = [], [], []
    images: list[Sequence[ArtworkImage]] = []
    built: dict[int, trie.Trie] = {}  # a title's groups share their options
    histories = (history.values.to_numpy() for history in shard.histories)
    for group in shard.groups:
        prompts += tokenizer.prompts(group.options.prefix, itertools.islice(histories, group.users))
        answers += [group.options.answers] * group.users
        if id(group.options) not in built:
            built[id(group.options)] = trie.build(group.options.answers, tokenizer.option_end)
        tries += [built[id(group.options)]] * group.users
        if tokenizer.placeholders:
            images += [group.options.images] * group.users
    reasons = None
    if rendering.spec.reason:
        prompts, reasons = _write_reasons(engine, tokenizer, prompts, images)
    choices = _decode(engine, rendering, tokenizer, prompts, answers, tries, images)
    if any(value is not None and np.isnan(value) for value in choices.probabilities):
        raise InputError(f"{rendering.model} answers with what is no number; score with another --dtype, or model")
    counts = {"unmatched": choices.unmatched}
    shown: list[str | None] | None = None
    if reasons is not None:
        shown, dropped = _shown(shard, tokenizer, reasons, choices.candidates)
        counts |= dropped
    return _predictions(shard, choices, shown, rendering.model_id), counts


def _decode(
    engine: Engine,
    rendering: ScoringSettings,
    tokenizer: PromptTokenizer,
    prompts: list[Ids],
    answers: list[list[list[int]]],
    tries: list[trie.Trie],
    images: list[Sequence[ArtworkImage]],
) -> Choices:
    if rendering.decoding == "freetext":
        return _write_freely(engine, tokenizer, prompts, answers, images)
    if rendering.decoding == "choose":
        chosen = trie.choose(engine, prompts, tries, images)
        return Choices([choice.candidate for choice in chosen], [choice.probability for choice in chosen])
    distributions = trie.rank(engine, prompts, tries, images)
    if rendering.label_prior:
        distributions = [labels.divide(each, rendering.label_prior) for each in distributions]
    best = [int(np.argmax(each)) for each in distributions]
    return Choices(best, [float(each[i]) for each, i in zip(distributions, best, strict=True)], distributions)


def _write_freely(
    engine: Engine,
    tokenizer: PromptTokenizer,
    prompts: list[Ids],
    answers: list[list[list[int]]],
    images: list[Sequence[ArtworkImage]],
) -> Choices:
    longest = max((len(answer) for each in answers for answer in each), default=0) + 1
    texts = tokenizer.tokenizer.batch_decode(engine.write(prompts, longest, tokenizer.end, images=images))
    decoded: dict[int, list[str]] = {}
    matches = []
    for text, each in zip(texts, answers, strict=True):
        if id(each) not in decoded:  # the same list for all users of a title
            decoded[id(each)] = tokenizer.tokenizer.batch_decode(each)
        matches.append(freetext.match(text, decoded[id(each)]))
    return Choices([found or 0 for found in matches], [None] * len(matches), unmatched=matches.count(None))


def _write_reasons(
    engine: Engine, tokenizer: PromptTokenizer, prompts: list[Ids], images: list[Sequence[ArtworkImage]]
) -> tuple[list[Ids], list[str]]:
    """Has the model write a reason behind each prompt; returns the prompts that go on to the prediction."""
    stop = [tokenizer.option, *tokenizer.end]
    written = engine.write(prompts, tokenizer.spec.reason_tokens, stop, images=images)
    followed = [tokenizer.with_rationale(prompt, ids) for prompt, ids in zip(prompts, written, strict=True)]
    return [prompt for prompt, _ in followed], [reason for _, reason in followed]


def _shown(
    shard: RenderedShard, tokenizer: PromptTokenizer, reasons: list[str], chosen: list[int]
) -> tuple[list[str | None], dict[str, int]]:
    """Leaves out the reasons that tell of another user's history or of another candidate, and counts them."""
    names, decode = Names(shard.names.to_pylist()), tokenizer.tokenizer.decode
    shown: list[str | None] = []
    dropped = dict.fromkeys(explanations.KINDS, 0)
    pairs = zip(shard.histories, reasons, chosen, strict=True)
    for group in shard.groups:
        title, *options = tokenizer.texts(group.options.prefix)
        for history, reason, candidate in itertools.islice(pairs, group.users):
            own = f"{title}\n{decode(history.values.to_numpy())}"
            fault = explanations.find_fault(reason, own, options, candidate, names)
            if fault:
                dropped[fault] += 1
            shown.append(None if fault else reason)
    return shown, {"reasons": len(shown) - sum(dropped.values()), **dropped}


def _predictions(shard: RenderedShard, choices: Choices, reasons: list[str | None] | None, model_id: str) -> pa.Table:
    groups = [group for group in shard.groups for _ in range(group.users)]
    count = len(groups)
    candidates = pa.nulls(count, PREDICTIONS.field("candidates").type)
    if choices.distributions is not None:
        lengths = [len(each) for each in choices.distributions]
        inner = PREDICTIONS.field("candidates").type.value_type
        ids = pa.array([artwork for group in groups for artwork in group.artwork_ids], pa.string())
        values = pa.array(np.concatenate([*choices.distributions, np.empty(0)]))
        structs = pa.StructArray.from_arrays([ids, values], fields=list(inner))
        candidates = pa.ListArray.from_arrays(pa.array(np.cumsum([0, *lengths]), pa.int32()), structs)
    now = datetime.datetime.now(datetime.UTC)
    columns = [
        shard.user_ids,
        pa.array([group.title_id for group in groups], pa.string()),
        pa.array([g.artwork_ids[i] for g, i in zip(groups, choices.candidates, strict=True)], pa.string()),
        pa.array(choices.probabilities, pa.float64()),
        pa.nulls(count, pa.float64()),
        candidates,
        pa.array(reasons, pa.string()) if reasons is not None else pa.nulls(count, pa.string()),
        pa.repeat(model_id, count),
        pa.array(shard.fingerprints, pa.string()),
        pa.array([now] * count, PREDICTIONS.field("scored_at").type),
    ]
    return pa.table(columns, names=PREDICTIONS.names).cast(PREDICTIONS)
