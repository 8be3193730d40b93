"""What a run costs: its tokens counted, its speed measured on a few pairs."""

import dataclasses
import time
from collections import Counter
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from artsel_ray import storage
from artsel_ray.config import Layout
from artsel_ray.errors import InputError
from artsel_ray.runtime.ray_cluster import start_ray
from artsel_ray.score.assignment import count_pairs
from artsel_ray.score.exploration import ServingPolicy
from artsel_ray.score.requests import read_requests
from artsel_ray.score.scoring_run import ScoringRun, score_requests
from artsel_ray.score.token_counts import LAYOUTS, TokenCounter, TokenCounts, cache_block_tokens

PLAN = "plan.json"
_CALIBRATION = "_calibration"
_SAMPLE_PAIRS, _SAMPLE_USERS = 128, 64


@dataclass(frozen=True)
class Speed:
    """What one engine does on a sample of the requests."""

    pairs: int = 0
    """Pairs that were measured; 0 if the speed was given."""
    tokens_per_second: float = 0.0
    """Throughput of computed tokens, without those from the cache."""
    start_seconds: float = 0.0
    bytes_per_pair: float | None = None
    """Size of the predictions."""
    further: float = 1.0
    """Questions after each pair's first one, measured over counted: with `choose` they depend on the answers."""
    decoded: float = 1.0
    """Tokens decoded per question."""


@dataclass(frozen=True)
class CostEstimate:
    """The content of plan.json."""

    pairs: int
    shards: int
    engines: int
    layout: Layout
    distinct_prefix_tokens: dict[Layout, int]
    computed_tokens: dict[Layout, int]
    prompt_tokens: int
    decoded_tokens: int
    tokens_per_second: float
    """Throughput of one engine."""
    measured_pairs: int
    """Pairs of the sample; 0 if the throughput was given."""
    engine_hours: float
    seconds: float
    """Wall time, with all engines."""
    work_bytes: int
    predictions_bytes: int | None


def estimate_cost(run: ScoringRun, tokens_per_second: float | None) -> None:
    """Writes OUTPUT/plan.json and prints it: tokens in both layouts, seconds, engine-hours and bytes.

    Args:
        run: what would be scored.
        tokens_per_second: throughput of one engine; measured on a sample if None.

    Raises:
        InputError: for wrong input.
    """
    start_ray()
    totals, shards = _count(run)
    layout = totals.cheapest_layout() if run.auto_layout else run.settings.spec.layout
    speed = _measure_sample(run, layout) if tokens_per_second is None else Speed(tokens_per_second=tokens_per_second)
    estimate = _estimate(totals, shards, run.pool.engines, layout, speed)
    path = storage.join(run.output, PLAN)
    storage.write_json(path, dataclasses.asdict(estimate))
    _print(estimate, path)


def _count(run: ScoringRun) -> tuple[TokenCounts, int]:
    """Returns what a run's requests cost, and the number of its shards."""
    counts = count_pairs(run.files)
    assignment = run.assign(counts)
    shards = {title_id: number for title_id, (_, number) in assignment.shard_of.items()}
    counter = TokenCounter(run.settings, cache_block_tokens())
    return counter.count(run.files, counts, run.catalog, shards), assignment.shards


def _measure_sample(run: ScoringRun, layout: Layout) -> Speed:
    """Scores a sample of the requests the ordinary way, with one engine, and deletes what that wrote."""
    folder = storage.join(run.output, _CALIBRATION)
    storage.delete(folder)  # of an estimate that was interrupted
    requests = storage.join(folder, "requests")
    storage.write_table(storage.join(requests, "sample.parquet"), _sample(run.files), "requests")
    sample = dataclasses.replace(
        run,
        requests=requests,
        files=storage.list_files(requests),
        output=storage.join(folder, "predictions"),
        previous=None,
        serving=ServingPolicy(),
        pool=dataclasses.replace(run.pool, engines=1),
        max_reject_rate=1.0,
        started=time.perf_counter(),
    )
    expected, _ = _count(sample)
    score_requests(sample.with_layout(layout))
    speed = _speed(sample.output, expected)
    storage.delete(folder)
    return speed


