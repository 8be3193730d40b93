"""A shard of examples through a teacher: out come examples with reasons, and the rows that were dropped.

Suffixes: n usable examples of the shard, s those of them whose reason is sound enough to predict from.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from artsel_ray import schema
from artsel_ray.data import checks
from artsel_ray.decoding import trie
from artsel_ray.distill.prompts import TeacherPrompts, reason_of
from artsel_ray.engines.base import Engine, Sampling
from artsel_ray.prompts import leaks
from artsel_ray.prompts.spec import PromptSpec
from artsel_ray.prompts.tokenizer import Ids, Options
from artsel_ray.score.rendering import prompt_tokenizer

UNFINISHED = "not finished within --max-tokens"
TOO_SHORT = "shorter than --min-words"
TOO_LONG = "longer than --reason-tokens"
MISMATCH = "the prediction from the reason is not the truth"
DROPPED = (UNFINISHED, TOO_SHORT, TOO_LONG, MISMATCH, *leaks.KINDS)
"""Why a reason is dropped, in the order in which it is looked for."""


@dataclass(frozen=True)
class TeacherSettings:
    """What a teacher's answers and their checks depend on beside the examples."""

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


class Explained(NamedTuple):
    """What became of a shard's examples."""

    examples: pa.Table
    """With reasons; as the table `examples`."""
    invalid: pa.Table
    """All others; as the table `invalid`."""
    counts: dict[str, int]
    """`examples` that came in, those `kept`, `invalid` as unusable, those with a `prediction`; and by `DROPPED`."""


@dataclass(frozen=True)
class _Question:
    """An example made ready for the teacher."""

    options: Options
    history: Ids
    label: int
    caption: str
    seed: int

    def is_truth(self, candidate: int) -> bool:
        """Whether a candidate reads as the truth does: of identical ones the trie names the first."""
        return self.options.answers[candidate] == self.options.answers[self.label]


def explain_shard(rows: pa.Table, files: list[str], engine: Engine, teaching: TeacherSettings) -> Explained:
    """Has the teacher explain examples and predict from its explanations, and drops what does not hold.

    Args:
        rows: examples, with the columns `file`, an index into `files`, and `row`, the number in that file.
        files: URIs of the examples.
    """
    prompts = TeacherPrompts(prompt_tokenizer(teaching.teacher, teaching.spec))
    readable, unreadable = checks.split_readable(rows, "examples", files)
    usable, lacking = checks.split_valid(readable, "examples", files, checks.example_checks(readable))
    unusable = pa.concat_tables([unreadable, lacking])
    # Examples of a title follow one another, so that the engine finds their options in its cache.
    questions, usable, too_long, histories_cut = _questions(usable.sort_by("title_id"), files, prompts, teaching)
    reasons = _explain(engine, prompts, questions, teaching)
    faults = _faults(reasons, prompts, teaching)
    faults.append((MISMATCH, _mismatches(engine, prompts, questions, reasons, faults)))
    faults += _leaks(questions, reasons, teaching)
    found: list[checks.RowCheck] = [("reason", fault, mask_n) for fault, mask_n in faults]
    written = usable.set_column(
        usable.column_names.index("reason"), "reason", pa.array([reason or "" for reason in reasons], pa.string())
    )
    kept, dropped = checks.split_valid(written, "examples", files, found)
    kept = kept.sort_by("row").select(schema.EXAMPLES.names)
    by_fault = dict.fromkeys(DROPPED, 0)
    by_fault |= {each["values"]: each["counts"] for each in pc.value_counts(dropped["reason"]).to_pylist()}
    unsound = sum(by_fault[fault] for fault in (UNFINISHED, TOO_SHORT, TOO_LONG))
    counts = {
        "examples": rows.num_rows,
        "kept": kept.num_rows,
        "rejected": unusable.num_rows + too_long.num_rows,
        "predicted": usable.num_rows - unsound,
        "histories_cut": histories_cut,
    }
    invalid = pa.concat_tables([unusable, too_long, dropped]).sort_by("row")
    return Explained(kept, invalid, {**counts, **by_fault})


