"""The engine stage of the propose job: a model writes briefs."""

import dataclasses
import itertools
from dataclasses import dataclass

import pyarrow as pa

from artsel_ray.audience.gaps import Gap
from artsel_ray.audience.prompts import brief_of, question
from artsel_ray.data.catalog import Catalog
from artsel_ray.engines.base import Sampling
from artsel_ray.prompts.tokenizer import Ids, PromptTokenizer
from artsel_ray.runtime.engine_pool import GetEngine, Processed
from artsel_ray.schema import INVALID_ROWS, PROPOSALS

# Greedy decoding repeats itself in a longer text, the more so the smaller the model.
_TEMPERATURE, _TOP_P = 0.7, 0.95


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


def brief_request(gap: Gap, catalog: Catalog, seed: int) -> BriefRequest:
    """Returns the request of a gap; the same seed gives a title the same brief."""
    title = gap.title
    captions = catalog.contents[slice(*catalog.offsets[title : title + 2].tolist())].to_pylist()
    title_id, name, genres = (each[title].as_py() for each in (catalog.title_ids, catalog.names, catalog.genres))
    return BriefRequest(gap, title_id, name, genres, captions, (seed * len(catalog.title_ids) + title) % 2**31)


@dataclass(frozen=True)
class BriefWriter:
    """Writes a shard's briefs."""

    tokenizer: PromptTokenizer
    model_id: str
    max_tokens: int
    """Longest brief."""
    max_model_length: int

    def __call__(self, requests: list[BriefRequest], get_engine: GetEngine) -> Processed:
        """Returns a proposal for each request.

        A title whose question exceeds the model is counted as `rejected`, and has a row without a brief.
        """
        questions = [self._question(each) for each in requests]
        fits = [len(ids) + self.max_tokens <= self.max_model_length for ids in questions]
        seeds = [each.seed for each in itertools.compress(requests, fits)]
        generated = get_engine().generate(
            list(itertools.compress(questions, fits)),
            self.max_tokens,
            [int(self.tokenizer.tokenizer.eos_token_id)],
            Sampling(_TEMPERATURE, _TOP_P, 0, seeds),
        )
        texts = iter(self.tokenizer.tokenizer.batch_decode(generated))
        rows = [
            self._row(each, brief_of(next(texts)) if fit else None) for each, fit in zip(requests, fits, strict=True)
        ]
        counts: dict[str, float] = {"proposals": len(rows), "rejected": fits.count(False)}
        return Processed(pa.Table.from_pylist(rows, PROPOSALS), INVALID_ROWS.empty_table(), counts)

    def _question(self, request: BriefRequest) -> Ids:
        options = self.tokenizer.options(request.name, request.genres, request.captions)
        return question(self.tokenizer, options, [each.genre for each in request.gap.over_indexed_genres])

    def _row(self, request: BriefRequest, brief: str | None) -> dict[str, object]:
        gap = request.gap
        return {
            "title_id": request.title_id,
            "users": gap.users,
            "share": gap.users / gap.title_users,
            "over_indexed_genres": [dataclasses.asdict(each) for each in gap.over_indexed_genres],
            "brief": brief,
            "model_id": self.model_id,
        }