def _sample(files: list[str]) -> pa.Table:
    """Returns requests of a few users for the most requested titles, from the first rows."""
    tables = (batch.valid for index in range(len(files)) for batch in read_requests(files, index))
    table = next((table for table in tables if table.num_rows), None)
    if table is None:
        raise InputError("the requests have no valid row")
    wanted = table["title_ids"].combine_chunks()
    most_common = Counter(wanted.flatten().to_pylist()).most_common(_SAMPLE_PAIRS // _SAMPLE_USERS)
    popular = [title for title, _ in most_common]
    rows = pc.list_parent_indices(wanted).filter(pc.is_in(wanted.flatten(), pa.array(popular, pa.string())))
    kept = table.take(rows.unique()[:_SAMPLE_USERS])
    titles = [[title for title in row if title in popular] for row in kept["title_ids"].to_pylist()]
    index = table.schema.get_field_index("title_ids")
    return kept.set_column(index, "title_ids", pa.array(titles, pa.list_(pa.string())))


def _speed(output: str, expected: TokenCounts) -> Speed:
    """Returns what a finished run over the sample measured, against the tokens that were counted for it."""
    summary = storage.read_json(storage.join(output, "summary.json"))
    if not summary["pairs"]:
        raise InputError(
            "no pair of the sample can be scored; see what a run without --estimate-cost rejects, or give "
            "--tokens-per-second"
        )
    stages, computed = summary["seconds"]["stages"], summary["prompt_tokens"] - summary["cached_tokens"]
    size = sum(len(storage.read_object(part)) for part in storage.list_files(output))
    # Every question after the first repeats the prompt: the tokens show how many questions there were.
    more = summary["prompt_tokens"] - expected.prompt_tokens
    further = 1.0 + more / max(expected.further_prompt_tokens, 1)
    return Speed(
        pairs=summary["pairs"],
        tokens_per_second=computed / max(stages["engine"], 1e-9),
        start_seconds=stages["load"],
        bytes_per_pair=size / summary["pairs"],
        further=further,
        decoded=summary["decoded_tokens"] / (expected.questions + (further - 1) * expected.further_questions),
    )


def _estimate(totals: TokenCounts, shards: int, engines: int, layout: Layout, speed: Speed) -> CostEstimate:
    more = speed.further - 1
    questions = totals.questions + more * totals.further_questions
    computed = {name: totals.computed(name) + more * totals.further_computed for name in LAYOUTS}
    seconds = computed[layout] / speed.tokens_per_second
    return CostEstimate(
        pairs=int(totals.pairs),
        shards=shards,
        engines=engines,
        layout=layout,
        distinct_prefix_tokens={name: round(totals.distinct(name)) for name in LAYOUTS},
        computed_tokens={name: round(tokens) for name, tokens in computed.items()},
        prompt_tokens=round(totals.prompt_tokens + more * totals.further_prompt_tokens),
        decoded_tokens=round(questions * speed.decoded),
        tokens_per_second=speed.tokens_per_second,
        measured_pairs=speed.pairs,
        engine_hours=seconds / 3600,
        seconds=seconds / engines + speed.start_seconds,
        work_bytes=round(totals.history_bytes),
        predictions_bytes=None if speed.bytes_per_pair is None else round(totals.pairs * speed.bytes_per_pair),
    )


def _print(plan: CostEstimate, path: str) -> None:
    print(f"{plan.pairs:,} pairs in {plan.shards:,} shards, {plan.engines} engine(s), layout {plan.layout}")
    print(f"{'':22}" + "".join(f"{name:>18}" for name in LAYOUTS))
    for name, tokens in (("distinct prefix", plan.distinct_prefix_tokens), ("computed", plan.computed_tokens)):
        print(f"{name + ' tokens':22}" + "".join(f"{tokens[layout]:18,}" for layout in LAYOUTS))
    source = f"measured on {plan.measured_pairs} pairs" if plan.measured_pairs else "as given"
    print(f"of {plan.prompt_tokens:,} prompt tokens; {plan.decoded_tokens:,} tokens decoded")
    print(
        f"{plan.tokens_per_second:,.0f} tokens/s per engine ({source}): "
        f"{plan.engine_hours:.2f} engine-hours, {plan.seconds:,.0f} s with {plan.engines} engine(s)"
    )
    predictions = f", {plan.predictions_bytes / 1e6:,.1f} MB of predictions" if plan.predictions_bytes else ""
    print(f"at most {plan.work_bytes / 1e6:,.1f} MB of spill files while it runs{predictions}")
    print(path)
