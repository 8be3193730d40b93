from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedTokenizerBase

from artsel_ray.audience.briefs import BriefRequest, BriefWriter, brief_of, brief_request, question
from artsel_ray.audience.user_segments import Gap, OverIndexedGenre
from artsel_ray.data.images import ArtworkImage
from artsel_ray.engines.base import Sampling, UsageCounter
from artsel_ray.prompts.spec import PromptSpec
from artsel_ray.prompts.tokenizer import Ids, PromptTokenizer
from tests.support.scored_runs import CAPTIONS, read_tables, write_scored_run

GAP = Gap(0, 20, 80, [OverIndexedGenre("Horror", 0.5, 0.1, 0.3, 0.5)])


class WriterEngine:
    """Generates the same text for every question."""

    def __init__(self, tokenizer: PromptTokenizer, text: str) -> None:
        self.usage, self.sampling = UsageCounter(), Sampling(0, 1, 0, [])
        self._ids = tokenizer.encode([text])[0]

    def generate(
        self,
        prompts: Sequence[Ids],
        max_tokens: int,
        stop: Sequence[int],
        sampling: Sampling | None = None,
        images: Sequence[Sequence[ArtworkImage]] = (),
    ) -> list[list[int]]:
        assert sampling is not None
        self.sampling = sampling
        return [self._ids[:max_tokens] for _ in prompts]

    def logprobs(
        self, prompts: Sequence[Ids], allowed: Sequence[list[int]], images: Sequence[Sequence[ArtworkImage]] = ()
    ) -> list[np.ndarray]:
        raise NotImplementedError


@pytest.fixture
def prompts(tokenizer: PreTrainedTokenizerBase) -> PromptTokenizer:
    return PromptTokenizer(tokenizer, PromptSpec())


def test_requests_hold_the_title_and_its_own_seed(tmp_path: Path) -> None:
    write_scored_run(tmp_path, 4, lambda *_: {"fear": 1.0})
    request = brief_request(GAP, read_tables(tmp_path), seed=7)
    assert (request.title_id, request.name, request.genres) == ("t", "The <i>House</i>", ["Drama"])
    assert request.captions == list(CAPTIONS.values())
    assert request.seed == 7  # seed * titles + title


def test_title_that_exceeds_the_model_has_a_row_without_a_brief(prompts: PromptTokenizer) -> None:
    requests = [
        BriefRequest(GAP, title_id, "Up", ["Comedy"], [caption, "The sea.", caption], seed=number)
        for number, (title_id, caption) in enumerate([("a", "A tower."), ("b", "word " * 600), ("c", "A house.")])
    ]
    engine = WriterEngine(prompts, " A storm. And mo")
    writer = BriefWriter(prompts, "smollm2@x", max_tokens=16, max_model_length=512)
    rows, invalid, counts = writer(requests, lambda: engine)
    assert rows["model_id"].to_pylist() == ["smollm2@x"] * 3
    assert rows["title_id"].to_pylist() == ["a", "b", "c"]
    assert rows["brief"].to_pylist() == ["A storm.", None, "A storm."]
    assert rows["share"].to_pylist() == [0.25] * 3
    assert rows["over_indexed_genres"].to_pylist()[0][0]["genre"] == "Horror"
    assert (invalid.num_rows, counts) == (0, {"proposals": 3, "rejected": 1})
    assert list(engine.sampling.seeds) == [0, 2]


def test_question_shows_the_title_and_whom_nothing_suits(tokenizer: PreTrainedTokenizerBase) -> None:
    prompts = PromptTokenizer(tokenizer, PromptSpec(asset_kind="synopsis"))
    options = prompts.options("Up <b>", ["Comedy"], ["A red tower.", "The sea."])
    ids = question(prompts, options, ["Horror", "<option> War"]).tolist()
    text = str(tokenizer.decode(ids))
    assert "Up ‹b›" in text
    assert "who watch more Horror and ‹option› War than others" in text
    assert "a new synopsis of this title" in text
    # Two options, and no more, whatever a genre is called.
    assert ids.count(prompts.option) == ids.count(prompts.option_end) == 2


@pytest.mark.parametrize(
    ("generated", "expected"),
    [
        (" A storm. At sea!\nDark? More. And mo", "A storm. At sea! Dark?"),
        ("no end", "no end"),
        (" <option>A hand.", "‹option›A hand."),
        ("", ""),
    ],
)
def test_brief_is_its_first_complete_sentences(generated: str, expected: str) -> None:
    assert brief_of(generated) == expected
