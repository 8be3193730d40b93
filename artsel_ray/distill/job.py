"""Distillation of reasons on Ray Data: shards of examples go through teachers, each in an engine of its own."""

import collections
import dataclasses
import time
from collections.abc import Sequence
from typing import Any

from artsel_ray import storage
from artsel_ray.config import resolved
from artsel_ray.data.row_ranges import Shard, plan_shards, read_shard, write_shard
from artsel_ray.distill.prompts import WORDING
from artsel_ray.distill.rationales import DROPPED, TeacherSettings, explain_shard
from artsel_ray.distill.settings import DistillConfig
from artsel_ray.engines.vllm import VllmEngine
from artsel_ray.errors import InputError
from artsel_ray.models.load import load
from artsel_ray.prompts.spec import PromptSpec
from artsel_ray.runtime import shards as resume
from artsel_ray.runtime.engine_pool import engine_pool, of_shards
from artsel_ray.runtime.progress import Progress
from artsel_ray.runtime.ray_cluster import start_ray
from artsel_ray.runtime.run import Run, begin
from artsel_ray.runtime.task_result import answer, values
from artsel_ray.score.rendering import prompt_tokenizer
from artsel_ray.score.resolve import model_length

SUMMARY = "summary.json"


def distill(config: DistillConfig) -> None:
    """Writes examples with reasons, resuming what an earlier run has left undone.

    Raises:
        InputError: for wrong input or flags, another run's output, or if no reason could be kept.
    """
    begun = time.perf_counter()
    files = storage.list_files(config.examples)
    shards = plan_shards(files, "examples", config.shard_examples)
    teaching = resolve(config)
    run = begin(config.output, _run(config, teaching), resolved(config))
    done = resume.done(config.output)
    missing = [index for index in range(len(shards)) if index not in done]
    rows = sum(shard.rows for shard in shards)
    print(f"{rows:,} examples in {len(shards):,} shards, {len(done):,} done; teacher {teaching.model_id}", flush=True)
    if missing:
        start_ray()
        _explain_shards(run, config, teaching, files, shards, missing)
    _publish(run, config, teaching, len(shards), time.perf_counter() - begun)


def resolve(config: DistillConfig) -> TeacherSettings:
    """Makes the teacher ready on this machine and settles how it is asked.

    Raises:
        InputError: if there is no such model, or for settings that no sampler takes.
    """
    if config.temperature < 0 or not 0 < config.top_p <= 1 or config.top_k < 0:
        raise InputError(
            f"--temperature {config.temperature} must be at least 0, --top-p {config.top_p} above 0 and at most 1, "
            f"--top-k {config.top_k} at least 0"
        )
    model = load(config.teacher)
    length = min(config.max_model_length, model_length(model))
    if config.max_tokens >= length:
        raise InputError(
            f"--max-tokens {config.max_tokens} leaves no room for a prompt: prompt and answer have {length} tokens"
        )
    spec = PromptSpec(
        reason=True,
        history_length=config.history_length,
        reason_tokens=config.reason_tokens,
        asset_kind=config.asset_kind,
    )
    return TeacherSettings(
        config.teacher, model.model_id, spec, config.temperature, config.top_p, config.top_k, config.seed,
        config.max_tokens, length, config.min_words, config.quoted_words,
    )  # fmt: skip


def _run(config: DistillConfig, teaching: TeacherSettings) -> dict[str, Any]:
    decides = {name: value for name, value in dataclasses.asdict(teaching).items() if name != "teacher"}
    examples = resume.describe_files(config.examples)
    return {**decides, "wording": WORDING, "shard_examples": config.shard_examples, "examples": examples}


class Explainer:
    """Explains shards with an engine of its own."""

    def __init__(self, config: DistillConfig, teaching: TeacherSettings, files: list[str], shards: list[Shard]) -> None:
        """Loads the teacher."""
        self._output, self._teaching, self._files, self._shards = config.output, teaching, files, shards
        tokens = len(prompt_tokenizer(teaching.teacher, teaching.spec).tokenizer)
        path = load(teaching.teacher).path
        self._engine = VllmEngine(
            path, teaching.max_model_length, tokens, config.dtype, config.tensor_parallel, seeded=True
        )

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Explains and writes one shard, and returns its statistics."""
        explained = answer(self._explain, int(batch["shard"][0]))
        return {name: [each] for name, each in explained.items()}

    def _explain(self, index: int) -> dict[str, float]:
        begun = time.perf_counter()
        rows = read_shard(self._files, "examples", self._shards[index])
        explained = explain_shard(rows, self._files, self._engine, self._teaching)
        usage = self._engine.take_usage()
        statistics = {
            **explained.counts,
            "prompt_tokens": usage.prompt_tokens,
            "cached_tokens": usage.cached_tokens,
            "decoded_tokens": usage.decoded_tokens,
            "engine_seconds": usage.seconds,
            "shard_seconds": time.perf_counter() - begun,
        }
        write_shard(self._output, index, "examples", explained.examples, explained.invalid, statistics)
        return statistics


def _explain_shards(
    run: Run,
    config: DistillConfig,
    teaching: TeacherSettings,
    files: list[str],
    shards: list[Shard],
    missing: Sequence[int],
) -> None:
    dataset = of_shards(missing).map_batches(
        Explainer,
        fn_constructor_args=[config, teaching, files, shards],
        **engine_pool(config.engines, config.tensor_parallel),
    )
    print(f"starting {config.engines} engine(s), which takes a minute or more", flush=True)
    progress = Progress(len(missing), "examples")
    for statistics in values(dataset):
        progress.add(statistics)
        run.check()


def _publish(run: Run, config: DistillConfig, teaching: TeacherSettings, shards: int, seconds: float) -> None:
    """Sums up the shards, writes the summary, and last the manifest."""
    totals: collections.Counter[str] = collections.Counter()
    for shard in range(shards):
        totals.update(resume.read_statistics(config.output, shard))
    kept, predicted = int(totals["kept"]), int(totals["predicted"])
    dropped = {fault: int(totals[fault]) for fault in DROPPED}
    summary = {
        **{name: int(totals[name]) for name in ("examples", "kept", "rejected", "predicted")},
        "dropped": dropped,
        **{name: int(totals[name]) for name in ("histories_cut", "prompt_tokens", "cached_tokens", "decoded_tokens")},
        "model_id": teaching.model_id,
        "seconds": {"total": seconds, "engines": totals["engine_seconds"], "shards": totals["shard_seconds"]},
    }
    storage.write_json(storage.join(config.output, SUMMARY), summary)
    listed = "".join(f"; {count:,} dropped: {fault}" for fault, count in dropped.items() if count)
    invalid = int(totals["rejected"])
    listed += f"; {invalid:,} rejected, see {storage.join(config.output, 'invalid')}" if invalid else ""
    counted = f"{int(totals['examples']):,} examples, {kept:,} reasons kept, {predicted:,} predicted from{listed}"
    if not kept:
        raise InputError(f"{counted}. None is left to train on; take a better teacher, or look at {config.output}")
    parts = [resume.part_name(shard) for shard in range(shards)]
    run.publish({"parts": parts, "examples": kept, "model_id": teaching.model_id})
    print(f"{counted}; {config.output}", flush=True)
