"""Distillation of rationales: shards of examples, which teachers explain, each in an engine of its own."""

import dataclasses
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

from artsel_ray import storage
from artsel_ray.config import EngineSettings, RowLimits, limits_identity, resolved
from artsel_ray.data.checked_reader import RowRange, row_ranges
from artsel_ray.distill.prompts import WORDING, TeacherPrompts
from artsel_ray.distill.questions import PreparedShard, TeacherSettings, prepare_shard
from artsel_ray.distill.rationales import DROPPED, explain_shard
from artsel_ray.distill.settings import DistillConfig
from artsel_ray.engines.base import Engine
from artsel_ray.engines.vllm import VllmEngine
from artsel_ray.errors import InputError
from artsel_ray.models.load import load, load_tokenizer
from artsel_ray.models.weights import model_length, prompt_tokenizer
from artsel_ray.prompts.spec import PromptSpec
from artsel_ray.runtime.engine_pool import EngineStage, GetEngine, Processed
from artsel_ray.runtime.run import FRAME, begin
from artsel_ray.runtime.sharded_job import PrepareStage, ShardedJob
from artsel_ray.runtime.shards import INVALID_FOLDER

_COUNTS = ("examples", "kept", "rejected", "predicted", "histories_cut")
_TOKENS = ("prompt_tokens", "cached_tokens", "decoded_tokens")


def distill(config: DistillConfig) -> None:
    """Writes examples with rationales; resumes an earlier run.

    Raises:
        InputError: for wrong input or flags, another run's output, or if no rationale could be kept.
    """
    started = time.perf_counter()
    files = storage.list_files(config.examples)
    shards = row_ranges(files, "examples", config.shard_examples)
    settings, pool = resolve(config), config.engine_pool
    frame = storage.fingerprint(_prompts(settings).tokenizer.frame())
    run = begin(config.output, {**_identity(config, settings), FRAME: frame}, resolved(config), added=(FRAME,))
    job = ShardedJob(
        run, table="examples", unit="examples", shards=len(shards), rows=sum(shard.rows for shard in shards),
        model_id=settings.model_id, started=started, pool=pool,
        prepare=PrepareStage("prepare", partial(_preparer, files, shards, settings, config.limits)),
        engine=EngineStage("explain", partial(_explainer, files, settings), partial(_load_teacher, settings, pool)),
    )  # fmt: skip
    job.resume()
    totals = job.totals()
    counts = {name: int(totals[name]) for name in (*_COUNTS, *_TOKENS)}
    summary = job.summary({**counts, "dropped": {fault: int(totals[fault]) for fault in DROPPED}}, totals)
    described = _described(totals, config.output)
    if not totals["kept"]:
        # The summary stays, for whoever looks for the cause.
        storage.write_json(storage.join(config.output, "summary.json"), summary)
        raise InputError(f"{described}. None is left to train on; take a better teacher, or look at {config.output}")
    job.publish(summary, {"examples": counts["kept"], "model_id": settings.model_id})
    print(f"{described}; {config.output}", flush=True)


def resolve(config: DistillConfig) -> TeacherSettings:
    """Prepares the teacher on this machine, and returns what rationales depend on.

    Raises:
        InputError: if there is no such model, or it has no token budget for a prompt.
    """
    model = load(config.teacher)
    length = min(config.engine_pool.max_model_length, model_length(model.base))
    if config.max_tokens >= length:
        raise InputError(
            f"--max-tokens {config.max_tokens} leaves no tokens for a prompt: prompt and answer have {length}"
        )
    asset_kind, history_length, reason_tokens = config.asset_kind, config.history_length, config.reason_tokens
    spec = PromptSpec(reason=True, history_length=history_length, reason_tokens=reason_tokens, asset_kind=asset_kind)
    return TeacherSettings(
        config.teacher, model.model_id + config.engine_pool.precision, spec, config.temperature, config.top_p,
        config.top_k, config.seed, config.max_tokens, length, config.min_words, config.quoted_words,
    )  # fmt: skip


def _load_teacher(settings: TeacherSettings, pool: EngineSettings) -> Engine:
    teacher = load(settings.teacher)
    tokens = len(prompt_tokenizer(teacher.base, settings.spec).tokenizer)
    return VllmEngine(teacher, settings.max_model_length, tokens, pool, seeded=True)


def _identity(config: DistillConfig, settings: TeacherSettings) -> dict[str, Any]:
    decisive = {name: value for name, value in dataclasses.asdict(settings).items() if name != "teacher"}
    examples = storage.describe_files(config.examples)
    fixed = {"wording": WORDING, "shard_examples": config.shard_examples, "examples": examples}
    return {**decisive, **fixed, **limits_identity(config.limits)}


def _prompts(settings: TeacherSettings) -> TeacherPrompts:
    return TeacherPrompts(prompt_tokenizer(load_tokenizer(settings.teacher), settings.spec))


def _preparer(
    files: list[str], shards: list[RowRange], settings: TeacherSettings, limits: RowLimits
) -> Callable[[int], PreparedShard]:
    prompts = _prompts(settings)
    return lambda index: prepare_shard(files, shards[index], prompts, settings, limits)


def _explainer(files: list[str], settings: TeacherSettings) -> Callable[[PreparedShard, GetEngine], Processed]:
    prompts = _prompts(settings)
    return lambda shard, get_engine: explain_shard(shard, files, get_engine(), prompts, settings)


def _described(totals: Counter[str], output: str) -> str:
    counts = [
        f"{int(totals['examples']):,} examples, {int(totals['kept']):,} rationales kept, "
        f"{int(totals['predicted']):,} predicted from"
    ]
    counts += [f"{int(totals[fault]):,} dropped: {fault}" for fault in DROPPED if totals[fault]]
    if totals["rejected"]:
        counts.append(f"{int(totals['rejected']):,} rejected, see {storage.join(output, INVALID_FOLDER)}")
    return "; ".join(counts)
