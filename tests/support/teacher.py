"""Examples for a teacher, and an engine that plays one."""

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from artsel_ray import schema
from artsel_ray.data.checked_reader import RowRange
from artsel_ray.distill.prompts import TeacherPrompts
from artsel_ray.distill.questions import PreparedShard, TeacherSettings, prepare_shard
from artsel_ray.engines.base import Sampling, UsageCounter
from artsel_ray.models.load import load
from artsel_ray.models.weights import prompt_tokenizer
from artsel_ray.prompts.spec import PromptSpec
from artsel_ray.prompts.tokenizer import Ids, PromptTokenizer

SPEC = PromptSpec(reason=True, reason_tokens=40)
SETTINGS = TeacherSettings("smollm2", "smollm2@x", SPEC, 0.6, 0.95, 0, 7, max_tokens=64, max_model_length=4096,
                           min_words=5, quoted_words=6)  # fmt: skip
CAPTIONS = ["A red tower in a storm at night.", "Two friends laugh by the sea.", "Two friends fight in the rain."]
GOOD = "Dark films with much tension suit this viewer."
MOMENT = datetime.datetime(2024, 5, 1, tzinfo=datetime.UTC)
# A shard's rows are the second file's, after this many others.
BEFORE = 100


def example(number: int, label: int | None = 1, **changes: Any) -> dict[str, Any]:
    """Returns a row of `examples`, of user `u<number>` and one of two titles."""
    history = [{"timestamp": MOMENT, "title_name": "Heat", "genres": ["Crime"], "watch_seconds": 60.0}]
    row = {
        "example_id": f"e{number}", "user_id": f"u{number}", "title_id": f"t{number % 2}", "title_name": "Up",
        "title_genres": ["Comedy"], "history": history, "label": label, "propensity": 0.5, "timestamp": MOMENT,
        "candidates": [{"artwork_id": f"a{i}", "caption": caption} for i, caption in enumerate(CAPTIONS)],
        "rationale": None,
    }  # fmt: skip
    return row | changes


def files(folder: Path) -> list[str]:
    """Returns the names of the files that `prepare` reads."""
    return [str(folder / "first.parquet"), str(folder / "second.parquet")]


def tokenizer() -> PromptTokenizer:
    """Returns the teacher's tokenizer."""
    return prompt_tokenizer(load("smollm2").path, SPEC)


def prompts() -> TeacherPrompts:
    """Returns the teacher's prompts."""
    return TeacherPrompts(tokenizer())


def prepare(folder: Path, rows: list[dict[str, Any]]) -> PreparedShard:
    """Writes examples and prepares them as one shard."""
    fields = pa.schema([field.with_nullable(True) for field in schema.EXAMPLES])
    pq.write_table(pa.Table.from_pylist([{}] * BEFORE + rows, schema=fields), files(folder)[1])
    return prepare_shard(files(folder), RowRange(1, BEFORE, len(rows)), prompts(), SETTINGS)


class TeacherEngine:
    """Generates a given text for each user, and chooses by words of the rationale: storm, sea or rain."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts, self.sampling, self.asked = texts, Sampling(0, 1, 0, []), list[str]()
        self.tokenizer, self.usage = tokenizer(), UsageCounter()

    def generate(
        self,
        prompts: Sequence[Ids],
        max_tokens: int,
        stop: Sequence[int],
        sampling: Sampling | None = None,
        images: Any = (),
    ) -> list[list[int]]:
        """See `Engine`."""
        assert sampling is not None
        assert stop == [self.tokenizer.tokenizer.eos_token_id]
        self.sampling = sampling
        self.asked += [str(self.tokenizer.tokenizer.decode(prompt)) for prompt in prompts]
        # Prompts come by title, even users first.
        order = sorted(range(len(self.texts)), key=lambda number: number % 2)
        return [ids[:max_tokens] for ids in self.tokenizer.encode([self.texts[number] for number in order])]

    def logprobs(self, prompts: Sequence[Ids], allowed: Sequence[list[int]], images: Any = ()) -> list[np.ndarray]:
        """See `Engine`."""
        answers = []
        for asked, ids in zip(prompts, allowed, strict=True):
            prompt = str(self.tokenizer.tokenizer.decode(asked))
            assert "liked this one" not in prompt  # the truth is not given
            rationale = prompt.partition("Reason:")[2].casefold()
            wanted = next((word for word in ("storm", "sea", "rain") if word in rationale), "sea")
            (caption,) = (caption for caption in CAPTIONS if f" {wanted}" in caption)
            answered = prompt.rpartition("<option>")[2]
            following = self.tokenizer.encode([f" {caption}"])[0][
                len(self.tokenizer.encode([answered])[0]) if answered else 0
            ]
            answers.append(np.array([0.0 if token == following else -9.0 for token in ids]))
        return answers