def _questions(
    rows: pa.Table, files: list[str], prompts: TeacherPrompts, teaching: TeacherSettings
) -> tuple[list[_Question], pa.Table, pa.Table, int]:
    """Returns the questions, their rows, the rejected rows whose questions are too long, and the histories cut."""
    columns = [rows[name].to_pylist() for name in ("title_name", "title_genres", "candidates", "label", "example_id")]
    options_n, labels, captions, seeds = [], [], [], []
    for name, genres, candidates, label, example_id in zip(*columns, strict=True):
        texts = [candidate["caption"] for candidate in candidates]
        options_n.append(prompts.pieces.options(name, genres, texts))
        labels.append(label)
        captions.append(texts[label])
        seeds.append(_seed(teaching.seed, example_id))
    budget_n = np.array(
        [prompts.budget(each, teaching.max_tokens, teaching.max_model_length) for each in options_n], int
    )
    too_long = f"without any history the question and its answer exceed {teaching.max_model_length} tokens"
    fitting, refused = checks.split_valid(rows, "examples", files, [("candidates", too_long, budget_n < 0)])
    histories = prompts.pieces.histories(fitting["history"], budget_n[budget_n >= 0])
    history_n = (history.values.to_numpy() for history in histories.ids)
    questions = [
        _Question(options_n[i], next(history_n), labels[i], captions[i], seeds[i])
        for i in np.flatnonzero(budget_n >= 0)
    ]
    return questions, fitting, refused, int((histories.items_cut > 0).sum())


def _seed(seed: int, example_id: str) -> int:
    """Returns an example's own seed: what is written for it does not depend on its shard."""
    return int.from_bytes(hashlib.blake2b(f"{seed}\0{example_id}".encode(), digest_size=4).digest())


def _explain(
    engine: Engine, prompts: TeacherPrompts, questions: Sequence[_Question], teaching: TeacherSettings
) -> list[str | None]:
    """Returns each question's reason, None where it was not finished."""
    sampling = Sampling(teaching.temperature, teaching.top_p, teaching.top_k, [each.seed for each in questions])
    asked = [prompts.explain(each.options, each.history, each.label) for each in questions]
    tokenizer = prompts.pieces.tokenizer
    written = engine.write(asked, teaching.max_tokens, [int(tokenizer.eos_token_id)], sampling)
    return [
        reason_of(str(tokenizer.decode(ids)), prompts.thinks_first) if len(ids) < teaching.max_tokens else None
        for ids in written
    ]


def _faults(
    reasons: Sequence[str | None], prompts: TeacherPrompts, teaching: TeacherSettings
) -> list[tuple[str, np.ndarray]]:
    """Finds the reasons that are not even predicted from."""
    lengths = [len(ids) for ids in prompts.pieces.encode([f" {reason or ''}" for reason in reasons])]
    return [
        (UNFINISHED, np.array([reason is None for reason in reasons], dtype=bool)),
        (TOO_SHORT, np.array([len(leaks.words(reason or "")) < teaching.min_words for reason in reasons], dtype=bool)),
        (TOO_LONG, np.array([length > teaching.spec.reason_tokens for length in lengths], dtype=bool)),
    ]


def _mismatches(
    engine: Engine,
    prompts: TeacherPrompts,
    questions: Sequence[_Question],
    reasons: Sequence[str | None],
    faults: list[tuple[str, np.ndarray]],
) -> np.ndarray:
    """Returns where the teacher, told only its sound reason, does not choose the truth: [n]."""
    sound = np.flatnonzero(~np.logical_or.reduce([mask_n for _, mask_n in faults]))
    asked_s = [prompts.predict(questions[i].options, questions[i].history, reasons[i] or "") for i in sound]
    tries_s = [trie.build(questions[i].options.answers, prompts.pieces.option_end) for i in sound]
    mismatch_n = np.zeros(len(questions), dtype=bool)
    for i, choice in zip(sound, trie.choose(engine, asked_s, tries_s), strict=True):
        mismatch_n[i] = not questions[i].is_truth(choice.candidate)
    return mismatch_n


def _leaks(
    questions: Sequence[_Question], reasons: Sequence[str | None], teaching: TeacherSettings
) -> list[tuple[str, np.ndarray]]:
    found = [
        leaks.find_leak(reason or "", question.caption, teaching.quoted_words)
        for question, reason in zip(questions, reasons, strict=True)
    ]
    return [(kind, np.array([each == kind for each in found], dtype=bool)) for kind in leaks.KINDS]
