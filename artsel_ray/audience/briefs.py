"""Briefs of missing artworks: the question to a model, how its answer is cleaned, and the engine stage that asks it."""

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from artsel_ray.audience.user_segments import Gap
from artsel_ray.data.catalog import Catalog
from artsel_ray.engines.base import Sampling
from artsel_ray.prompts.escaping import escape
from artsel_ray.prompts.tokenizer import Ids, Options, PromptTokenizer
from artsel_ray.runtime.engine_pool import GetEngine, Processed
from artsel_ray.schema import INVALID_ROWS, PROPOSALS

WORDING = "brief-1"
"""Version of the wording; changes whenever a token of any question would."""

# Greedy decoding repeats itself in a longer text, the more so the smaller the model.
_TEMPERATURE, _TOP_P = 0.7, 0.95
_SENTENCE = re.compile(r"[^.!?]*[.!?]+")
_MAX_SENTENCES = 3


@dataclass(frozen=True)
class BriefRequest:
    """A title's gap, with all that its question needs; `captions` are the candidates'."""

    gap: Gap
    title_id: str
    name: str
    genres: list[str]
    captions: list[str]
    seed: int


def brief_request(gap: Gap, catalog: Catalog, seed: int) -> BriefRequest:
    """Returns the request of a gap; the same seed gives a title the same brief."""
    title = gap.title
    captions = catalog.contents[slice(*catalog.offsets[title : title + 2].tolist())].to_pylist()
    title_id, name, genres = (each[title].as_py() for each in (catalog.title_ids, catalog.names, catalog.genres))
    return BriefRequest(gap, title_id, name, genres, captions, (seed * len(catalog.title_ids) + title) % 2**31)


def question(tokenizer: PromptTokenizer, options: Options, genres: Sequence[str]) -> Ids:
    """Returns the ids of the question for a brief: a title's options, and genres of users whom none suits."""
    text = (
        f"\n\nNone of these suits a group of viewers who watch more {escape(' and '.join(genres))} than others. "
        f"Write a brief for a new {tokenizer.spec.asset_kind} of this title that they would like, unlike those above. "
        "In two sentences: who or what it shows and where, in what light and mood."
    )
    ids = [*tokenizer.head, *options.prefix, *tokenizer.encode_data([text])[0], *tokenizer.turn]
    return np.array(ids, dtype=np.int32)


def brief_of(generated: str) -> str:
    """Returns the brief in a model's text: one line, its first three complete sentences, or all if there is none."""
    line = escape(generated)
    return "".join(_SENTENCE.findall(line)[:_MAX_SENTENCES]).strip() or line


@dataclass(frozen=True)
class BriefWriter:
    """Writes a shard's briefs, each of at most `max_tokens` tokens."""

    tokenizer: PromptTokenizer
    model_id: str
    max_tokens: int
    max_model_length: int

    def __call__(self, requests: list[BriefRequest], get_engine: GetEngine) -> Processed:
        """A title whose question exceeds the model is counted as `rejected`, and has a row without a brief."""
        questions = [self._question(each) for each in requests]
        fitting = [n for n, ids in enumerate(questions) if len(ids) + self.max_tokens <= self.max_model_length]
        sampling = Sampling(_TEMPERATURE, _TOP_P, 0, [requests[n].seed for n in fitting])
        tokenizer = self.tokenizer.tokenizer
        generated = get_engine().generate(
            [questions[n] for n in fitting], self.max_tokens, [int(tokenizer.eos_token_id)], sampling
        )
        briefs = dict(zip(fitting, map(brief_of, tokenizer.batch_decode(generated)), strict=True))
        rows = [self._row(each, briefs.get(n)) for n, each in enumerate(requests)]
        counts: dict[str, float] = {"proposals": len(rows), "rejected": len(rows) - len(fitting)}
        return Processed(pa.Table.from_pylist(rows, PROPOSALS), INVALID_ROWS.empty_table(), counts)

    def _question(self, request: BriefRequest) -> Ids:
        options = self.tokenizer.options(request.name, request.genres, request.captions)
        return question(self.tokenizer, options, [each.genre for each in request.gap.over_indexed_genres])

    def _row(self, request: BriefRequest, brief: str | None) -> dict[str, object]:
        gap = request.gap
        named = {"title_id": request.title_id, "share": gap.users / gap.title_users}
        return {**dataclasses.asdict(gap), **named, "brief": brief, "model_id": self.model_id}
