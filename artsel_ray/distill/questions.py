"""A shard's examples, tokenized for the teacher.

Suffix n: usable examples of the shard, by title.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from artsel_ray.data import checks
from artsel_ray.data.checked_reader import CheckedReader, RowRange
from artsel_ray.distill.prompts import TeacherPrompts
from artsel_ray.prompts.spec import PromptSpec
from artsel_ray.prompts.tokenizer import Ids, Options


@dataclass(frozen=True)
class TeacherSettings:
    """What a teacher's rationales and their checks depend on, next to the examples."""

    teacher: str
    model_id: str
    spec: PromptSpec
    temperature: float
    top_p: float
    top_k: int
    seed: int
    max_tokens: int
    max_model_length: int
    min_words: int
    quoted_words: int


@dataclass(frozen=True)
class TeacherQuestion:
    """An example as the teacher is asked about it."""

    options: Options
    history: Ids
    label: int
    caption: str
    """The chosen candidate's."""
    seed: int

    def is_chosen(self, candidate: int) -> bool:
        """Whether a candidate reads as the chosen one does: of duplicates the trie returns the first."""
        return self.options.answers[candidate] == self.options.answers[self.label]


@dataclass(frozen=True)
class PreparedShard:
    """N usable examples of a shard, and the invalid ones."""

    examples: pa.Table
    """[N] as the table `examples`, with `file` and `row`."""
    questions: list[TeacherQuestion]
    """[N]"""
    invalid: pa.Table
    histories_cut: int
    """Examples whose history lost interactions to the token budget."""


def prepare_shard(
    files: list[str], rows: RowRange, prompts: TeacherPrompts, settings: TeacherSettings
) -> PreparedShard:
    """Reads and tokenizes a shard's examples; those that cannot be used, or exceed the model, are invalid.

    Args:
        files: URIs of the examples.

    Raises:
        InputError: if the file is broken or is not a table of examples.
    """
    batch = CheckedReader(files, "examples", row_checks=checks.example_checks).rows(rows)
    # Examples of a title follow one another, so that the engine finds their options in its cache.
    usable = batch.valid.sort_by("title_id")
    columns = [usable[name].to_pylist() for name in ("title_name", "title_genres", "candidates")]
    options_n = [
        prompts.tokenizer.options(name, genres, [candidate["caption"] for candidate in candidates])
        for name, genres, candidates in zip(*columns, strict=True)
    ]
    budget_n = np.array(
        [prompts.budget(each, settings.max_tokens, settings.max_model_length) for each in options_n], dtype=int
    )
    fits_n = budget_n >= 0
    too_long = f"without any history the question and its answer exceed {settings.max_model_length} tokens"
    fitting, refused = checks.split_valid(usable, "examples", files, [("candidates", too_long, ~fits_n)])
    histories = prompts.tokenizer.histories(fitting["history"], budget_n[fits_n])
    return PreparedShard(
        fitting,
        _questions(fitting, [options_n[n] for n in np.flatnonzero(fits_n)], histories.ids, settings.seed),
        pa.concat_tables([batch.invalid, refused]),
        int((histories.items_cut > 0).sum()),
    )


def _questions(
    examples: pa.Table, options_n: list[Options], histories: pa.ListArray, seed: int
) -> list[TeacherQuestion]:
    columns = [examples[name].to_pylist() for name in ("candidates", "label", "example_id")]
    return [
        TeacherQuestion(
            options, history.values.to_numpy(), label, candidates[label]["caption"], _example_seed(seed, example_id)
        )
        for options, history, candidates, label, example_id in zip(options_n, histories, *columns, strict=True)
    ]


def _example_seed(seed: int, example_id: str) -> int:
    """Returns an example's own seed, so that its rationale does not depend on its shard."""
    return int.from_bytes(hashlib.blake2b(f"{seed}\0{example_id}".encode(), digest_size=4).digest())
