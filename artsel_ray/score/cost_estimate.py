"""What a run costs: its tokens counted, its speed measured on a few pairs."""

import dataclasses
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from artsel_ray import storage
from artsel_ray.config import Layout
from artsel_ray.errors import InputError
from artsel_ray.runtime.ray_cluster import start_ray
from artsel_ray.score.assignment import count_pairs
from artsel_ray.score.requests import read_requests
from artsel_ray.score.scoring_run import ScoringRun, score_requests
from artsel_ray.score.settings import ServingSettings
from artsel_ray.score.token_counts import LAYOUTS, TokenCounter, TokenCounts, cache_block_tokens

PLAN = "plan.json"
_CALIBRATION = "_calibration"
_SAMPLE_PAIRS, _SAMPLE_USERS = 128, 64


@dataclass(frozen=True)
class Speed:
    """What one engine does on a sample of the requests."""

    tokens_per_second: float | None = None
    """Computed tokens, without those from the cache; None if there is nothing to compute."""
    pairs: int = 0
    """Pairs that were measured; 0 if the speed was given."""
    start_seconds: float = 0.0
    bytes_per_pair: float | None = None
    further: float = 1.0
    """Questions after each pair's first one, measured over counted: with `choose` they depend on the answers."""
    decoded: float = 1.0
    """Tokens decoded per question."""


def estimate_cost(run: ScoringRun) -> None:
    """Writes OUTPUT/plan.json and prints it: tokens in both layouts, seconds, engine-hours and bytes.

    Raises:
        InputError: for wrong input.
    """
    start_ray()
    totals, shards, asked = _count(run)
    layout = totals.cheapest_layout() if run.auto_layout else run.prompted.spec.layout
    given = run.config.tokens_per_second
    if given is None and not totals.pairs:
        raise InputError("no pair can be scored; see what a run without --estimate-cost rejects")
    speed = Speed(given) if given or not totals.questions else _measure_sample(run, layout, asked)
    plan = _plan(totals, shards, run.config.engine_pool.engines, layout, speed)
    path = storage.join(run.config.output, PLAN)
    storage.write_json(path, plan)
    _print(plan, path)


def _count(run: ScoringRun) -> tuple[TokenCounts, int, pa.Array]:
    """Returns what the run costs, its number of shards, and the ids of the titles with something to ask."""
    counts = count_pairs(run.files)
    assignment = run.assign(counts)
    shards = {title_id: number for title_id, (_, number) in assignment.shard_of.items()}
    counter = TokenCounter(run.prompted, cache_block_tokens())
    costs = counter.measure_titles(counts, run.catalog)
    return counter.count(run.files, costs, shards), assignment.shards, costs.asked_ids


def _measure_sample(run: ScoringRun, layout: Layout, asked: pa.Array) -> Speed:
    folder = storage.join(run.config.output, _CALIBRATION)
    storage.delete(folder)  # of an estimate that was interrupted
    requests = storage.join(folder, "requests")
    storage.write_table(storage.join(requests, "sample.parquet"), _sample(run.files, asked), "requests")
    config = dataclasses.replace(
        run.config,
        requests=requests,
        output=storage.join(folder, "predictions"),
        previous=None,
        serving=ServingSettings(),
        engine_pool=dataclasses.replace(run.config.engine_pool, engines=1),
        max_reject_rate=1.0,
    )
    files = storage.list_files(requests)
    sample = dataclasses.replace(run, config=config, files=files, started=time.perf_counter())
    expected, _, _ = _count(sample)
    score_requests(sample.with_layout(layout))
    speed = _speed(config.output, expected)
    storage.delete(folder)
    return speed


