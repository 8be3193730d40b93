"""What a night costs: its tokens counted, its speed measured on a few pairs."""

import dataclasses
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from artsel_ray import storage
from artsel_ray.data.catalog import read_catalog
from artsel_ray.errors import InputError
from artsel_ray.prompts.spec import Layout
from artsel_ray.runtime.ray_cluster import start_ray
from artsel_ray.score.job import assign, count_pairs, score
from artsel_ray.score.requests import read_requests
from artsel_ray.score.resolve import check, resolve
from artsel_ray.score.settings import ScoreConfig
from artsel_ray.score.token_counts import LAYOUTS, block_tokens, count

PLAN = "plan.json"
_CALIBRATION = "_calibration"
_SAMPLE_PAIRS, _SAMPLE_USERS = 128, 64


@dataclass(frozen=True)
class Speed:
    """What was measured of one engine on a sample of the requests."""

    pairs: int
    tokens_per_second: float
    """Computed, not from the cache."""
    start_seconds: float
    bytes_per_pair: float
    """Of predictions."""
    further: float
    """Questions behind each pair's first one, measured over counted: with `choose` they depend on the answers."""
    decoded: float
    """Tokens decoded for a question."""


def forecast(config: ScoreConfig) -> None:
    """Writes OUTPUT/plan.json and prints it: tokens in both layouts, seconds, engine-hours and bytes.

    Raises:
        InputError: for wrong input.
    """
    check(config)
    files = storage.list_files(config.requests)
    rendering = resolve(config)
    tables = storage.list_files(config.titles), storage.list_files(config.artworks)
    catalog, contents, _ = read_catalog(*tables, rendering.spec.asset_kind, rendering.spec.assets, config.artworks)
    start_ray()
    counts, block = count_pairs(files), block_tokens()

    def counted(of_files: list[str], of_counts: Counter[str]) -> tuple[Counter[str], int]:
        assignment = assign(of_counts, config, catalog, contents, rendering.spec)
        parts = {title_id: parts for title_id, (_, parts) in assignment.shard_of.items()}
        return count(of_counts, parts, of_files, catalog, contents, rendering, block), assignment.shards

    totals, shards = counted(files, counts)
    layout = rendering.spec.layout
    if config.layout == "auto":
        layout = min(LAYOUTS, key=lambda name: totals[f"{name}_computed"])
    speed = None
    if config.tokens_per_second is None:
        storage.delete(storage.join(config.output, _CALIBRATION))  # of a plan that was interrupted
        sample = storage.join(config.output, _CALIBRATION, "requests")
        storage.write_table(storage.join(sample, "sample.parquet"), _sample(files), "requests")
        expected, _ = counted(storage.list_files(sample), count_pairs(storage.list_files(sample)))
        chosen = None if config.layout is None else layout
        speed = _measure(dataclasses.replace(config, requests=sample, layout=chosen), expected)
        storage.delete(storage.join(config.output, _CALIBRATION))
    plan = _plan(config, totals, shards, layout, speed)
    storage.write_json(storage.join(config.output, PLAN), plan)
    _show(plan, storage.join(config.output, PLAN))


