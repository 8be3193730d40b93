"""A shard's examples, tokenized for the teacher. Suffix n: usable examples of the shard, by title."""

import hashlib
import itertools
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from artsel_ray.config import DEFAULT_LIMITS, RowLimits
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
    """The usable examples of a shard, with `file` and `row`, their questions, and the invalid examples."""

    examples: pa.Table
    questions: list[TeacherQuestion]
    invalid: pa.Table
    histories_cut: int
    """Examples whose history lost interactions to the token budget."""


def prepare_shard(
    files: list[str], rows: RowRange, prompts: TeacherPrompts, settings: TeacherSettings,
    limits: RowLimits = DEFAULT_LIMITS,
) -> PreparedShard:  # fmt: skip
    """Reads and tokenizes a shard's examples; those that cannot be used, or exceed the model, are invalid.

    Raises:
        InputError: if the file is broken or is not a table of examples.
    """
    batch = CheckedReader(files, "examples", row_checks=checks.example_checks, limits=limits).rows(rows)
    # Examples of a title follow one another, so that the engine finds their options in its cache.
    usable = batch.valid.sort_by("title_id")
    columns = [usable[name].to_pylist() for name in ("title_name", "title_genres", "candidates")]
    options_n = [
        prompts.tokenizer.options(name, genres, [candidate["caption"] for candidate in candidates])
        for name, genres, candidates in zip(*columns, strict=True)
    ]
    lengths = settings.max_tokens, settings.max_model_length
    budget_n = np.array([prompts.budget(each, *lengths) for each in options_n], dtype=int)
    fits_n = budget_n >= 0
    too_long = f"without any history the question and its answer exceed {settings.max_model_length} tokens"
    fitting, refused = checks.split_valid(usable, "examples", files, [("candidates", too_long, ~fits_n)])
    histories = prompts.tokenizer.histories(fitting["history"], budget_n[fits_n])
    questions = []
    columns = [fitting[name].to_pylist() for name in ("candidates", "label", "example_id")]
    fitting_options = itertools.compress(options_n, fits_n)
    for options, ids, candidates, label, example_id in zip(fitting_options, histories.ids, *columns, strict=True):
        # An example's own seed, so that its rationale does not depend on its shard.
        seed = int.from_bytes(hashlib.blake2b(f"{settings.seed}\0{example_id}".encode(), digest_size=4).digest())
        question = TeacherQuestion(options, ids.values.to_numpy(), label, candidates[label]["caption"], seed)
        questions.append(question)
    invalid = pa.concat_tables([batch.invalid, refused])
    return PreparedShard(fitting, questions, invalid, int((histories.items_cut > 0).sum()))
