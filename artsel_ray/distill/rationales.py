"""The engine stage of distillation: a prepared shard becomes examples with rationales, and the rows that are dropped.

Suffixes: n examples of the shard, s those of them whose rationale is sound enough to predict from.
"""

from collections import Counter
from collections.abc import Sequence
from functools import reduce

import numpy as np
import pyarrow as pa

from artsel_ray import schema
from artsel_ray.data import checks
from artsel_ray.decoding.base import Questions
from artsel_ray.decoding.decoders import Choose
from artsel_ray.distill.prompts import TeacherPrompts, rationale_of
from artsel_ray.distill.questions import PreparedShard, TeacherQuestion, TeacherSettings
from artsel_ray.engines.base import Engine, Sampling
from artsel_ray.prompts import rationale_checks
from artsel_ray.runtime.engine_pool import Processed

UNFINISHED = "not finished within --max-tokens"
TOO_SHORT = "shorter than --min-words"
TOO_LONG = "longer than --reason-tokens"
MISMATCH = "the prediction from the rationale is not the truth"
DROPPED = (UNFINISHED, TOO_SHORT, TOO_LONG, MISMATCH, *rationale_checks.LEAKS)
"""Why a rationale is dropped, in the order in which it is checked."""

_Fault = tuple[str, np.ndarray]
"""One of `DROPPED`, and where it is found: [n]."""


def explain_shard(
    shard: PreparedShard, files: list[str], engine: Engine, prompts: TeacherPrompts, settings: TeacherSettings
) -> Processed:
    """Has the teacher explain examples and predict from its rationales, and drops the rationales that do not hold.

    The counts are `examples` that came in, those `kept`, those `rejected` as unusable, those `predicted` from a sound
    rationale, `histories_cut`, and one for each of `DROPPED`.
    """
    rationales = _explain(engine, prompts, shard.questions, settings)
    faults = _unsound(rationales, prompts, settings)
    is_sound_n = ~reduce(np.logical_or, (mask_n for _, mask_n in faults))
    mismatch_n = np.zeros(len(rationales), dtype=bool)
    sound = [(shard.questions[n], rationales[n] or "") for n in np.flatnonzero(is_sound_n)]
    mismatch_n[is_sound_n] = _mismatches(engine, prompts, sound)
    faults += [(MISMATCH, mismatch_n), *_leaks(shard.questions, rationales, settings.quoted_words)]

    column = pa.array([rationale or "" for rationale in rationales], pa.string())
    explained = shard.examples.set_column(shard.examples.column_names.index("rationale"), "rationale", column)
    found = [("rationale", fault, mask_n) for fault, mask_n in faults]
    kept, dropped = checks.split_valid(explained, "examples", files, found)
    reasons = Counter(dropped["reason"].to_pylist())
    counts: dict[str, float] = {
        "examples": shard.examples.num_rows + shard.invalid.num_rows,
        "kept": kept.num_rows,
        "rejected": shard.invalid.num_rows,
        "predicted": int(is_sound_n.sum()),
        "histories_cut": shard.histories_cut,
        **{fault: reasons[fault] for fault in DROPPED},
    }
    # In the order of the files' rows again.
    invalid = pa.concat_tables([shard.invalid, dropped]).sort_by("row")
    return Processed(kept.sort_by("row").select(schema.EXAMPLES.names), invalid, counts)


def _explain(
    engine: Engine, prompts: TeacherPrompts, questions: Sequence[TeacherQuestion], settings: TeacherSettings
) -> list[str | None]:
    """Returns each example's rationale, None where it was not finished."""
    tokenizer = prompts.tokenizer.tokenizer
    sampling = Sampling(settings.temperature, settings.top_p, settings.top_k, [each.seed for each in questions])
    asked = [prompts.explain(each.options, each.history, each.label) for each in questions]
    generated = engine.generate(asked, settings.max_tokens, [int(tokenizer.eos_token_id)], sampling)
    return [
        rationale_of(str(tokenizer.decode(ids)), prompts.thinks_first) if len(ids) < settings.max_tokens else None
        for ids in generated
    ]


def _unsound(rationales: Sequence[str | None], prompts: TeacherPrompts, settings: TeacherSettings) -> list[_Fault]:
    words = [len(rationale_checks.words(rationale or "")) for rationale in rationales]
    tokens = [len(ids) for ids in prompts.tokenizer.encode_data([f" {rationale or ''}" for rationale in rationales])]
    return [
        (UNFINISHED, np.array([rationale is None for rationale in rationales], dtype=bool)),
        (TOO_SHORT, np.array([count < settings.min_words for count in words], dtype=bool)),
        (TOO_LONG, np.array([count > settings.spec.reason_tokens for count in tokens], dtype=bool)),
    ]


def _mismatches(engine: Engine, prompts: TeacherPrompts, sound: list[tuple[TeacherQuestion, str]]) -> list[bool]:
    """Returns where the teacher, given only its sound rationale, does not choose the truth: [s]."""
    asked_s = [prompts.predict(each.options, each.history, rationale) for each, rationale in sound]
    answers_s = [each.options.answers for each, _ in sound]
    choices = Choose().decode(engine, Questions(prompts.tokenizer, asked_s, answers_s))
    return [not each.is_chosen(chosen) for (each, _), chosen in zip(sound, choices.candidates, strict=True)]


def _leaks(questions: Sequence[TeacherQuestion], rationales: Sequence[str | None], quoted_words: int) -> list[_Fault]:
    pairs = zip(rationales, questions, strict=True)
    found = [rationale_checks.find_leak(rationale or "", each.caption, quoted_words) for rationale, each in pairs]
    return [(kind, np.array([each == kind for each in found], dtype=bool)) for kind in rationale_checks.LEAKS]