def _sample(files: list[str]) -> pa.Table:
    """Returns requests of a few users for the titles that are asked for most, out of the first rows."""
    tables = (table for index in range(len(files)) for _, table, _, _ in read_requests(files, index))
    table = next((table for table in tables if table.num_rows), None)
    if table is None:
        raise InputError("the requests have no row that can be used")
    wanted = table["title_ids"].combine_chunks()
    popular = [title for title, _ in Counter(wanted.flatten().to_pylist()).most_common(_SAMPLE_PAIRS // _SAMPLE_USERS)]
    asked = pc.list_parent_indices(wanted).filter(pc.is_in(wanted.flatten(), pa.array(popular, pa.string())))
    kept = table.take(asked.unique()[:_SAMPLE_USERS])
    titles = [[title for title in row if title in popular] for row in kept["title_ids"].to_pylist()]
    place = table.schema.get_field_index("title_ids")
    return kept.set_column(place, "title_ids", pa.array(titles, pa.list_(pa.string())))


def _measure(config: ScoreConfig, expected: Counter[str]) -> Speed:
    """Scores the sample in the ordinary way, with one engine."""
    output = storage.join(config.output, _CALIBRATION, "predictions")
    score(dataclasses.replace(config, output=output, engines=1, previous=None, explore="none", max_reject_rate=1.0))
    summary = storage.read_json(storage.join(output, "summary.json"))
    if not summary["pairs"]:
        raise InputError("no pair of the sample can be scored; see what a run rejects, or give --tokens-per-second")
    stages, computed = summary["seconds"]["stages"], summary["prompt_tokens"] - summary["cached_tokens"]
    size = sum(len(storage.read_object(part)) for part in storage.list_files(output))
    # Behind a first question come the prompts again: their tokens tell how many questions came.
    more = summary["prompt_tokens"] - expected["prompt_tokens"]
    further = 1.0 + more / max(expected["further_prompt_tokens"], 1)
    return Speed(
        pairs=summary["pairs"],
        tokens_per_second=computed / max(stages["engine"], 1e-9),
        start_seconds=stages["load"],
        bytes_per_pair=size / summary["pairs"],
        further=further,
        decoded=summary["decoded_tokens"] / (expected["questions"] + (further - 1) * expected["further_questions"]),
    )


def _plan(
    config: ScoreConfig, totals: Counter[str], shards: int, layout: Layout, speed: Speed | None
) -> dict[str, Any]:
    more = speed.further - 1 if speed else 0.0
    questions = totals["questions"] + more * totals["further_questions"]
    computed = {name: totals[f"{name}_computed"] + more * totals["further_computed"] for name in LAYOUTS}
    rate = config.tokens_per_second or (speed.tokens_per_second if speed else 0.0)
    seconds = computed[layout] / rate
    return {
        "pairs": totals["pairs"],
        "shards": shards,
        "engines": config.engines,
        "layout": layout,
        "distinct_prefix_tokens": {name: round(totals[f"{name}_distinct"]) for name in LAYOUTS},
        "computed_tokens": {name: round(tokens) for name, tokens in computed.items()},
        "prompt_tokens": round(totals["prompt_tokens"] + more * totals["further_prompt_tokens"]),
        "decoded_tokens": round(questions * (speed.decoded if speed else 1.0)),
        "tokens_per_second": rate,
        "measured_pairs": speed.pairs if speed else 0,
        "engine_hours": seconds / 3600,
        "seconds": seconds / config.engines + (speed.start_seconds if speed else 0.0),
        "work_bytes": round(totals["history_bytes"]),
        "predictions_bytes": round(totals["pairs"] * speed.bytes_per_pair) if speed else None,
    }


def _show(plan: dict[str, Any], path: str) -> None:
    print(f"{plan['pairs']:,} pairs in {plan['shards']:,} shards, {plan['engines']} engine(s), layout {plan['layout']}")
    print(f"{'':22}" + "".join(f"{name:>18}" for name in LAYOUTS))
    for name in ("distinct_prefix_tokens", "computed_tokens"):
        print(f"{name.replace('_', ' '):22}" + "".join(f"{plan[name][layout]:18,}" for layout in LAYOUTS))
    source = f"measured on {plan['measured_pairs']} pairs" if plan["measured_pairs"] else "as given"
    print(f"of {plan['prompt_tokens']:,} prompt tokens; {plan['decoded_tokens']:,} tokens decoded")
    print(
        f"{plan['tokens_per_second']:,.0f} tokens/s an engine ({source}): "
        f"{plan['engine_hours']:.2f} engine-hours, {plan['seconds']:,.0f} s with {plan['engines']} engine(s)"
    )
    print(
        f"at most {plan['work_bytes'] / 1e6:,.1f} MB of work while it runs"
        + (f", {plan['predictions_bytes'] / 1e6:,.1f} MB of predictions" if plan["predictions_bytes"] else "")
    )
    print(path)
