"""The stages of the propose job: questions for briefs, and the briefs that a model generates."""

import dataclasses
import itertools
from dataclasses import dataclass

import pyarrow as pa

from artsel_ray.audience.gaps import Gap
from artsel_ray.audience.prompts import brief_of, question
from artsel_ray.data.catalog import Catalog
from artsel_ray.engines.base import Engine, Sampling
from artsel_ray.prompts.spec import PromptSpec
from artsel_ray.prompts.tokenizer import Ids, PromptTokenizer
from artsel_ray.runtime.engine_pool import Processed
from artsel_ray.schema import INVALID_ROWS, PROPOSALS

# Greedy decoding repeats itself in a longer text, the more so the smaller the model.
_TEMPERATURE, _TOP_P = 0.7, 0.95


@dataclass(frozen=True)
class WriterSettings:
    """The model that writes briefs, and its limits."""

    model: str
    model_id: str
    spec: PromptSpec
    max_tokens: int
    """Longest brief."""
    max_model_length: int


@dataclass(frozen=True)
class BriefRequest:
    """A title's gap, with all that its question needs."""

    gap: Gap
    title_id: str
    name: str
    genres: list[str]
    captions: list[str]
    """The candidates'."""
    seed: int


@dataclass(frozen=True)
class PreparedShard:
    """N requests with their questions."""

    requests: list[BriefRequest]
    questions: list[Ids]


def brief_request(gap: Gap, catalog: Catalog, seed: int) -> BriefRequest:
    """Returns the request of a gap; the same seed gives a title the same brief."""
    title = gap.title
    captions = catalog.contents[slice(*catalog.offsets[title : title + 2].tolist())].to_pylist()
    return BriefRequest(
        gap,
        catalog.title_ids[title].as_py(),
        catalog.names[title].as_py(),
        catalog.genres[title].as_py(),
        captions,
        seed=(seed * len(catalog.title_ids) + title) % 2**31,
    )


def prepare_shard(requests: list[BriefRequest], tokenizer: PromptTokenizer) -> PreparedShard:
    """Tokenizes a shard's questions."""
    questions = [
        question(
            tokenizer,
            tokenizer.options(each.name, each.genres, each.captions),
            [liked.genre for liked in each.gap.over_indexed_genres],
        )
        for each in requests
    ]
    return PreparedShard(requests, questions)


def write_briefs(
    shard: PreparedShard, engine: Engine, tokenizer: PromptTokenizer, settings: WriterSettings
) -> Processed:
    """Generates a shard's briefs.

    A title whose question exceeds the model is counted as `rejected`, and keeps its row: without a brief.
    """
    fits = [len(ids) + settings.max_tokens <= settings.max_model_length for ids in shard.questions]
    seeds = [each.seed for each in itertools.compress(shard.requests, fits)]
    generated = engine.generate(
        list(itertools.compress(shard.questions, fits)),
        settings.max_tokens,
        [int(tokenizer.tokenizer.eos_token_id)],
        Sampling(_TEMPERATURE, _TOP_P, 0, seeds),
    )
    texts = iter(tokenizer.tokenizer.batch_decode(generated))
    briefs = [brief_of(next(texts)) if fit else None for fit in fits]
    rows = [_row(request, brief, settings.model_id) for request, brief in zip(shard.requests, briefs, strict=True)]
    counts: dict[str, float] = {"proposals": len(rows), "rejected": fits.count(False)}
    return Processed(pa.Table.from_pylist(rows, PROPOSALS), INVALID_ROWS.empty_table(), counts)


def _row(request: BriefRequest, brief: str | None, model_id: str) -> dict[str, object]:
    gap = request.gap
    return {
        "title_id": request.title_id,
        "users": gap.users,
        "share": gap.users / gap.title_users,
        "over_indexed_genres": [dataclasses.asdict(each) for each in gap.over_indexed_genres],
        "brief": brief,
        "model_id": model_id,
    }
