"""Logs and artwork become examples, on Ray Data.

Three stages, each over items that one task works on alone (`stages`):

1. partition: a slice of a file of interactions or impressions is checked, and its good rows are written as one
   object ordered by bucket; a bucket is the users whose hash says so.
2. pairs: a bucket's rows are read out of all those objects, duplicates are dropped, and each user-title pair's
   first engagement is found with the range of its history.
3. examples: all pairs' keys being known, the splits are cut, and each bucket's pairs are written as examples.
"""

import itertools
import json
import re
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pyarrow.compute as pc
import ray

from artsel_ray import schema, storage
from artsel_ray.config import resolved
from artsel_ray.data.catalog import read_catalog
from artsel_ray.errors import InputError
from artsel_ray.prepare import splits, stages
from artsel_ray.prepare.settings import PrepareConfig
from artsel_ray.runtime.ray_cluster import start_ray
from artsel_ray.runtime.run import CONFIG, Run, take

BUCKET_INTERACTIONS = 300_000
_CLOCK_SKEW_SECONDS = 86_400
_PROGRESS_SECONDS = 5.0
_OUTPUTS = (*(f"examples/{name}" for name in splits.SPLITS), "requests/test", "rejected")
_PART = re.compile(r"part-(\d{6}-\d{3}|empty|catalogue|(slice|bucket)-\d{6})\.parquet")


def prepare(config: PrepareConfig) -> None:
    """Writes examples/{train,validation,test}, requests/test, rejected, config.json, summary.json, the manifest.

    What an earlier run left in those folders is deleted once the input has been checked. docs/data.md says which rows
    are rejected.

    Raises:
        InputError: if a flag, a table or a file is wrong, if the output holds other files than an earlier run's, if
            more of the impressions are rejected than `max_reject_rate` allows, or if nothing is left to make an
            example of.
    """
    _check(config)
    started = time.monotonic()
    plan = _plan(config)
    titles, artworks = plan.files["titles"], plan.files["artworks"]
    folder = storage.join(config.input, "artworks")
    catalog, contents, bad = read_catalog(titles, artworks, config.asset_kind, config.assets, folder)
    if config.assets == "image":  # the storage's settings are not written into examples: who reads these has them
        contents = pc.replace_substring_regex(contents, r"^(\w+://[^?]*)\?.*$", r"\1")
    laps = [("", started), ("catalogue", time.monotonic())]
    run = _claim(config)
    counts = stages.write_invalid(plan, "catalogue", bad)
    start_ray()
    known = (ray.put(plan), ray.put(catalog), ray.put(contents))
    del contents
    laps.append(("ray_start", time.monotonic()))
    try:
        laps += _run(config, plan, known, counts)
    finally:
        run.check()  # the work of one that has taken over is not ours to delete
        storage.delete(storage.join(config.output, "_work"))
    seconds = {name: round(end - start, 1) for (_, start), (name, end) in itertools.pairwise(laps)}
    seconds["total"] = round(time.monotonic() - started, 1)
    summary = {**_summary(plan, counts, seconds), "simulated": _simulated(config.input)}
    storage.write_json(storage.join(config.output, "summary.json"), summary)
    written = {name: _files(config.output, name) for name in ("examples", "requests", "rejected")}
    run.publish({"rows": {name: counts[name] for name in sorted(counts)}, **written})
    sizes = ", ".join(f"{counts[f'examples/{name}']:,} {name}" for name in reversed(splits.SPLITS))
    print(f"prepare: {sizes} examples in {storage.join(config.output, 'examples')} ({seconds['total']} s)")


def _check(config: PrepareConfig) -> None:
    least = {"history_length": 1, "train_size": 1, "validation_size": 0, "test_size": 0}
    for name, bound in least.items():
        if getattr(config, name) < bound:
            flag = name.replace("_", "-")
            raise InputError(f"--{flag} is {getattr(config, name)}, expected {bound} or more")
    if config.buckets is not None and config.buckets < 1:
        raise InputError(f"--buckets is {config.buckets}, expected 1 or more")
    if not 0 <= config.max_reject_rate <= 1:
        raise InputError(f"--max-reject-rate is {config.max_reject_rate}, expected a number from 0 to 1")