def _sample(files: list[str], asked: pa.Array) -> pa.Table:
    """Returns requests of the most popular of the titles with something to ask, in the first rows that have some."""
    tables = (batch.valid for index in range(len(files)) for batch in read_requests(files, range(index, index + 1)))
    pairs = ((table, table["title_ids"].combine_chunks()) for table in tables)
    table, wanted = next(each for each in pairs if pc.any(pc.is_in(each[1].flatten(), asked)).as_py())
    titles = wanted.flatten().filter(pc.is_in(wanted.flatten(), asked))
    most_common = Counter(titles.to_pylist()).most_common(_SAMPLE_PAIRS // _SAMPLE_USERS)
    popular = [title for title, _ in most_common]
    rows = pc.list_parent_indices(wanted).filter(pc.is_in(wanted.flatten(), pa.array(popular, pa.string())))
    kept = table.take(rows.unique()[:_SAMPLE_USERS])
    titles = [[title for title in row if title in popular] for row in kept["title_ids"].to_pylist()]
    index = table.schema.get_field_index("title_ids")
    return kept.set_column(index, "title_ids", pa.array(titles, pa.list_(pa.string())))


def _speed(output: str, expected: TokenCounts) -> Speed:
    summary = storage.read_json(storage.join(output, "summary.json"))
    stages, computed = summary["seconds"]["stages"], summary["prompt_tokens"] - summary["cached_tokens"]
    # Every question after the first repeats the prompt: the tokens show how many questions there were.
    more = (summary["prompt_tokens"] - expected.prompt_tokens) / max(expected.further_prompt_tokens, 1)
    return Speed(
        tokens_per_second=computed / max(stages["engine"], 1e-9),
        pairs=summary["pairs"],
        start_seconds=stages["load"],
        bytes_per_pair=sum(len(storage.read_object(part)) for part in storage.list_files(output)) / summary["pairs"],
        further=1.0 + more,
        decoded=summary["decoded_tokens"] / (expected.questions + more * expected.further_questions),
    )


def _plan(totals: TokenCounts, shards: int, engines: int, layout: Layout, speed: Speed) -> dict[str, Any]:
    """Returns the content of plan.json; `seconds` is the wall time with all engines."""
    more = speed.further - 1
    computed = {name: totals.computed(name) + more * totals.further_computed for name in LAYOUTS}
    seconds = computed[layout] / speed.tokens_per_second if speed.tokens_per_second else 0.0
    return {
        "pairs": int(totals.pairs),
        "shards": shards,
        "engines": engines,
        "layout": layout,
        "distinct_prefix_tokens": {name: round(totals.distinct(name)) for name in LAYOUTS},
        "computed_tokens": {name: round(tokens) for name, tokens in computed.items()},
        "prompt_tokens": round(totals.prompt_tokens + more * totals.further_prompt_tokens),
        "decoded_tokens": round((totals.questions + more * totals.further_questions) * speed.decoded),
        "tokens_per_second": speed.tokens_per_second,
        "measured_pairs": speed.pairs,
        "engine_hours": seconds / 3600,
        "seconds": seconds / engines + speed.start_seconds,
        "work_bytes": round(totals.history_bytes),
        "predictions_bytes": None if speed.bytes_per_pair is None else round(totals.pairs * speed.bytes_per_pair),
    }


def _print(plan: dict[str, Any], path: str) -> None:
    print("{pairs:,} pairs in {shards:,} shards, {engines} engine(s), layout {layout}".format(**plan))
    print(f"{'':22}" + "".join(f"{name:>18}" for name in LAYOUTS))
    for name in ("distinct_prefix_tokens", "computed_tokens"):
        print(f"{name.replace('_', ' '):22}" + "".join(f"{plan[name][layout]:18,}" for layout in LAYOUTS))
    print("of {prompt_tokens:,} prompt tokens; {decoded_tokens:,} tokens decoded".format(**plan))
    if plan["tokens_per_second"] is None:
        print("no title asks the model anything: each has one candidate, or candidates that read the same")
    else:
        source = f"measured on {plan['measured_pairs']} pairs" if plan["measured_pairs"] else "as given"
        print(
            f"{plan['tokens_per_second']:,.0f} tokens/s per engine ({source}): {plan['engine_hours']:.2f} "
            f"engine-hours, {plan['seconds']:,.0f} s with {plan['engines']} engine(s)"
        )
    predictions = f", {plan['predictions_bytes'] / 1e6:,.1f} MB of predictions" if plan["predictions_bytes"] else ""
    print(f"at most {plan['work_bytes'] / 1e6:,.1f} MB of spill files while it runs{predictions}\n{path}")