def _plan(config: PrepareConfig) -> stages.Plan:
    if storage.exists(storage.join(config.input, CONFIG)) and storage.read_manifest(config.input) is None:
        raise InputError(f"{config.input} is not whole: its {CONFIG} has no {storage.MANIFEST}; finish that run first")
    files = {
        name: storage.list_files(storage.join(config.input, name))
        for name in ("titles", "artworks", "interactions", "impressions")
    }
    slices = [
        *stages.slices("interactions", files["interactions"]),
        *stages.slices("impressions", files["impressions"]),
    ]
    for table in ("interactions", "impressions"):
        if not any(part.rows for part in slices if part.table == table):
            raise InputError(f"{storage.join(config.input, table)} has no rows; there is nothing to prepare")
    interactions = sum(part.rows for part in slices if part.table == "interactions")
    return stages.Plan(
        output=config.output,
        files=files,
        slices=slices,
        buckets=config.buckets or -(-interactions // BUCKET_INTERACTIONS),
        history_length=config.history_length,
        split=config.split,
        seed=config.seed,
        now_us=int((time.time() + _CLOCK_SKEW_SECONDS) * 1e6),
        assets=config.assets,
    )


def _claim(config: PrepareConfig) -> Run:
    """Makes the output this run's: deletes an earlier run's objects, and says in config.json whose the folder is."""
    path = storage.join(config.output, CONFIG)
    known = storage.read_json(path) if storage.exists(path) else None
    if known is None and storage.find_files(config.output):
        raise InputError(f"{config.output} holds Parquet files but no {CONFIG} of prepare; give another --output")
    if known is not None and not {f"{name}_size" for name in splits.SPLITS} <= set(known):
        raise InputError(f"{config.output} holds another job's {CONFIG}; give another --output")
    old = [uri for name in _OUTPUTS for uri in storage.find_files(storage.join(config.output, name))]
    for uri in old:
        if not _PART.fullmatch(uri.partition("?")[0].rpartition("/")[2]):
            raise InputError(
                f"{uri} is not of prepare, which would mix it with its own; move it, or give another --output"
            )
    run = take(config.output)
    storage.delete(storage.join(config.output, storage.MANIFEST))
    storage.write_json(path, resolved(config))
    for uri in (*old, storage.join(config.output, "_work")):
        storage.delete(uri)
    return run


def _run(
    config: PrepareConfig, plan: stages.Plan, references: tuple[ray.ObjectRef, ...], counts: stages.Counts
) -> list[tuple[str, float]]:
    """Runs the stages and adds to the counts; returns each stage's name and when it ended."""
    laps = []
    known, contents = references[:2], references[2]
    for part, _ in _stage("partition", stages.partition_slice, known, len(plan.slices)):
        counts.update(part)
    laps.append(("partition", time.monotonic()))
    sizes = (config.train_size, config.validation_size, config.test_size)
    keys = splits.concatenate([])
    for part, found in _stage("pairs", stages.bucket_pairs, known, plan.buckets):
        counts.update(part)
        keys = splits.concatenate([keys, found]).smallest(sum(sizes))
    _check_counts(config, plan, counts)
    laps.append(("pairs", time.monotonic()))
    last = splits.last_keys(keys, splits.allot(counts["pairs"], *sizes))
    for part, _ in _stage("examples", stages.bucket_examples, (*known, contents, ray.put(last)), plan.buckets):
        counts.update(part)
    _write_empty_splits(config.output, counts)
    laps.append(("examples", time.monotonic()))
    return laps


def _stage(
    name: str, function: Callable[..., Any], known: tuple[ray.ObjectRef, ...], items: int
) -> Iterator[tuple[stages.Counts, splits.Keys]]:
    """Yields what `function(plan, item, …)` returns for every item, in the order in which they finish."""
    started = shown = time.monotonic()
    # One block for each item, so that one task works on one item and a lost one is redone alone.
    rows = ray.data.range(items, override_num_blocks=items).map(partial(_work, function, known), num_cpus=1)
    for done, row in enumerate(rows.iter_rows(), start=1):
        if row["error"]:
            raise InputError(row["error"])
        now = time.monotonic()
        if done == items or now - shown > _PROGRESS_SECONDS:
            print(f"prepare: {name} {done}/{items}, {now - started:.1f} s", flush=True)
            shown = now
        yield stages.Counts(json.loads(row["counts"])), splits.Keys.from_bytes(row["keys"])


def _work(function: Callable[..., Any], known: tuple[ray.ObjectRef, ...], row: dict[str, Any]) -> dict[str, Any]:
    plan, *rest = ray.get(list(known))
    try:
        result = function(plan, int(row["id"]), *rest)
    except InputError as error:
        # As a value: an exception would reach the user as Ray's traceback, after retries.
        return {"error": str(error), "counts": "{}", "keys": b""}
    counts, keys = result if isinstance(result, tuple) else (result, splits.concatenate([]))
    return {"error": "", "counts": json.dumps(counts), "keys": keys.to_bytes()}


def _rejected(counts: stages.Counts, table: str) -> dict[str, int]:
    prefix = f"rejected/{table}/"
    return {name.removeprefix(prefix): counts[name] for name in sorted(counts) if name.startswith(prefix)}


def _rows(plan: stages.Plan, table: str) -> int:
    return sum(part.rows for part in plan.slices if part.table == table)


def _check_counts(config: PrepareConfig, plan: stages.Plan, counts: stages.Counts) -> None:
    reasons = _rejected(counts, "impressions")
    invalid, impressions = sum(reasons.values()), _rows(plan, "impressions")
    where = storage.join(config.output, "rejected")
    if invalid > config.max_reject_rate * impressions:
        most = max(reasons, key=lambda reason: reasons[reason])
        raise InputError(
            f"{invalid:,} of {impressions:,} impressions are rejected, more than --max-reject-rate "
            f"{config.max_reject_rate:g} allows; the most frequent reason is '{most}' ({reasons[most]:,}). "
            f"See {where}; mend the data or raise the limit"
        )
    if not counts["pairs"]:
        raise InputError(
            f"none of {impressions:,} impressions can become an example: {counts['not_engaged']:,} were not engaged "
            f"with, {invalid:,} are rejected; see {where}"
        )


def _write_empty_splits(output: str, counts: stages.Counts) -> None:
    """Writes an object without rows for a split without examples, so that its readers find a table."""
    for name in splits.SPLITS:
        if not counts[f"examples/{name}"]:
            uri = storage.join(output, "examples", name, "part-empty.parquet")
            storage.write_table(uri, schema.EXAMPLES.empty_table(), "examples")
    if not counts["requests"]:
        uri = storage.join(output, "requests", "test", "part-empty.parquet")
        storage.write_table(uri, schema.REQUESTS.empty_table(), "requests")


def _summary(plan: stages.Plan, counts: stages.Counts, seconds: dict[str, float]) -> dict[str, Any]:
    """Returns what became of every row; the impressions add up."""
    reasons = {name: _rejected(counts, name) for name in ("titles", "artworks", "interactions", "impressions")}
    return {
        "impressions": _rows(plan, "impressions"),
        "examples": {name: counts[f"examples/{name}"] for name in reversed(splits.SPLITS)},
        "other_kind": counts["other_kind"],
        "not_engaged": counts["not_engaged"],
        "repeated": counts["repeated"],
        "not_selected": counts["not_selected"],
        "rejected": {name: sum(found.values()) for name, found in reasons.items()},
        "reasons": reasons,
        "interactions": _rows(plan, "interactions"),
        "requests": counts["requests"],
        "buckets": plan.buckets,
        "seconds": seconds,
    }


def _simulated(world: str) -> list[str]:
    """Returns what of the input is simulated, as its summary says; nothing where it has none."""
    summary = storage.join(world, "summary.json")
    return storage.read_json(summary).get("simulated", []) if storage.exists(summary) else []


def _files(output: str, name: str) -> list[str]:
    """Returns the objects of one of the outputs, relative to it."""
    folder = storage.join(output, name)
    prefix = len(folder.partition("?")[0])
    return [name + uri.partition("?")[0][prefix:] for uri in storage.find_files(folder)]
